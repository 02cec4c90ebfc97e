"""Un-Mix: blend two images, or paste a box of one into the other (arXiv 2003.05438, sec. 3)."""

import math
from typing import Literal

import torch
from pydantic import Field
from scipy.special import betaincinv
from torch import Generator, Tensor

from pretrain.branches import Branch, BranchSettings, Draws, Mixed, visible_share
from pretrain.drawing import PartnerOrder, check_partners, once, partners
from pretrain.fills import paste
from pretrain.masks import inside
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
        drawn = once(
            generators, "boxes", lambda: torch.tensor([self._draw(generator, size) for generator in generators])
        )
        drawn = upload(drawn.repeat_interleave(count // len(drawn), dim=0), query.device)
        share, boxes = drawn[:, 0], inside(drawn[:, 1:], size)
        weight = share.view(-1, 1, 1, 1).to(query.dtype)
        other = query[partner]
        mixed = paste(weight * query + (1 - weight) * other, boxes, other)
        lam = torch.where(share < 1, share, visible_share(boxes))
        return Mixed(mixed, partner, lam, boxes)

    def _draw(self, generator: Generator, size: int) -> tuple[float, int, int, int, int]:
        """Draw a row's blending weight, and its box's top, bottom, left and right.

        The weight is 1 where a box is pasted, the box empty where images blend.
        """
        by_mixup, lam, down, right = torch.rand(4, generator=generator).tolist()
        if self.config.alpha != 1:  # Beta(1, 1) is uniform
            lam = float(betaincinv(self.config.alpha, self.config.alpha, lam))  # by the inverse of its distribution
        if by_mixup < self.config.mixup_probability:
            return lam, 0, 0, 0, 0
        half = int(size * math.sqrt(1 - lam)) // 2
        middle, centre = int(down * size), int(right * size)
        return 1.0, max(middle - half, 0), middle + half, max(centre - half, 0), centre + half
