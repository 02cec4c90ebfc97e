"""Settings of a classification benchmark, read from a YAML config."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from core import config
from core.config import Settings
from core.errors import InputError
from core.plugins import choice
from transfer.convert.recipe import Recipe
from transfer.frameworks.classification.subsets import Subset
from transfer.frameworks.classification.views import ViewSettings


class Input(Settings):
    """How pixels enter the network; ``mean`` and ``std`` are on the 0-255 scale, in the order of the channels."""

    channel_order: Literal["RGB"] = "RGB"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class ClassificationSettings(Settings):
    """``chunk`` images go through a frozen backbone at a time; ``workers`` decode images (0: the process itself)."""

    input: Input
    views: ViewSettings
    data: choice("transfer.frameworks.classification.data")
    subset: Subset = Subset()
    task: choice("transfer.frameworks.classification.tasks")
    amp: Literal["none", "bfloat16", "float16"] = "none"
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    chunk: int = Field(64, ge=1)
    workers: int = Field(0, ge=0)


def read(path: Path, options: Sequence[str] = ()) -> ClassificationSettings:
    """Read a config with its bases and ``key=value`` options; raise InputError naming every problem."""
    return config.parse(ClassificationSettings, config.load(path, options), path)


def check_recipe(settings: ClassificationSettings, recipe: Recipe, weights: Path) -> None:
    """Raise InputError when the config feeds pixels to the network in another way than its pre-training did."""
    for key in ("channel_order", "mean", "std"):
        ours, theirs = getattr(settings.input, key), getattr(recipe, key)
        if ours != theirs:
            raise InputError(f"input.{key} is {ours}, but {weights} was pre-trained with {theirs}; change the config")
