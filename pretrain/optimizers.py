"""Optimizers by name."""

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from core.config import Settings


class OptimizerSettings(Settings):
    """SGD as MoCo uses it (arXiv 1911.05722, sec. 4): one weight decay for all parameters."""

    name: Literal["sgd"] = "sgd"
    lr: float = Field(0.03, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)


def make(settings: OptimizerSettings, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Make the optimizer over the parameters that take a gradient."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return torch.optim.SGD(
        trained, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay, foreach=True
    )
