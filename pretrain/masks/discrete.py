"""Independent cells (MixMask, arXiv 2210.11456, sec. 3; the spatial grid masks of MSCN, arXiv 2206.07700)."""

from typing import Literal

from torch import Generator, Tensor

from pretrain.masks import GridMask, GridSettings, random_cells


class Discrete(GridMask):
    """Hides cells chosen independently of each other, the same ones in all channels."""

    class Config(GridSettings):
        """See ``GridSettings``."""

        name: Literal["discrete"] = "discrete"

    def grid(self, generator: Generator) -> Tensor:
        """Return [1, cells, cells]."""
        return random_cells(self.count(generator), self.cells, generator)[None]
