"""Fills: what is shown where an image is hidden.

To add one, write ``pretrain/fills/NAME.py`` with a class named like the file that extends ``Fill`` and has a ``Config``.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from core.config import PluginSettings


class Fill(ABC):
    """Makes the content for hidden areas."""

    Config: ClassVar[type[PluginSettings]]

    @abstractmethod
    def content(
        self, images: Float[Tensor, "batch 3 height width"], generators: list[Generator]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Return an image to show through the hidden areas of each row; one generator a row."""


def paste(images: Tensor, mask: Tensor, content: Tensor) -> Tensor:
    """Show ``content`` where ``mask`` is True and ``images`` elsewhere."""
    return torch.where(mask, content, images)
