"""Independent cells in each colour channel (MSCN, arXiv 2206.07700)."""

from typing import Literal

import torch
from torch import Generator, Tensor

from pretrain.masks import GridMask, GridSettings, random_cells


class Channelwise(GridMask):
    """Hides equally many cells in each of the three channels, chosen independently."""

    class Config(GridSettings):
        """See ``GridSettings``."""

        name: Literal["channelwise"] = "channelwise"

    def grid(self, generator: Generator) -> Tensor:
        """Return [3, cells, cells]."""
        count = self.count(generator)
        return torch.stack([random_cells(count, self.cells, generator) for _ in range(3)])
