"""Masks: which part of an image is hidden. True = hidden.

To add one, write ``pretrain/masks/NAME.py`` with a class named like the file that extends ``BlindMask``, or ``Mask`` if it
looks at the image, and has a ``Config``; then name it in a config: ``branches.LABEL.mask: {name: NAME}``.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BeforeValidator, Field
from torch import Generator, Tensor

from core.config import PluginSettings
from core.errors import InputError
from pretrain.drawing import once
from pretrain.saliency import Features
from pretrain.upload import upload


class Mask(ABC):
    """Makes one mask an image, each from its own generator."""

    Config: ClassVar[type[PluginSettings]]
    sees_images: ClassVar[bool] = True  # so that one mask cannot serve a whole batch

    @abstractmethod
    def masks(
        self,
        images: Float[Tensor, "batch 3 size size"],
        generators: Sequence[Generator],
        features: Features | None = None,
    ) -> Bool[Tensor, "batch channels size size"]:
        """Return masks with 1 channel (all together) or 3 (each its own), on the images' device."""

    def check(self, size: int) -> None:
        """Raise InputError when the mask's grid does not fit images of ``size`` pixels."""


class BlindMask(Mask):
    """A mask that depends on its generator only."""

    sees_images = False

    @abstractmethod
    def draw(self, generator: Generator, size: int) -> Bool[Tensor, "channels size size"]:
        """Return one mask of ``size`` pixels a side."""

    def masks(self, images: Tensor, generators: Sequence[Generator], features: Features | None = None) -> Tensor:
        """Draw one mask from each generator."""
        drawn = once(generators, "mask", lambda: torch.stack([self.draw(one, images.shape[-1]) for one in generators]))
        return upload(drawn, images.device)


def _share(value: Any) -> Any:
    """Say what is wrong once, whichever of a number and a range was meant."""
    bounds = value if isinstance(value, list | tuple) else [value]
    numbers = all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds)
    if not numbers or len(bounds) not in (1, 2) or not 0 < bounds[0] <= bounds[-1] < 1:
        raise ValueError(f"a share hidden lies between 0 and 1, as 0.5 or as a range like [0.05, 0.25]; got {value!r}")
    return value


def _range(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"give a range like [0.05, 0.25], got {value!r}")
    return _share(value)


Ratio = Annotated[float | tuple[float, float], BeforeValidator(_share)]
RatioRange = Annotated[tuple[float, float], BeforeValidator(_range)]


ROUNDING = 1e-4  # so that a share may be written with four digits: 0.4444 for 4 of 9 cells


class GridSettings(PluginSettings):
    """Settings of masks on a ``cells`` x ``cells`` grid; ``ratio`` is the share hidden, a number or a range to draw from."""

    cells: int = Field(8, ge=2)
    ratio: Ratio = 0.5


class Grid:
    """Cells and counts of a mask of whole cells, scaled to pixels by nearest neighbour, that hides exactly the asked number."""

    def __init__(self, config: GridSettings) -> None:
        self.cells, self.ratio = config.cells, config.ratio
        all_cells = self.cells**2
        low, high = (self.ratio, self.ratio) if isinstance(self.ratio, float) else self.ratio
        self.fewest = max(math.ceil(low * all_cells - ROUNDING * all_cells), 1)
        self.most = min(math.floor(high * all_cells + ROUNDING * all_cells), all_cells - 1)
        if self.fewest > self.most:
            near = sorted({min(max(count, 1), all_cells - 1) for count in (self.most, self.fewest)})
            raise InputError(
                f"a {self.cells}x{self.cells} grid cannot hide exactly {low:g}{'' if low == high else f' to {high:g}'} of its "
                f"cells; take {' or '.join(f'{count / all_cells:.4g}' for count in near)}, or another number of cells"
            )

    def check(self, size: int) -> None:
        """Refuse a grid whose cells would differ in size."""
        if size % self.cells:
            raise InputError(
                f"a grid of {self.cells} cells does not fit {size} px images; cells must divide views.size"
            )

    def count(self, generator: Generator) -> int:
        """Return how many cells to hide: exact for a fixed ratio, the nearest within the range for a drawn one."""
        if isinstance(self.ratio, float):
            return round(self.ratio * self.cells**2)
        low, high = self.ratio
        drawn = low + (high - low) * torch.rand((), generator=generator).item()
        return min(max(round(drawn * self.cells**2), self.fewest), self.most)

    def scale(self, grid: Bool[Tensor, "*rows cells cells"], size: int) -> Bool[Tensor, "*rows size size"]:
        """Enlarge cells to pixels."""
        return scale(grid, size)


def scale(grid: Bool[Tensor, "*rows cells cells"], size: int) -> Bool[Tensor, "*rows size size"]:
    """Enlarge cells to pixels, in one pass over them."""
    cells = grid.shape[-1]
    factor = size // cells
    spread = grid[..., :, None, :, None].expand(*grid.shape[:-2], cells, factor, cells, factor)
    return spread.reshape(*grid.shape[:-2], size, size)


class GridMask(Grid, BlindMask):
    """A blind mask of whole cells, which are enlarged on the images' device."""

    @abstractmethod
    def grid(self, generator: Generator) -> Bool[Tensor, "channels cells cells"]:
        """Return the cells of one mask."""

    def draw(self, generator: Generator, size: int) -> Tensor:
        """Return one mask of ``size`` pixels a side."""
        return self.scale(self.grid(generator), size)

    def masks(self, images: Tensor, generators: Sequence[Generator], features: Features | None = None) -> Tensor:
        """Draw the cells of one mask from each generator, and enlarge them where the images are."""
        drawn = once(generators, "cells", lambda: torch.stack([self.grid(one) for one in generators]))
        return self.scale(upload(drawn, images.device), images.shape[-1])


def inside(corners: Int[Tensor, "rows 4"], size: int) -> Bool[Tensor, "rows 1 size size"]:
    """Tell which pixels lie in each row's box (top, bottom, left, right; the ends left out), on the corners' device."""
    place = torch.arange(size, device=corners.device)
    reached = (corners[:, ::2, None] <= place) & (place < corners[:, 1::2, None])  # [rows, (down, right), size]
    return (reached[:, 0, :, None] & reached[:, 1, None, :])[:, None]


def random_cells(count: int, cells: int, generator: Generator) -> Bool[Tensor, "cells cells"]:
    """Hide ``count`` cells, every choice equally likely."""
    grid = torch.zeros(cells * cells, dtype=torch.bool)
    grid[torch.randperm(cells * cells, generator=generator)[:count]] = True
    return grid.view(cells, cells)
