"""From the host to the device without a wait, and there in few kernels."""

import functools
import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

SHAPES = 64  # that one function is compiled for: a ResNet's batch norms have twelve


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, compiled where it is given tensors on a GPU: a few kernels instead of one an operation."""

    @functools.cache
    def compiled() -> Callable[..., Any]:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, SHAPES)
        return torch.compile(function, dynamic=False)

    @functools.wraps(function)
    def call(*given: Any) -> Any:
        if torch.compiler.is_compiling():
            return function(*given)
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
    if drawn.device.type == device.type != "cpu":
        return drawn  # a step's inputs are there already
    if device.type == "cuda":
        assert not torch.cuda.is_current_stream_capturing(), "a captured step would copy the same numbers for ever"
        drawn = drawn.pin_memory()
    if device.type == "mps" and drawn.dtype == torch.float64:  # unknown there
        drawn = drawn.float()
    return drawn.to(device, non_blocking=True)


ALIGNED = 16  # bytes: compiled kernels read numbers by so many


class Inputs:
    """Memory on a device where a step finds, always at the same places, what is another in every step.

    Pixels go there as they come; all else, which is small, in one copy through pinned memory.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._layout = device, dict[str, Any]()
        self._places: dict[str, Tensor] = {}
        self._small = self._pixels = torch.empty(0)

    def __call__(self, pixels: Tensor, told: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return both as they lie on the device: the same tensors as the time before, unless there is another shape."""
        layout = {name: (part.dtype, part.shape) for name, part in [("", pixels), *told.items()]}
        if layout != self._layout:
            self._lay_out(layout)
        self._pixels.copy_(pixels, non_blocking=True)
        staged = torch.empty(len(self._small), dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        for name, part in told.items():
            start = self._starts[name]
            staged[start : start + part.nbytes] = part.reshape(-1).view(torch.uint8)
        self._small.copy_(staged, non_blocking=True)
        return self._pixels, self._places

    def _lay_out(self, layout: dict[str, Any]) -> None:
        self._layout, self._starts, length = layout, dict[str, int](), 0
        kind, shape = layout[""]
        self._pixels = torch.empty(shape, dtype=kind, device=self._device)
        sizes = {name: kind.itemsize * shape.numel() for name, (kind, shape) in layout.items() if name}
        for name, size in sizes.items():
            self._starts[name] = length
            length += -(-size // ALIGNED) * ALIGNED
        self._small = torch.empty(length, dtype=torch.uint8, device=self._device)
        self._places = {
            name: self._small[start : start + sizes[name]].view(layout[name][0]).view(layout[name][1])
            for name, start in self._starts.items()
        }
