"""From the host to the device without a wait, and there in few kernels."""

import functools
import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, compiled where it is given tensors on a GPU: a few kernels instead of one an operation."""
    compiled = functools.cache(lambda: torch.compile(function, dynamic=False))

    @functools.wraps(function)
    def call(*given: Any) -> Any:
        on_gpu = any(isinstance(leaf, Tensor) and leaf.is_cuda for leaf in tree_leaves(given))
        return (compiled() if on_gpu and can_compile() else function)(*given)

    return call


@functools.cache
def can_compile() -> bool:
    """Tell whether there is what torch.compile needs on a GPU: Triton and a C compiler; without them all runs as written."""
    compilers = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    return importlib.util.find_spec("triton") is not None and any(shutil.which(name) for name in compilers if name)


def upload(drawn: Tensor, device: torch.device) -> Tensor:
    """Move what was drawn on the CPU to ``device``; through pinned memory, which a GPU reads while the host goes on."""
    if device.type == "cuda":
        drawn = drawn.pin_memory()
    if device.type == "mps" and drawn.dtype == torch.float64:  # unknown there
        drawn = drawn.float()
    return drawn.to(device, non_blocking=True)
