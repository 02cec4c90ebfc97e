"""MixSiam: a mixture of both views of an image shall show what either shows (arXiv 2111.02679)."""

import math
from typing import Literal

import torch
from pydantic import Field
from scipy.special import betaincinv
from torch import Generator, Tensor

from pretrain.branches import Branch, BranchSettings, Draws, Mixed, visible_share
from pretrain.drawing import once
from pretrain.fills import paste
from pretrain.masks import inside
from pretrain.saliency import Features
from pretrain.upload import upload


class Mixsiam(Branch):
    """Mixes the two views of the same image; the target is the element-wise maximum of the two views' keys (sec. 3.2)."""

    needs_keys = True

    class Config(BranchSettings):
        """``mix`` is mixup or CutMix; the law of lam and the weight are not public: Beta(alpha, alpha) and 1 are our choice."""

        name: Literal["mixsiam"] = "mixsiam"
        mix: Literal["mixup", "cutmix"] = "mixup"
        alpha: float = Field(1.0, gt=0)

    def __init__(self, config: "Mixsiam.Config") -> None:
        self.config: Mixsiam.Config = config

    def mix(self, query: Tensor, key: Tensor, draws: Draws, features: Features | None = None) -> Mixed:
        """Return lam * query + (1 - lam) * key, or query with a box of key; lam is the query view's share."""
        size = query.shape[-1]
        generators = draws.rows(len(query), "mix")
        drawn = once(
            generators, "mix", lambda: torch.tensor([self._draw(g, size) for g in generators], dtype=torch.float64)
        )
        drawn = upload(drawn, query.device)
        if self.config.mix == "mixup":
            lam = drawn[:, 0].to(query.dtype)
            weight = lam.view(-1, 1, 1, 1)
            return Mixed(weight * query + (1 - weight) * key, None, lam, both_keys=True)
        boxes = inside(drawn[:, 1:], size)
        return Mixed(paste(query, boxes, key), None, visible_share(boxes), boxes, both_keys=True)

    def _draw(self, generator: Generator, size: int) -> tuple[float, int, int, int, int]:
        """Draw the query view's share, and a box of the rest: its top, bottom, left and right."""
        uniform, down, right = torch.rand(3, generator=generator).tolist()
        share = float(betaincinv(self.config.alpha, self.config.alpha, uniform))
        side = int(size * math.sqrt(1 - share))
        top, left = int(down * (size - side + 1)), int(right * (size - side + 1))
        return share, top, top + side, left, left + side
