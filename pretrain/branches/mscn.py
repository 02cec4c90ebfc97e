"""MSCN: erase parts of high-pass filtered views (Jing, Zhu, LeCun; arXiv 2206.07700).

There is no public code. The shares of the mask kinds (0.2, 0.3, 0.7) and the noise's standard deviation are those of a
third-party re-implementation; all of them are settings.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from core.errors import InputError
from core.plugins import build, choice
from pretrain.branches import Branch, BranchSettings, Draws, Mixed
from pretrain.drawing import once
from pretrain.fills import Kernel, check_kernel, high_pass, paste
from pretrain.fills.noise import Noise
from pretrain.masks import Grid, GridSettings, RatioRange, inside, scale
from pretrain.masks.channelwise import Channelwise
from pretrain.masks.discrete import Discrete
from pretrain.masks.focal import Focal
from pretrain.saliency import Features
from pretrain.upload import upload

SQUARE = 8  # bytes of four numbers below 2**15


class Mscn(Branch):
    """High-pass filter, then hide by a focal, spatial or channel-wise mask and fill; lam is 1, since nothing is mixed in."""

    class Config(BranchSettings):
        """``cell`` in pixels (32 at 224 px in the paper: a 7x7 grid); ``sides: query`` leaves the key view clean."""

        name: Literal["mscn"] = "mscn"
        cell: int = Field(32, ge=1)
        ratio: RatioRange = (0.05, 0.25)
        focal_share: float = Field(0.2, ge=0, le=1)
        channelwise_share: float = Field(0.7, ge=0, le=1)  # of the grid masks; the others are spatial
        high_pass: bool = True
        high_pass_kernel: Kernel = 11
        high_pass_sigma: float = Field(5.0, gt=0)
        fill: choice("pretrain.fills") = Noise.Config()
        sides: Literal["both", "query"] = "both"

    def __init__(self, config: "Mscn.Config") -> None:
        self.config: Mscn.Config = config
        self.needs_keys = config.sides == "both"
        self.fill = build("pretrain.fills", config.fill)
        if self.fill.mixes:
            raise InputError(
                f"fill={config.fill.name}: MSCN erases; to fill with another image set name=masked or name=mixmask"
            )

    def check(self, size: int, group_rows: int) -> None:
        """Refuse a grid that does not fit."""
        if size % self.config.cell or size < 2 * self.config.cell:
            raise InputError(f"a grid of {self.config.cell} px cells does not fit {size} px images; change cell")
        if self.config.focal_share < 1:  # refuses a ratio that no number of cells gives
            Grid(GridSettings(name="mscn", cells=size // self.config.cell, ratio=self.config.ratio))
        if self.config.focal_share:
            Focal(Focal.Config(ratio=self.config.ratio)).check(size)
        self.fill.check(size, group_rows)
        if self.config.high_pass:
            check_kernel(self.config.high_pass_kernel, size, "high_pass_kernel")

    def mix(self, query: Tensor, key: Tensor, draws: Draws, features: Features | None = None) -> Mixed:
        """Return the masked query view, and with ``sides: both`` the independently masked key view."""
        masked, mask = self._erase(query, draws, "query")
        other = self._erase(key, draws, "key")[0] if self.config.sides == "both" else None
        return Mixed(masked, None, torch.ones(len(query), device=query.device), mask, other)

    def _erase(self, images: Tensor, draws: Draws, side: str) -> tuple[Tensor, Tensor]:
        generators, size = draws.rows(len(images), side), images.shape[-1]
        mask = self._masks(generators, size, images.device)
        if self.config.high_pass:
            images = high_pass(images, self.config.high_pass_kernel, self.config.high_pass_sigma)
        return paste(images, mask, self.fill.content(images, generators)), mask

    def _masks(self, generators: Sequence[Generator], size: int, device: torch.device) -> Tensor:
        """Hide cells, none of them in the rows that get a square, and what is around squares, all of the image elsewhere."""
        cells = size // self.config.cell
        drawn = once(generators, "masks", lambda: torch.stack([self._draw(one, size, cells) for one in generators]))
        drawn = upload(drawn, device)
        square, grids = (
            drawn[:, :SQUARE].contiguous().view(torch.int16),
            drawn[:, SQUARE:].bool().view(-1, 3, cells, cells),
        )
        return scale(grids, size) | ~inside(square, size)

    def _draw(self, generator: Generator, size: int, cells: int) -> Tensor:
        """Return one row's square and cells as one line of bytes."""
        config = self.config
        kind, grid = torch.rand(2, generator=generator).tolist()
        if kind < config.focal_share:
            square = Focal(Focal.Config(ratio=config.ratio)).square(generator, size)
            return _line(square, torch.zeros(3 * cells**2))
        maker = Channelwise if grid < config.channelwise_share else Discrete
        hidden = maker(maker.Config(cells=cells, ratio=config.ratio)).grid(generator).expand(3, -1, -1)
        return _line((0, size, 0, size), hidden.flatten())


def _line(square: Sequence[int], hidden: Tensor) -> Tensor:
    return torch.cat([torch.tensor(square, dtype=torch.int16).view(torch.uint8), hidden.to(torch.uint8)])
