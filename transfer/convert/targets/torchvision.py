"""torchvision: a plain state dict that ``torchvision.models.resnet50().load_state_dict(..., strict=False)`` takes.

Only the classifier is missing. A plain state dict has no place for a recipe; the proof keeps it.
"""

from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from core.errors import InputError
from transfer.convert.load_check import compare
from transfer.convert.recipe import Recipe
from transfer.convert.targets import Target, torch_bytes


class Torchvision(Target):
    """Bare names; ResNets of width 64 only, for torchvision has no others."""

    suffixes = (".pth", ".pt")
    stems = ("imagenet", "patch")

    @classmethod
    def refuse(cls, recipe: Recipe, source: Path | str) -> None:
        """Refuse CIFAR stems and slim ResNets."""
        super().refuse(recipe, source)
        if recipe.family == "resnet" and recipe.width != 64:
            raise InputError(
                f"{source} is of width {recipe.width}, torchvision's ResNets of 64; use --target safetensors"
            )

    @classmethod
    def rules_name(cls) -> str:
        """Return ``torchvision``, our own naming."""
        return "torchvision"

    @classmethod
    def pack(cls, tensors: dict[str, Tensor], recipe: Recipe, suffix: str) -> bytes:
        """Serialise with ``torch.save``."""
        return torch_bytes(tensors)

    @classmethod
    def unpack(cls, file: dict[str, Any]) -> dict[str, Tensor]:
        """Return the whole file."""
        return file

    @classmethod
    def stages(cls, file: Path, tensors: dict[str, Tensor], recipe: Recipe, images: Tensor) -> list[Tensor]:
        """Run torchvision's network and return what leaves its four stages."""
        network = build_network(recipe).eval()
        network.load_state_dict(tensors, strict=False)  # the classifier stays
        compare(network.state_dict(), tensors, str(file))
        parts = [network.features[i] for i in (1, 3, 5, 7)] if recipe.family == "convnext" else layers(network)
        return watched(network, parts, images)


def build_network(recipe: Recipe) -> Any:
    """Build torchvision's ResNet or ConvNeXt."""
    if recipe.family == "resnet":
        return getattr(torchvision.models, f"resnet{recipe.depth}")(weights=None)
    widths: list[Any] = [recipe.width * 2**index for index in range(4)]
    following = [*widths[1:], None]
    return ConvNeXt([CNBlockConfig(*sizes) for sizes in zip(widths, following, recipe.blocks, strict=True)])


def layers(network: Any) -> list[nn.Module]:
    """Return ``layer1`` to ``layer4``."""
    return [getattr(network, f"layer{index}") for index in range(1, 5)]


@torch.no_grad()
def watched(network: nn.Module, parts: list[nn.Module], images: Tensor) -> list[Tensor]:
    """Run the network and return what each part gave out."""
    found: list[Tensor] = []
    hooks = [part.register_forward_hook(lambda _, __, output: found.append(output)) for part in parts]
    network(images)
    for hook in hooks:
        hook.remove()
    return found
