"""Gaussian noise (MSCN, arXiv 2206.07700)."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Generator, Tensor

from core.config import PluginSettings
from pretrain.fills import Fill, row_noise


class Noise(Fill):
    """Fills with noise of mean zero.

    MSCN's paper gives no standard deviation; 0.18 is a third-party re-implementation's.
    """

    class Config(PluginSettings):
        """``std`` is in units of the normalised image."""

        name: Literal["noise"] = "noise"
        std: float = Field(0.18, gt=0)

    def __init__(self, config: "Noise.Config") -> None:
        self.std = config.std

    def content(self, images: Tensor, generators: Sequence[Generator], partner: Tensor | None = None) -> Tensor:
        """Draw each row from its own generator."""
        return self.std * row_noise(images, generators)
