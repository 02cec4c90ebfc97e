"""safetensors: a file that holds tensors and text and nothing else, in torchvision's names, of any width and stem."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core import backbones, plugins
from transfer.convert.load_check import compare
from transfer.convert.recipe import Recipe
from transfer.convert.targets import STEMS, Target, safetensors_bytes


class Safetensors(Target):
    """Our own network's tensors; the recipe is in the metadata, as JSON."""

    suffixes = (".safetensors",)
    stems = tuple(STEMS)

    @classmethod
    def rules_name(cls) -> str:
        """Return ``torchvision``, our own naming."""
        return "torchvision"

    @classmethod
    def pack(cls, tensors: dict[str, Tensor], recipe: Recipe, suffix: str) -> bytes:
        """Serialise with safetensors."""
        return safetensors_bytes(tensors, recipe)

    @classmethod
    def unpack(cls, file: dict[str, Any]) -> dict[str, Tensor]:
        """Return ``state_dict``."""
        return file["state_dict"]

    @classmethod
    def stages(cls, file: Path, tensors: dict[str, Tensor], recipe: Recipe, images: Tensor) -> list[Tensor]:
        """Run the network that the recipe in the file describes, and return its four stages."""
        settings = plugins.find("core.backbones", recipe.family).Config.model_validate(recipe.backbone())
        network = backbones.build(settings).eval()
        network.load_state_dict(tensors, strict=False)  # the file carries no num_batches_tracked
        compare(network.state_dict(), tensors, str(file))
        with torch.no_grad():
            return network.stages(images)
