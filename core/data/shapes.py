"""The embedded set: rendered scenes of shapes, the same on every machine (``core/shapes.py``)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from core.config import PluginSettings
from core.data import Images, Labelled, LabelledSettings, Split
from core.shapes import CLASSES, render

VERSION = 1  # raise it when the renderer's images change: kept features are of the old ones


class Shapes(Images):
    """``count`` scenes, rendered when first asked for and kept in memory as uint8."""

    class Config(PluginSettings):
        """``size`` is the image side in pixels; ``scene_seed`` differs from those of the detection and segmentation sets.

        ``centred`` images show one large object before one of a few backgrounds. Without it, the background alone tells
        images apart, and a backbone need learn nothing of the objects.
        """

        name: Literal["shapes"] = "shapes"
        count: int = Field(2000, ge=1, le=2**24)
        size: int = Field(96, ge=32, le=4096)
        scene_seed: int = 1000
        centred: bool = True
        damaged: Literal["skip", "refuse"] = "refuse"

    class Splits(LabelledSettings):
        """``train`` and ``test`` centred scenes of ``size`` pixels; the seeds differ from those of pre-training and detection.

        A scene in which bars hide the object is left out.
        """

        name: Literal["shapes"] = "shapes"
        train: int = Field(1600, ge=1)
        test: int = Field(400, ge=1)
        size: int = Field(64, ge=32, le=4096)
        seeds: tuple[int, int] = (3000, 3001)

        def read(self) -> Labelled:
            """Render all scenes."""
            counts = zip(self.seeds, (self.train, self.test), strict=True)
            return Labelled(CLASSES, *(self._split(seed, count) for seed, count in counts))

        def _split(self, seed: int, count: int) -> Split:
            images = Shapes(Shapes.Config(count=count, size=self.size, scene_seed=seed))
            rows = [index for index in range(count) if images.label(index) >= 0]
            names = [f"{seed}/{index}" for index in rows]
            labels = [images.label(index) for index in rows]
            return Split(
                names, labels, lambda row: images.image(rows[row]), [f"{VERSION} {self.size} {n}" for n in names]
            )

    def __init__(self, config: "Shapes.Config") -> None:
        self.config = config
        self._kept: dict[int, tuple[Tensor, int]] = {}

    def __len__(self) -> int:
        return self.config.count

    def image(self, index: int) -> Tensor:
        """Render one scene."""
        return self._scene(index)[0]

    def label(self, index: int) -> int:
        """Return the class of a centred scene's object; -1 where it is hidden, or where scenes hold several objects."""
        return self._scene(index)[1]

    def _scene(self, index: int) -> tuple[Tensor, int]:
        if index not in self._kept:
            scene = render(self.config.scene_seed, index, self.config.size, self.config.centred)
            label = scene.objects[0].label if self.config.centred and scene.objects else -1
            self._kept[index] = torch.from_numpy(scene.image.copy()).permute(2, 0, 1).contiguous(), label
        return self._kept[index]
