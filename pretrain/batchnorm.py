"""Batch norm for siamese pre-training: over parts of the batch, and with statistics of its own for mixed views."""

import contextlib
import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SplitBatchNorm2d(nn.BatchNorm2d):
    """Normalises ``parts`` equal, contiguous parts of the batch each by its own statistics; running ones are averaged."""

    parts = 1

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [batch, channels, height, width]."""
        if not self.training or self.parts == 1:
            return super().forward(input)
        assert len(input) % self.parts == 0, "Method.check refuses such batches"
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        means = [self.running_mean.clone() for _ in range(self.parts)]
        variances = [self.running_var.clone() for _ in range(self.parts)]
        out = [
            F.batch_norm(part, mean, variance, self.weight, self.bias, True, self.momentum or 0.0, self.eps)
            for part, mean, variance in zip(input.chunk(self.parts), means, variances, strict=True)
        ]
        self.running_mean.copy_(torch.stack(means).mean(dim=0))
        self.running_var.copy_(torch.stack(variances).mean(dim=0))
        self.num_batches_tracked.add_(1)
        return torch.cat(out)


def split(network: nn.Module, parts: int) -> None:
    """Make every BatchNorm2d of ``network`` work on ``parts`` of the batch; tensor names stay as they are."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SplitBatchNorm2d
            module.parts = parts  # type: ignore[assignment]


class Auxiliary:
    """Mixed into a batch norm; ``auxiliary`` is a second one with its own statistics and scale (arXiv 1911.09665, sec. 4)."""

    auxiliary: nn.Module
    through_auxiliary = False

    def forward(self, input: Tensor) -> Tensor:
        """Normalise by the one set or the other."""
        return self.auxiliary(input) if self.through_auxiliary else super().forward(input)  # type: ignore[misc]


def add_auxiliary(network: nn.Module) -> None:
    """Give every batch norm of ``network`` an auxiliary one; the names of the tensors there are stay as they are."""
    for module in list(network.modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.auxiliary = copy.deepcopy(module)
            module.__class__ = type(f"Auxiliary{type(module).__name__}", (Auxiliary, type(module)), {})


@contextlib.contextmanager
def through_auxiliary(network: nn.Module) -> Iterator[None]:
    """Normalise by the auxiliary batch norms inside the block."""
    norms = [module for module in network.modules() if isinstance(module, Auxiliary)]
    for norm in norms:
        norm.through_auxiliary = True
    try:
        yield
    finally:
        for norm in norms:
            norm.through_auxiliary = False
