"""Un-Mix: blend two images, or paste a box of one into the other (arXiv 2003.05438, sec. 3)."""

import math
from typing import Literal

import torch
from jaxtyping import Bool
from pydantic import Field
from scipy.special import betaincinv
from torch import Generator, Tensor

from pretrain.branches import Branch, BranchSettings, Draws, Mixed, visible_share
from pretrain.fills import paste
from pretrain.partners import PartnerOrder, check_partners, partners
from pretrain.saliency import Features
from pretrain.upload import upload


class Unmix(Branch):
    """Mixup or CutMix of the query view with its partner; the key view stays clean."""

    class Config(BranchSettings):
        """``mixup_probability`` is P of the paper, the rest is CutMix; lam ~ Beta(alpha, alpha).

        ``scope: batch`` draws once for a whole group, as the authors' release does.
        """

        name: Literal["unmix"] = "unmix"
        mixup_probability: float = Field(0.5, ge=0, le=1)
        alpha: float = Field(1.0, gt=0)
        partner: PartnerOrder = "reverse"
        scope: Literal["image", "batch"] = "image"

    def __init__(self, config: "Unmix.Config") -> None:
        self.config: Unmix.Config = config

    def check(self, size: int, group_rows: int) -> None:
        """Refuse a batch in which some row has no partner."""
        check_partners(group_rows, self.config.partner)

    def mix(self, query: Tensor, key: Tensor, draws: Draws, features: Features | None = None) -> Mixed:
        """Return lam * x + (1 - lam) * x[partner], or x with a box of x[partner] and lam measured from the box."""
        count, size = len(query), query.shape[-1]
        partner = upload(partners(count, draws.per_group(count, "partner"), self.config.partner), query.device)
        batch = self.config.scope == "batch"
        generators = draws.per_group(count, "mix") if batch else draws.rows(count, "mix")
        drawn = [self._draw(generator, size) for generator in generators]
        repeat = count // len(drawn)
        share = upload(torch.tensor([share for share, _ in drawn]).repeat_interleave(repeat), query.device)
        boxes = upload(torch.stack([box for _, box in drawn]).repeat_interleave(repeat, dim=0), query.device)
        weight = share.view(-1, 1, 1, 1).to(query.dtype)
        other = query[partner]
        mixed = paste(weight * query + (1 - weight) * other, boxes, other)
        lam = torch.where(share < 1, share, visible_share(boxes))
        return Mixed(mixed, partner, lam, boxes)

    def _draw(self, generator: Generator, size: int) -> tuple[float, Bool[Tensor, "1 size size"]]:
        """Draw a row's blending weight and box; the weight is 1 where a box is pasted, the box empty where images blend."""
        by_mixup, lam, down, right = torch.rand(4, generator=generator).tolist()
        if self.config.alpha != 1:  # Beta(1, 1) is uniform
            lam = float(betaincinv(self.config.alpha, self.config.alpha, lam))  # by the inverse of its distribution
        box = torch.zeros(1, size, size, dtype=torch.bool)
        if by_mixup < self.config.mixup_probability:
            return lam, box
        half = int(size * math.sqrt(1 - lam)) // 2
        middle, centre = int(down * size), int(right * size)
        box[:, max(middle - half, 0) : middle + half, max(centre - half, 0) : centre + half] = True
        return 1.0, box
