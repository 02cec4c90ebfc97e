"""One square stays visible, everything outside is hidden (MSCN, arXiv 2206.07700)."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from core.config import PluginSettings
from core.errors import InputError
from pretrain.drawing import once
from pretrain.masks import ROUNDING, BlindMask, RatioRange, inside
from pretrain.saliency import Features
from pretrain.upload import upload


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

    def check(self, size: int) -> None:
        """Refuse a range that no square of whole pixels gives."""
        least, most = self._sides(size)
        if least > most:
            low, high = self.ratio
            near = " or ".join(f"{1 - (side / size) ** 2:.4f}" for side in (least, most) if 0 < side < size)
            raise InputError(
                f"ratio: no square in {size} px leaves {low:g} to {high:g} of the image outside; take in {near}"
            )

    def square(self, generator: Generator, size: int) -> tuple[int, int, int, int]:
        """Draw top, bottom, left and right of what is kept; its share is the nearest in the range that whole pixels can give."""
        share, down, right = torch.rand(3, generator=generator).tolist()
        low, high = self.ratio
        least, most = self._sides(size)
        side = min(max(round(size * math.sqrt(1 - (low + (high - low) * share))), least), most)
        top, left = int(down * (size - side + 1)), int(right * (size - side + 1))
        return top, top + side, left, left + side

    def draw(self, generator: Generator, size: int) -> Tensor:
        """Return a [1, size, size] mask."""
        return ~inside(torch.tensor([self.square(generator, size)]), size)[0]

    def masks(self, images: Tensor, generators: Sequence[Generator], features: Features | None = None) -> Tensor:
        """Draw one square from each generator, and hide what is around it where the images are."""
        size = images.shape[-1]
        squares = once(generators, "squares", lambda: torch.tensor([self.square(one, size) for one in generators]))
        return ~inside(upload(squares, images.device), size)

    def _sides(self, size: int) -> tuple[int, int]:
        """Return the sides of the smallest and the largest square around which a share in the range is hidden."""
        low, high = self.ratio
        least = math.ceil(size * math.sqrt(max(1 - high - ROUNDING, 0)))
        most = math.floor(size * math.sqrt(1 - low + ROUNDING))
        return max(least, 1), min(most, size - 1)
