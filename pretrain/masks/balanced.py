"""Cells shared out between fore- and background in proportion to their areas (arXiv 2309.12757, sec. 3.2)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from pretrain.drawing import once
from pretrain.masks import Grid, GridSettings, Mask
from pretrain.saliency import Features, Saliency, SaliencySettings, hide, orders, share_out
from pretrain.upload import upload


class Balanced(Grid, Mask):
    """Hides as large a share of the object as of what is around it, so that no mask takes the whole object."""

    class Config(GridSettings):
        """``saliency`` says how the foreground is found; see ``GridSettings`` for the others."""

        name: Literal["balanced"] = "balanced"
        saliency: SaliencySettings = SaliencySettings()

    def __init__(self, config: "Balanced.Config") -> None:
        super().__init__(config)
        self.saliency = Saliency(config.saliency)

    def masks(self, images: Tensor, generators: Sequence[Generator], features: Features | None = None) -> Tensor:
        """Return [batch, 1, size, size] masks."""
        front = self.saliency.foreground(images, features, self.cells)
        drawn = once(generators, "counts", lambda: torch.tensor([self.count(generator) for generator in generators]))
        counts = upload(drawn, front.device)
        order = orders(generators, self.cells, front.device)
        area = front.sum(dim=(1, 2))
        front_count, back_count = share_out(counts, area, self.cells**2 - area)
        grids = hide(front, front_count, order) | hide(~front, back_count, order)
        return self.scale(grids[:, None], images.shape[-1])
