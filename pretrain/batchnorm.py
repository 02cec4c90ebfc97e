"""Batch norm over parts of the batch, which on one process does what separate batches on several devices do."""

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
