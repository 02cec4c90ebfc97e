"""Rectangles until the asked share is hidden (MixMask, arXiv 2210.11456, sec. 3; after BEiT, arXiv 2106.08254, alg. 1)."""

import math
from typing import Literal

import torch
from torch import Generator, Tensor

from pretrain.masks import GridMask, GridSettings

ASPECT = (0.3, 1 / 0.3)


class Block(GridMask):
    """Hides rectangles of random area and aspect ratio; the last one is cut so that the count is exact."""

    class Config(GridSettings):
        """See ``GridSettings``."""

        name: Literal["block"] = "block"

    def grid(self, generator: Generator) -> Tensor:
        """Return [1, cells, cells]."""
        wanted = self.count(generator)
        grid = torch.zeros(self.cells, self.cells, dtype=torch.bool)
        hidden = 0
        while hidden < wanted:
            top, left, height, width = self._rectangle(wanted - hidden, generator)
            part = grid[top : top + height, left : left + width]
            free = (~part).nonzero()[: wanted - hidden]  # row by row, so that what is cut off is the rectangle's end
            part[free[:, 0], free[:, 1]] = True
            hidden += len(free)
        return grid[None]

    def _rectangle(self, most: int, generator: Generator) -> tuple[int, int, int, int]:
        share, aspect, down, right = torch.rand(4, generator=generator).tolist()
        area = 1 + share * (most - 1)
        ratio = math.exp(math.log(ASPECT[0]) + aspect * (math.log(ASPECT[1]) - math.log(ASPECT[0])))
        height = min(max(round(math.sqrt(area * ratio)), 1), self.cells)
        width = min(max(round(math.sqrt(area / ratio)), 1), self.cells)
        return int(down * (self.cells - height + 1)), int(right * (self.cells - width + 1)), height, width
