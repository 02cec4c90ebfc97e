"""Statistics of batch norm for use after training: of a population of images, for the final weights."""

import copy
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from core import distributed


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
