"""Projectors on top of a backbone, predictors on top of those, and the momentum copy that follows an encoder slowly."""

import copy
import itertools
from collections.abc import Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.backbones import Backbone


class Encoder(nn.Module):
    """A backbone and a projector; both by these names in a checkpoint."""

    def __init__(self, backbone: Backbone, projector: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Return the projected, average-pooled features."""
        return self.projector(self.backbone(images))


def mlp(
    channels: int, hidden: int, out: int, norm: bool = False, bias: bool = True, final_norm: bool = False
) -> nn.Sequential:
    """Return linear, ReLU, linear (MoCo v2, arXiv 2003.04297, sec. 3).

    ``norm`` puts batch norm before the ReLU, as SimCLR and BYOL do. The last layer has a ``bias`` or, as in SimCLR's release,
    a batch norm without shift.
    """
    middle: list[nn.Module] = [nn.BatchNorm1d(hidden)] if norm else []
    last: list[nn.Module] = [nn.Linear(hidden, out, bias=bias and not final_norm)]
    if final_norm:
        shiftless = nn.BatchNorm1d(out)
        shiftless.bias.requires_grad_(False)
        last.append(shiftless)
    return nn.Sequential(nn.Linear(channels, hidden, bias=not norm), *middle, nn.ReLU(inplace=True), *last)


def projector(widths: Sequence[int]) -> nn.Sequential:
    """Return SimSiam's projector: linear, batch norm and ReLU, the last without ReLU (arXiv 2011.10566, sec. 3)."""
    layers: list[nn.Module] = []
    for channels, out in itertools.pairwise(widths):
        layers += [nn.Linear(channels, out, bias=False), nn.BatchNorm1d(out), nn.ReLU(inplace=True)]
    layers[-2:] = [nn.BatchNorm1d(widths[-1], affine=False)]  # as the authors' release has it
    return nn.Sequential(*layers)


def predictor(channels: int, bottleneck: int, out: int) -> nn.Sequential:
    """Return SimSiam's predictor: a bottleneck with batch norm on its hidden layer only (arXiv 2011.10566, sec. 3)."""
    return mlp(channels, bottleneck, out, norm=True)


M = TypeVar("M", bound=nn.Module)


def momentum_copy(network: M) -> M:
    """Return a copy that takes no gradient."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def follow(key_encoder: nn.Module, query_encoder: nn.Module, key_momentum: float) -> None:
    """Move the key encoder's parameters towards the query encoder's (MoCo, arXiv 1911.05722, eq. 2), in one fused call."""
    torch._foreach_lerp_(list(key_encoder.parameters()), list(query_encoder.parameters()), 1 - key_momentum)
