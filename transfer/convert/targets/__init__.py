"""Targets: the frameworks a backbone is carried into.

To add one, write ``transfer/convert/targets/NAME.py`` with a class named like the file that extends ``Target``.
"""

import io
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import InputError
from transfer.convert.recipe import Recipe

STEMS = {
    "imagenet": "7x7 stem",
    "cifar": "3x3 CIFAR stem",
    "small": "5x5 stem",
    "patch": "4x4 patch stem of a ConvNeXt",
}


class Target(ABC):
    """One framework's file form, and its own network to prove the file with."""

    suffixes: tuple[str, ...]  # of the files it reads
    stems: tuple[str, ...] = ("imagenet",)  # of the networks it can hold

    @classmethod
    def refuse(cls, recipe: Recipe, source: Path | str) -> None:
        """Raise InputError when the target has no network for the recipe."""
        if recipe.stem in cls.stems:
            return
        has, target = STEMS.get(recipe.stem, f"{recipe.stem} stem"), cls.__name__.lower()
        if recipe.stem == "cifar":
            raise InputError(f"{source} has the {has}, {target} has a 7x7 one; pre-train with backbone.stem=imagenet")
        raise InputError(f"{source} has the {has}, which {target} does not hold; choose another target")

    @classmethod
    @abstractmethod
    def rules_name(cls) -> str:
        """Return the name of the rename table of ``Backbone.rename_rules``."""

    @classmethod
    @abstractmethod
    def pack(cls, tensors: dict[str, Tensor], recipe: Recipe, suffix: str) -> bytes:
        """Return the file's content."""

    @classmethod
    @abstractmethod
    def unpack(cls, file: dict[str, Any]) -> dict[str, Tensor]:
        """Return the tensors of a file that was read back, under the framework's names."""

    @classmethod
    @abstractmethod
    def stages(cls, file: Path, tensors: dict[str, Tensor], recipe: Recipe, images: Tensor) -> list[Tensor]:
        """Load the tensors into the framework's own network and return its four stages' features in eval mode."""


def torch_bytes(content: Any) -> bytes:
    """Return what ``torch.save`` writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def safetensors_bytes(tensors: dict[str, Tensor], recipe: Recipe) -> bytes:
    """Return a safetensors file with the recipe in its metadata; ``format: pt`` is what timm and transformers look for."""
    from safetensors.torch import save

    return save(tensors, {"format": "pt", "recipe": json.dumps(recipe.to_dict(), sort_keys=True)})
