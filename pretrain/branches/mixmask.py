"""MixMask: hide a part of the image and show another image there (arXiv 2210.11456, sec. 3)."""

from typing import Literal

from torch import Tensor

from core.errors import InputError
from core.plugins import build, choice
from pretrain.branches import Branch, BranchSettings, Draws, Mixed, visible_share
from pretrain.drawing import PartnerOrder, check_partners, partners
from pretrain.fills import paste
from pretrain.saliency import Features
from pretrain.upload import upload


class MixMask(Branch):
    """Fills the hidden area of the query view with its partner; the key view stays clean."""

    class Config(BranchSettings):
        """``scope: batch`` draws one mask for a whole group, as the authors' release does; ``partner: reverse`` too."""

        name: Literal["mixmask"] = "mixmask"
        mask: choice("pretrain.masks")
        partner: PartnerOrder = "reverse"
        scope: Literal["image", "batch"] = "image"

    def __init__(self, config: "MixMask.Config") -> None:
        self.config: MixMask.Config = config
        self.mask = build("pretrain.masks", config.mask)
        if config.scope == "batch" and self.mask.sees_images:
            raise InputError(
                f"mask={config.mask.name} follows each image, so one cannot serve a batch; set scope=image"
            )

    def check(self, size: int, group_rows: int) -> None:
        """Refuse a grid or a batch that does not work."""
        self.mask.check(size)
        check_partners(group_rows, self.config.partner)

    def mix(self, query: Tensor, key: Tensor, draws: Draws, features: Features | None = None) -> Mixed:
        """Return x where visible and x[partner] elsewhere, with lam measured from the mask."""
        count = len(query)
        if self.config.scope == "image":
            mask = self.mask.masks(query, draws.rows(count, "mask"), features)
        else:
            first = query[:: count // draws.groups]  # the first row of each group stands for it
            mask = self.mask.masks(first, draws.per_group(count, "mask"))
            mask = mask.repeat_interleave(count // draws.groups, dim=0)
        partner = upload(partners(count, draws.per_group(count, "partner"), self.config.partner), query.device)
        return Mixed(paste(query, mask, query[partner]), partner, visible_share(mask), mask)
