"""Classification: ``{"backbone": ..., "recipe": ...}`` in this project's own names, any width, both stems."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.backbones.resnet import ResNet
from transfer.load_check import compare
from transfer.recipe import Recipe
from transfer.targets import Target


class Classification(Target):
    """What ``tools/train_classifier.py`` reads."""

    suffixes = (".pth",)
    stems = ("imagenet", "cifar")

    @classmethod
    def rules_name(cls) -> str:
        """Return ``mmsegmentation``, whose table is empty: it has torchvision's names, as we do."""
        return "mmsegmentation"

    @classmethod
    def pack(cls, tensors: dict[str, Tensor], recipe: Recipe, suffix: str) -> bytes:
        """Serialise with ``torch.save``."""
        buffer = io.BytesIO()
        torch.save({"backbone": tensors, "recipe": recipe.to_dict()}, buffer)
        return buffer.getvalue()

    @classmethod
    def unpack(cls, file: dict[str, Any]) -> dict[str, Tensor]:
        """Return ``backbone``."""
        return file["backbone"]

    @classmethod
    def stages(cls, file: Path, tensors: dict[str, Tensor], recipe: Recipe, images: Tensor) -> list[Tensor]:
        """Run the network that the recipe describes, loaded from the file, and return its four stages."""
        network = build_network(recipe).eval()
        network.load_state_dict(tensors, strict=False)  # the file carries no num_batches_tracked
        compare(network.state_dict(), tensors, str(file))
        with torch.no_grad():
            return network.stages(images)


def build_network(recipe: Recipe) -> ResNet:
    """Build the backbone of the recipe's depth, width and stem, randomly initialised."""
    return ResNet(ResNet.Config.model_validate({"depth": recipe.depth, "width": recipe.width, "stem": recipe.stem}))
