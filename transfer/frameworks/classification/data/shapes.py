"""The embedded set: rendered scenes of one large object, whose class is the label (``core/shapes.py``)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from core.config import PluginSettings
from core.shapes import CLASSES, render
from transfer.frameworks.classification.data import Data, Split

VERSION = 1  # raise it when the renderer's images change: cached features are of the old ones


class Shapes(Data):
    """Centred scenes, rendered at the start and kept in memory; one in which bars hide the object is left out."""

    class Config(PluginSettings):
        """``train`` and ``test`` scenes of ``size`` pixels; the seeds differ from those of pre-training and detection."""

        name: Literal["shapes"] = "shapes"
        train: int = Field(1600, ge=1)
        test: int = Field(400, ge=1)
        size: int = Field(64, ge=32)
        seeds: tuple[int, int] = (3000, 3001)

    def __init__(self, config: "Shapes.Config") -> None:
        self.classes = CLASSES
        self.train = _split(config.seeds[0], config.train, config.size)
        self.test = _split(config.seeds[1], config.test, config.size)


def _split(seed: int, count: int, size: int) -> Split:
    images: list[Tensor] = []
    labels: list[int] = []
    names: list[str] = []
    for index in range(count):
        scene = render(seed, index, size, centred=True)
        if scene.objects:
            images.append(torch.from_numpy(scene.image.copy()).permute(2, 0, 1).contiguous())
            labels.append(scene.objects[0].label)
            names.append(f"{seed}/{index}")
    return Split(names, labels, lambda index: images[index], [f"{VERSION} {size} {name}" for name in names])
