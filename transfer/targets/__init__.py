"""Targets: the frameworks a backbone is carried into.

To add one, write ``transfer/targets/NAME.py`` with a class named like the file that extends ``Target``.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from torch import Tensor

from transfer.recipe import Recipe


class Target(ABC):
    """One framework's file form, and its own network to prove the file with."""

    suffixes: tuple[str, ...]  # of the files it reads
    stems: tuple[str, ...] = ("imagenet",)  # of the networks it can hold

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
