"""Classification: ``{"backbone": ..., "recipe": ...}`` in this project's own names, any width, any stem."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core import backbones, config, plugins
from core.backbones import Backbone
from transfer.convert.load_check import compare
from transfer.convert.recipe import Recipe
from transfer.convert.targets import Target


class Classification(Target):
    """What ``tools/train_classifier.py`` reads; its network is the project's own, so it holds every backbone."""

    suffixes = (".pth",)
    stems = ("imagenet", "cifar", "small", "patch")

    @classmethod
    def rules_name(cls) -> str:
        """Return ``classification``, a name that no rename table has: tensors keep our names."""
        return "classification"

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


def build_network(recipe: Recipe) -> Backbone:
    """Build the backbone that the recipe describes, randomly initialised; raise InputError when there is no such one."""
    settings = plugins.find("core.backbones", recipe.family).Config
    return backbones.build(config.parse(settings, recipe.backbone(), "the recipe of the weights"))
