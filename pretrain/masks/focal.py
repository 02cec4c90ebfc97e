"""One square stays visible, everything outside is hidden (MSCN, arXiv 2206.07700)."""

import math
from typing import Literal

import torch
from torch import Generator, Tensor

from core.config import PluginSettings
from pretrain.masks import BlindMask, RatioRange


class Focal(BlindMask):
    """Keeps one square at a random place.

    ``ratio`` is the share hidden, drawn from [low, high]; MSCN's paper does not say the square's size, so the range that
    is known for its other masks is the default.
    """

    class Config(PluginSettings):
        """``ratio`` as a [low, high] range."""

        name: Literal["focal"] = "focal"
        ratio: RatioRange = (0.05, 0.25)

    def __init__(self, config: "Focal.Config") -> None:
        self.ratio = config.ratio

    def draw(self, generator: Generator, size: int) -> Tensor:
        """Return a [1, size, size] mask; its share is the nearest a square of whole pixels can give."""
        share, down, right = torch.rand(3, generator=generator).tolist()
        low, high = self.ratio
        side = round(size * math.sqrt(1 - (low + (high - low) * share)))
        side = min(max(side, 1), size - 1)
        top, left = int(down * (size - side + 1)), int(right * (size - side + 1))
        mask = torch.ones(1, size, size, dtype=torch.bool)
        mask[:, top : top + side, left : left + side] = False
        return mask
