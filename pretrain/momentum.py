"""The momentum (key) encoder: a copy of the query encoder that follows it slowly."""

import copy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def momentum_copy(network: M) -> M:
    """Return a copy that takes no gradient."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def follow(key_encoder: nn.Module, query_encoder: nn.Module, key_momentum: float) -> None:
    """Move the key encoder's parameters towards the query encoder's (MoCo, arXiv 1911.05722, eq. 2), in one fused call."""
    torch._foreach_lerp_(list(key_encoder.parameters()), list(query_encoder.parameters()), 1 - key_momentum)
