"""Cells shared out between fore- and background in proportion to their areas (arXiv 2309.12757, sec. 3.2)."""

from typing import Literal

import torch
from torch import Generator, Tensor

from pretrain.masks import Grid, GridSettings, Mask
from pretrain.saliency import Features, Saliency, SaliencySettings, hide, share_out


class Balanced(Grid, Mask):
    """Hides as large a share of the object as of what is around it, so that no mask takes the whole object."""

    class Config(GridSettings):
        """``saliency`` says how the foreground is found; see ``GridSettings`` for the others."""

        name: Literal["balanced"] = "balanced"
        saliency: SaliencySettings = SaliencySettings()

    def __init__(self, config: "Balanced.Config") -> None:
        super().__init__(config)
        self.saliency = Saliency(config.saliency)

    def masks(self, images: Tensor, generators: list[Generator], features: Features | None = None) -> Tensor:
        """Return [batch, 1, size, size] masks."""
        grids = []
        for front, generator in zip(
            self.saliency.foreground(images, features, self.cells).cpu(), generators, strict=True
        ):
            area = int(front.sum())
            front_count, back_count = share_out(self.count(generator), area, front.numel() - area)
            grids.append(hide([(front, front_count), (~front, back_count)], generator))
        return self.scale(torch.stack(grids)[:, None], images.shape[-1]).to(images.device)
