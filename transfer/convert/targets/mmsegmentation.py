"""MMSegmentation: ``{"state_dict": ..., "meta": {}, "recipe": ...}``, torchvision's names, no prefix."""

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transfer.convert.load_check import compare
from transfer.convert.recipe import Recipe
from transfer.convert.targets import Target, torch_bytes


class Mmsegmentation(Target):
    """Also what MMEngine's ``init_cfg=dict(type='Pretrained', checkpoint=...)`` reads."""

    suffixes = (".pth",)
    stems = ("imagenet", "patch")

    @classmethod
    def rules_name(cls) -> str:
        """Return ``mmsegmentation``."""
        return "mmsegmentation"

    @classmethod
    def pack(cls, tensors: dict[str, Tensor], recipe: Recipe, suffix: str) -> bytes:
        """Serialise with ``torch.save``."""
        return torch_bytes({"state_dict": tensors, "meta": {}, "recipe": recipe.to_dict()})

    @classmethod
    def unpack(cls, file: dict[str, Any]) -> dict[str, Tensor]:
        """Return ``state_dict``."""
        return file["state_dict"]

    @classmethod
    def stages(cls, file: Path, tensors: dict[str, Tensor], recipe: Recipe, images: Tensor) -> list[Tensor]:
        """Run MMSegmentation's network of the recipe's family, undilated, and return its four stages."""
        side = importlib.import_module("transfer.frameworks.mmseg.backbones").FAMILIES[recipe.family]
        network = side.build_network(recipe)
        network.eval()  # ResNet's returns None there, so it cannot be chained
        network.load_state_dict(tensors, strict=False)  # the file carries no num_batches_tracked
        compare(network.state_dict(), tensors, str(file))
        with torch.no_grad():
            return list(network(images))
