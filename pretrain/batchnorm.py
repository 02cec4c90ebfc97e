"""Batch norm for siamese pre-training: over parts of the batch, with own statistics for mixed views, and of a population."""

import contextlib
import copy
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from core import distributed
from pretrain.upload import can_compile, fused


class SplitBatchNorm2d(nn.BatchNorm2d):
    """Normalises ``parts`` equal, contiguous parts of the batch each by its own statistics; running ones are averaged.

    On a GPU all at once and where they lie; one after the other where nothing can be compiled for it, and on a CPU, whose own
    batch norm is faster.
    """

    parts = 1

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [batch, channels, height, width]."""
        if not self.training or self.parts == 1:
            return super().forward(input)
        assert len(input) % self.parts == 0, "Method.check refuses such batches"
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        if input.is_cuda and (torch.compiler.is_compiling() or can_compile()):
            return self.at_once(input)
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

    def at_once(self, input: Tensor) -> Tensor:
        """Normalise all parts in two passes over the activations, and their gradients in two, without a copy of them."""
        out, mean, variance = _Parts.apply(input, self.weight, self.bias, self.parts, self.eps)
        running, count = [self.running_mean, self.running_var], input[:, 0].numel() // self.parts
        with torch.no_grad():
            _blend(running, [mean, variance], self.num_batches_tracked, self.momentum or 0.0, count)
        return out


class _Parts(torch.autograd.Function):
    """Batch norm of parts of a batch, by statistics of at least single precision."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, parts: int, eps: float) -> tuple[Tensor, ...]:
        out, mean, variance, scale = _normalised(input, weight, bias, parts, eps)
        ctx.save_for_backward(input, weight, mean, scale)
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return *_gradients(gradients[0], *ctx.saved_tensors), None, None


@fused
def _normalised(input: Tensor, weight: Tensor, bias: Tensor, parts: int, eps: float) -> tuple[Tensor, ...]:
    pixels = _wide(input)
    variance, mean = torch.var_mean(pixels.view(parts, -1, *pixels.shape[1:]), dim=(1, 3, 4), correction=0)
    scale = (variance + eps).rsqrt()
    out = (pixels - _rows(mean, input)) * _rows(scale * weight, input) + bias.view(-1, 1, 1)
    return out.to(input.dtype), mean, variance, scale


@fused
def _gradients(
    gradient: Tensor, input: Tensor, weight: Tensor, mean: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return those of input, weight and bias (Ioffe and Szegedy, arXiv 1502.03167, sec. 3)."""
    slopes, normal = _wide(gradient), (_wide(input) - _rows(mean, input)) * _rows(scale, input)
    bias, slope = (part.view(len(mean), -1, *part.shape[1:]).sum(dim=(1, 3, 4)) for part in (slopes, slopes * normal))
    count = input[:, 0].numel() // len(mean)
    found = (slopes - _rows(bias / count, input) - normal * _rows(slope / count, input)) * _rows(scale * weight, input)
    return found.to(input.dtype), slope.sum(dim=0).to(weight.dtype), bias.sum(dim=0).to(weight.dtype)


@fused
def _blend(running: list[Tensor], found: list[Tensor], tracked: Tensor, momentum: float, count: int) -> None:
    """Move running mean and variance towards the parts' mean of each, the variance without bias."""
    mean, variance = (part.mean(dim=0) for part in found)
    for kept, new in zip(running, (mean, variance * (count / (count - 1))), strict=True):
        kept.lerp_(new.to(kept.dtype), momentum)
    tracked.add_(1)


def _wide(part: Tensor) -> Tensor:
    return part.to(torch.promote_types(part.dtype, torch.float32))


def _rows(values: Tensor, input: Tensor) -> Tensor:
    """Give each row of the batch its part's values: [parts, channels] to [batch, channels, 1, 1]."""
    each = len(input) // len(values)
    return values[:, None].expand(-1, each, -1).reshape(len(input), -1, 1, 1)


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


@torch.no_grad()
def population_statistics(network: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return the mean and variance of every batch norm's input over all batches of all processes, by buffer name.

    Each batch passes a copy of the network in training mode, so every layer sees what it saw in training; moments are
    averaged over batches of equal size (PreciseBN, arXiv 2105.07576, sec. 3). Norms that no batch reaches are left out.
    """
    copied = copy.deepcopy(network).train()
    moments: dict[str, list[Tensor]] = {}
    for name, module in copied.named_modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.register_forward_pre_hook(partial(_collect, moments, name))
    for batch in batches:
        copied(batch)
    found = {}
    for name, parts in sorted(moments.items()):
        mean, square = torch.stack(parts).mean(dim=0)
        both = torch.stack([mean, square])
        distributed.average([both])
        mean, square = both
        found[f"{name}.running_mean"] = mean.float()
        found[f"{name}.running_var"] = (square - mean**2).clamp_min(0).float()
    return found


def _collect(moments: dict[str, list[Tensor]], name: str, module: nn.Module, inputs: tuple[Tensor]) -> None:
    """Note mean and mean square of one batch, a channel each, in float64 so that their difference keeps its digits."""
    rows = inputs[0].detach()
    rows = rows.float() if rows.device.type == "mps" else rows.double()  # a Mac's GPU has no float64
    axes = [axis for axis in range(rows.ndim) if axis != 1]
    moments.setdefault(name, []).append(torch.stack([rows.mean(dim=axes), rows.square().mean(dim=axes)]))


def evaluation_copy(network: nn.Module) -> nn.Module:
    """Return a copy in eval mode whose running statistics are the processes' mean; ``network`` stays as it is."""
    copied = copy.deepcopy(network).eval()
    distributed.average(
        [buffer for name, buffer in copied.named_buffers() if name.endswith(("running_mean", "running_var"))]
    )
    return copied
