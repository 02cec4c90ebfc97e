"""What a task is given: a backbone, labelled images, and settings from a YAML config."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from core import config
from core.backbones import Backbone
from core.config import Settings
from core.data import Labelled
from core.data.imagefolder import ImageFolder
from core.errors import InputError
from core.plugins import choice
from core.stopping import Sitting
from transfer.convert.recipe import Recipe
from transfer.frameworks.classification.views import Subset, ViewSettings

EMBEDDED = "shapes"
TINY = 64  # pixels


class Input(Settings):
    """How pixels enter the network; ``mean`` and ``std`` are on the 0-255 scale, in the order of the channels."""

    channel_order: Literal["RGB"] = "RGB"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def _folders(value: Any) -> Any:
    """Take the configs' word for an image folder with splits, which the protocols' hashes cover."""
    named = isinstance(value, dict) and value.get("name") == "folders"
    return ImageFolder.Splits.model_validate(value) if named else value


class ClassificationSettings(Settings):
    """``chunk`` images go through a frozen backbone at a time; ``workers`` decode images (0: the process itself)."""

    input: Input
    views: ViewSettings
    data: Annotated[choice("core.data", "Splits"), BeforeValidator(_folders)]
    subset: Subset = Subset()
    task: choice("transfer.frameworks.classification.tasks")
    amp: Literal["none", "bfloat16", "float16"] = "none"
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    chunk: int = Field(64, ge=1)
    workers: int = Field(0, ge=0)


def read(path: Path, options: Sequence[str] = (), data: Path | None = None, tiny: str = "") -> ClassificationSettings:
    """Read a config with its bases and ``key=value`` options; ``data`` takes the place of its class folders.

    ``tiny`` shortens it, on the embedded set (``shapes``), on a folder in VOC's layout where images have several classes, or on
    ``data``. Raises InputError naming every problem.
    """
    values = config.load(path, options)
    if tiny:
        _shorten(values, tiny)
    if data is not None:
        values["data"] = {"name": "folders", "root": str(data), "train": "train", "test": "val"}
        views = values.get("views") or {}
        if "size" in views and not views.get("resize"):
            values["views"] = {**views, "resize": views["size"]}  # images of any size
    return config.parse(ClassificationSettings, values, path)


def _shorten(values: dict[str, Any], tiny: str) -> None:
    """Change a config's values in place: few small images, two epochs, two costs, one sample."""
    task = values.get("task") or {}
    if (values.get("data") or {}).get("name") == "voc":
        place = {"root": "shapes/VOC"} if tiny == EMBEDDED else {"root": str(Path(tiny).expanduser().absolute())}
        values["data"] = {"name": "voc", **place, "train": "train", "test": "val"}
    else:
        values["data"] = {"name": "shapes", "train": 300, "test": 60, "size": TINY}
    values["views"] = {
        "size": TINY,
        "resize": "stretch" if (values.get("views") or {}).get("resize") == "stretch" else TINY,
    }
    values["workers"] = 0
    for key, short in (("epochs", 2), ("warm_up", 0), ("costs", [1.0, 10.0]), ("samples", 1)):
        if key in task:
            task[key] = short
    if task.get("milestones"):
        task["milestones"] = [1]


def check_recipe(settings: ClassificationSettings, recipe: Recipe, weights: Path) -> None:
    """Raise InputError when the config feeds pixels to the network in another way than its pre-training did."""
    for key in ("channel_order", "mean", "std"):
        ours, theirs = getattr(settings.input, key), getattr(recipe, key)
        if ours != theirs:
            raise InputError(f"input.{key} is {ours}, but {weights} was pre-trained with {theirs}; change the config")


@dataclass(frozen=True)
class Job:
    """A loaded backbone, labelled images, and how and where to work."""

    network: Backbone
    recipe: Recipe
    weights_sha256: str
    data: Labelled
    settings: ClassificationSettings
    seed: int
    folder: Path
    device: torch.device
    resume: bool
    sitting: Sitting

    def normalised(self, images: Tensor) -> Tensor:
        """Move uint8 images [n, 3, h, w] to the device, normalised as in pre-training."""
        pixels = images.to(self.device, non_blocking=True).float()
        mean, std = pixels.new_tensor(self.recipe.mean), pixels.new_tensor(self.recipe.std)
        return (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return the context in which forwards run: mixed precision if the settings ask for it."""
        if self.settings.amp == "none":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.settings.amp))
