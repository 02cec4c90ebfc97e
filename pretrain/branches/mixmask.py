"""MixMask: hide a part of the image and show another image there (arXiv 2210.11456, sec. 3)."""

from typing import Literal

import torch
from torch import Tensor

from core.plugins import build, choice
from pretrain.branches import (
    Branch,
    BranchSettings,
    Draws,
    Mixed,
    check_partners,
    reversed_partner,
    shuffled_partner,
    visible_share,
)
from pretrain.fills import paste


class MixMask(Branch):
    """Fills the hidden area of the query view with its partner; the key view stays clean."""

    class Config(BranchSettings):
        """``scope: batch`` draws one mask for a whole group, as the authors' release does; ``partner: reverse`` too."""

        name: Literal["mixmask"] = "mixmask"
        mask: choice("pretrain.masks")
        partner: Literal["reverse", "shuffle"] = "reverse"
        scope: Literal["image", "batch"] = "image"

    def __init__(self, config: "MixMask.Config") -> None:
        self.config: MixMask.Config = config
        self.mask = build("pretrain.masks", config.mask)

    def check(self, size: int, group_rows: int) -> None:
        """Refuse a grid or a batch that does not work."""
        self.mask.check(size)
        check_partners(group_rows, self.config.partner)

    def mix(self, query: Tensor, key: Tensor, draws: Draws) -> Mixed:
        """Return x where visible and x[partner] elsewhere, with lam measured from the mask."""
        count, size = len(query), query.shape[-1]
        if self.config.scope == "image":
            mask = torch.stack([self.mask.draw(generator, size) for generator in draws.rows(count, "mask")])
        else:
            each = [self.mask.draw(generator, size) for generator in draws.per_group(count, "mask")]
            mask = torch.stack(each).repeat_interleave(count // draws.groups, dim=0)
        if self.config.partner == "reverse":
            partner = reversed_partner(count, draws.groups)
        else:
            partner = shuffled_partner(count, draws.per_group(count, "partner"))
        mask, partner = mask.to(query.device), partner.to(query.device)
        return Mixed(paste(query, mask, query[partner]), partner, visible_share(mask), mask)
