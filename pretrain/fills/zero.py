"""Zero, which is the data set's mean colour after normalisation (MSCN, arXiv 2206.07700)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from core.config import PluginSettings
from pretrain.fills import Fill


class Zero(Fill):
    """Fills with zeros."""

    class Config(PluginSettings):
        """No settings."""

        name: Literal["zero"] = "zero"

    def __init__(self, config: "Zero.Config") -> None:
        pass

    def content(self, images: Tensor, generators: Sequence[Generator], partner: Tensor | None = None) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(images)
