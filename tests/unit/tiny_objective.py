"""Every method and branch on a network of one convolution, in float64."""

from typing import Any

import torch
from torch import Tensor, nn

from core.backbones import Backbone, Rules
from core.plugins import find
from pretrain.branches import Branch
from pretrain.methods import Method
from pretrain.objective import Objective

LABELS = torch.tensor([3, 0, 1, 1, 2, -1, 0, 3])
CLEAN, KEYS = {"hard_negatives": False}, {"sides": "both"}
SMALL: dict[str, dict[str, Any]] = {
    "moco": {"queue": 16, "dim": 4, "hidden": 6}, "simclr": {"dim": 4, "hidden": 6}, "byol": {"dim": 4, "hidden": 6},
    "simsiam": {"dim": 6, "hidden": 5, "bottleneck": 3}, "supervised": {"classes": 4},
}  # fmt: skip
GRID = {"name": "block", "cells": 4, "ratio": 0.5}
BRANCHES: dict[str, dict[str, Any]] = {
    "mixmask": {"mask": GRID}, "unmix": {}, "mscn": {"cell": 4, "ratio": [0.1, 0.5], "high_pass_kernel": 3},
    "saliency": {"cells": 4, "ratio": [0.1, 0.5], "fill": {"name": "mean"}, "saliency": {"stage": 1}}, "mixsiam": {},
    "masked": {"mask": GRID, "fill": {"name": "zero"}},
}  # fmt: skip


class Tiny(Backbone):
    """One convolution with batch norm."""

    feature_dim = 5

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, self.feature_dim, 3, stride=2)
        self.bn1 = nn.BatchNorm2d(self.feature_dim)

    def stages(self, images: Tensor) -> list[Tensor]:
        """Return one map."""
        return [torch.tanh(self.bn1(self.conv1(images)))]

    @classmethod
    def rename_rules(cls, framework: str) -> Rules:
        """Return nothing."""
        return []


def method(name: str, **config: Any) -> Method:
    """Return a method in float64."""
    torch.manual_seed(0)
    kind = find("pretrain.methods", name)
    return kind(kind.Config(**SMALL[name] | config), Tiny()).double().train()


def branch(name: str, **config: Any) -> Branch:
    """Return a branch."""
    kind = find("pretrain.branches", name)
    return kind(kind.Config.model_validate(BRANCHES[name] | config))


def pair(count: int = 8, size: int = 16) -> tuple[Tensor, Tensor]:
    """Return two views."""
    both = torch.randn(2, count, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return both[0], both[1]


def objective(
    name: str, makers: dict[str, Branch], weight: float = 1.0, norm: str = "separate", **config: Any
) -> Objective:
    """Return an objective in training."""
    return Objective(method(name, **config), makers, weight, 7, norm).train()  # type: ignore[arg-type]
