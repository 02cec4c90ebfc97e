"""Saliency-guided masking: hide object and surroundings alike; views that lost their object are negatives (arXiv 2309.12757)."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from core.errors import InputError
from core.plugins import build, choice, find
from pretrain.branches import Branch, BranchSettings, Draws, Mixed
from pretrain.drawing import once
from pretrain.fills import paste
from pretrain.masks import Grid, GridSettings, RatioRange
from pretrain.saliency import Features, SaliencySettings, hide, orders
from pretrain.saliency import Saliency as Attention
from pretrain.upload import upload


class Saliency(Branch):
    """Masks the query view only, balanced over fore- and background (sec. 3.2); hard negatives are key views without object.

    The authors' release uses the first image's hard negative for the whole device, scrambles its saliency map by sorting, and
    hides nearly all of the background through a rounding error; none of that is here.
    """

    class Config(BranchSettings):
        """``ratio`` is the share hidden in the query view, ``hard_ratio`` that of the foreground hidden in a hard negative.

        A hard negative's logit is multiplied by ``alpha``. The grid is 7 x 7 at 224 px in the paper.
        """

        name: Literal["saliency"] = "saliency"
        cells: int = Field(7, ge=2)
        ratio: RatioRange = (0.05, 0.25)
        fill: choice("pretrain.fills") = Field(default_factory=lambda: find("pretrain.fills", "highpass").Config())
        saliency: SaliencySettings = SaliencySettings()
        hard_negatives: bool = True
        hard_ratio: RatioRange = (0.4, 0.7)
        alpha: float = Field(2.0, gt=0)

    def __init__(self, config: "Saliency.Config") -> None:
        self.config: Saliency.Config = config
        self.hard_negatives = config.hard_negatives
        self.grid = Grid(GridSettings(name="balanced", cells=config.cells, ratio=config.ratio))
        values = {"name": "balanced", "cells": config.cells, "ratio": config.ratio, "saliency": config.saliency}
        self.mask = build("pretrain.masks", find("pretrain.masks", "balanced").Config.model_validate(values))
        self.attention = Attention(config.saliency)
        self.fill = build("pretrain.fills", config.fill)
        if self.fill.mixes:
            raise InputError(
                f"fill={config.fill.name} mixes in another image; for saliency-balanced MixMask take mixmask, mask.name=balanced"
            )

    def check(self, size: int, group_rows: int) -> None:
        """Refuse a grid or a fill that does not fit."""
        self.mask.check(size)
        self.fill.check(size, group_rows)

    def mix(self, query: Tensor, key: Tensor, draws: Draws, features: Features | None = None) -> Mixed:
        """Return the masked query view, and the key view without most of its object as a hard negative."""
        generators = draws.rows(len(query), "query")
        mask = self.mask.masks(query, generators, features)
        masked = paste(query, mask, self.fill.content(query, generators))
        hard = self._without_object(key, draws, features) if self.config.hard_negatives else None
        return Mixed(
            masked, None, torch.ones(len(query), device=query.device), mask, hard=hard, alpha=self.config.alpha
        )

    def _without_object(self, key: Tensor, draws: Draws, features: Features | None) -> Tensor:
        """Hide ``hard_ratio`` of each image's foreground cells."""
        generators = draws.rows(len(key), "hard")
        low, high = self.config.hard_ratio
        front = self.attention.foreground(key, features, self.config.cells)
        drawn = once(
            generators,
            "share",
            lambda: torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in generators]),
        )
        counts = hard_count(upload(low + (high - low) * drawn, front.device), front.sum(dim=(1, 2)))
        grids = hide(front, counts, orders(generators, self.config.cells, front.device))
        mask = self.grid.scale(grids[:, None], key.shape[-1])
        return paste(key, mask, self.fill.content(key, generators))


def hard_count(share: Float[Tensor, " rows"], foreground_cells: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """Return how many foreground cells a hard negative loses: the nearest to ``share``, halves up, at least one."""
    return (share * foreground_cells + 0.5).long().clamp(min=1)
