"""timm: what ``timm.create_model(name, checkpoint_path=...)`` and ``load_checkpoint(model, file, strict=False)`` take.

The ResNets' names are torchvision's, the ConvNeXts' their own; ``.safetensors`` keeps the recipe in its metadata.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import InputError
from transfer.convert.load_check import compare
from transfer.convert.recipe import Recipe
from transfer.convert.targets import Target, safetensors_bytes, torch_bytes


class Timm(Target):
    """``{"state_dict": ..., "recipe": ...}``, or safetensors."""

    suffixes = (".pth", ".safetensors")
    stems = ("imagenet", "patch")

    @classmethod
    def refuse(cls, recipe: Recipe, source: Path | str) -> None:
        """Refuse CIFAR stems and slim ResNets."""
        super().refuse(recipe, source)
        if recipe.family == "resnet" and recipe.width != 64:
            raise InputError(f"{source} is of width {recipe.width}, timm's ResNets of 64; use --target safetensors")

    @classmethod
    def rules_name(cls) -> str:
        """Return ``timm``."""
        return "timm"

    @classmethod
    def pack(cls, tensors: dict[str, Tensor], recipe: Recipe, suffix: str) -> bytes:
        """Serialise in the form that the suffix asks for."""
        if suffix == ".safetensors":
            return safetensors_bytes(tensors, recipe)
        return torch_bytes({"state_dict": tensors, "recipe": recipe.to_dict()})

    @classmethod
    def unpack(cls, file: dict[str, Any]) -> dict[str, Tensor]:
        """Return ``state_dict``."""
        return file["state_dict"]

    @classmethod
    def stages(cls, file: Path, tensors: dict[str, Tensor], recipe: Recipe, images: Tensor) -> list[Tensor]:
        """Run timm's network and return its last four feature maps (a ResNet has one more, of the stem)."""
        network = build_network(recipe).eval()
        network.load_state_dict(tensors, strict=False)  # the file carries no num_batches_tracked
        compare(network.state_dict(), tensors, str(file))
        with torch.no_grad():
            return list(network.forward_intermediates(images, intermediates_only=True))[-4:]


def build_network(recipe: Recipe) -> Any:
    """Build timm's ResNet or ConvNeXt without its classifier; it gives out feature maps too."""
    import timm

    name, extra = f"resnet{recipe.depth}", dict[str, Any]()
    if recipe.family == "convnext":
        name, extra = "convnext_tiny", {"depths": recipe.blocks, "dims": [recipe.width * 2**i for i in range(4)]}
    return timm.create_model(name, pretrained=False, num_classes=0, **extra)
