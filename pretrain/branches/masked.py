"""Any mask with any fill on any side: the parts of the papers' branches, free to combine."""

from typing import Literal

import torch
from torch import Tensor

from core.errors import InputError
from core.plugins import build, choice
from pretrain.branches import Branch, BranchSettings, Draws, Mixed, visible_share
from pretrain.fills import paste
from pretrain.saliency import Features
from pretrain.upload import upload


class Masked(Branch):
    """Hides a part of the query view, the key view or both, and fills it.

    With the fill ``partner`` the view belongs to two images and is scored as MixMask's is (arXiv 2210.11456, eq. 3); with any
    other it is an erased view, as MSCN's (arXiv 2206.07700) and saliency-guided masking's (arXiv 2309.12757) are.
    """

    class Config(BranchSettings):
        """``sides`` says which views are masked; masking the query only measured best (poster of arXiv 2309.12757)."""

        name: Literal["masked"] = "masked"
        mask: choice("pretrain.masks")
        fill: choice("pretrain.fills")
        sides: Literal["query", "key", "both"] = "query"

    def __init__(self, config: "Masked.Config") -> None:
        self.config: Masked.Config = config
        self.changes_query, self.needs_keys = config.sides != "key", config.sides != "query"
        self.mask = build("pretrain.masks", config.mask)
        self.fill = build("pretrain.fills", config.fill)
        if self.fill.mixes and config.sides != "query":
            raise InputError(
                f"sides={config.sides} with fill={config.fill.name}: a key of two images is no target for either; set sides=query"
            )

    def check(self, size: int, group_rows: int) -> None:
        """Refuse a grid, a fill or a batch that does not work."""
        self.mask.check(size)
        self.fill.check(size, group_rows)

    def mix(self, query: Tensor, key: Tensor, draws: Draws, features: Features | None = None) -> Mixed:
        """Return the views with their hidden areas filled; lam is 1 unless another image fills them."""
        partner = self.fill.partner(len(query), draws.per_group(len(query), "partner"))
        partner = None if partner is None else upload(partner, query.device)
        lam = torch.ones(len(query), device=query.device)
        mask = masked_key = None
        if self.config.sides != "query":
            masked_key, mask = self._hide(key, draws, "key", features, None)
        if self.config.sides != "key":
            query, mask = self._hide(query, draws, "query", features, partner)
            lam = lam if partner is None else visible_share(mask)
        return Mixed(query, partner, lam, mask, masked_key)

    def _hide(
        self, images: Tensor, draws: Draws, side: str, features: Features | None, partner: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        mask = self.mask.masks(images, draws.rows(len(images), f"{side}/mask"), features)
        return paste(images, mask, self.fill.content(images, draws.rows(len(images), f"{side}/fill"), partner)), mask
