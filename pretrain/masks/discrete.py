"""Independent cells (MixMask, arXiv 2210.11456, sec. 3; the spatial grid masks of MSCN, arXiv 2206.07700)."""

from typing import Literal

from torch import Generator, Tensor

from pretrain.masks import GridMask, GridSettings, random_cells


class Discrete(GridMask):
    """Hides cells chosen independently of each other, the same ones in all channels."""

    class Config(GridSettings):
        """See ``GridSettings``."""

        name: Literal["discrete"] = "discrete"

    def draw(self, generator: Generator, size: int) -> Tensor:
        """Return a [1, size, size] mask."""
        return self.scale(random_cells(self.count(generator), self.cells, generator)[None], size)
