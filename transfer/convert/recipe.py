"""What a weights file says about how its backbone must be used."""

import dataclasses
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.plugins import find
from core.weights_file import read_weights_file

OF_SOME = ("blocks", "model", "channels", "input_size")  # facts that are there for some families only
MOST, LARGEST, TEXT = 16, 10_000, 2**20  # numbers in a list, a number, characters


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The facts that pre-training, Detectron2 and MMSegmentation must agree on; ``mean`` and ``std`` are on the 0-255 scale.

    ``blocks`` a stage are given where ``depth`` alone does not tell them (ConvNeXt; ``depth`` is their sum there), ``model``,
    the ``channels`` of its stages and ``input_size`` where timm knows the network by a name.
    """

    family: str = "resnet"
    depth: int = 50
    width: int = 64
    stem: str = "imagenet"
    channel_order: str = "RGB"
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    stride_in_1x1: bool = False
    norm: str = "BN"
    source: str = ""
    source_sha256: str = ""
    pretrain: dict[str, Any] = dataclasses.field(default_factory=dict)
    blocks: tuple[int, ...] = ()
    model: str = ""
    channels: tuple[int, ...] = ()
    input_size: tuple[int, ...] = ()

    @property
    def style(self) -> str:
        """Return what MMSegmentation and MMDetection call the place of a bottleneck's stride."""
        return "caffe" if self.stride_in_1x1 else "pytorch"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that both ``torch.load(weights_only=True)`` and JSON accept."""
        values = dataclasses.asdict(self)
        values = {key: value for key, value in values.items() if value or key not in OF_SOME}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def backbone(self) -> dict[str, Any]:
        """Return the settings of ``core.backbones`` that build the network."""
        fields = set(find("core.backbones", self.family).Config.model_fields) & {
            f.name for f in dataclasses.fields(self)
        }
        return {"name": self.family} | {name: getattr(self, name) for name in sorted(fields)}

    @classmethod
    def from_dict(cls, values: dict[str, Any], file: Path | str = "the weights file") -> "Recipe":
        """Check the keys and return the recipe; raise InputError naming what is unknown."""
        if not isinstance(values, dict):
            raise InputError(f"{file}: its recipe is a {type(values).__name__}, not a mapping; convert it again")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(values) - known:
            raise InputError(
                f"{file}: unknown keys in its recipe: {', '.join(sorted(map(str, unknown)))}; convert it again"
            )
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        made = cls(**values)
        for key, value in values.items():
            if not _fits(value, getattr(cls(), key)):
                raise InputError(f"{file}: its recipe has {key} {str(value)[:60]!r}; convert it again")
        return made


def _fits(value: Any, usual: Any) -> bool:
    """Tell whether a value is of the usual one's type, and of a size that a network can have."""
    if isinstance(usual, tuple):
        few = isinstance(value, tuple) and len(value) <= MOST
        return few and all(type(v) in (int, float) and 0 <= v <= LARGEST for v in value)
    if isinstance(usual, int) and not isinstance(usual, bool):
        return type(value) is int and 0 <= value <= LARGEST
    return type(value) is type(usual) and len(str(value)) <= TEXT


def read(path: Path | str) -> Recipe | None:
    """Return the recipe inside a converted file, or None when it has none."""
    recipe = read_weights_file(path).get("recipe")
    return None if recipe is None else Recipe.from_dict(recipe, path)
