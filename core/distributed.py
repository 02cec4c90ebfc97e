"""Rank, gather and shuffle across processes; all of it does nothing special on one process."""

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def start(device: torch.device) -> None:
    """Join the process group that torchrun describes: NCCL on GPUs, gloo on CPUs; do nothing without torchrun."""
    if "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=30))


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Return this process's number, 0 on one process."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Tell whether this process writes files."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    if dist.is_initialized():
        dist.barrier()


@torch.no_grad()
def gather(rows: Tensor) -> Tensor:
    """Concatenate equally many rows of every process in rank order, without gradient."""
    if world() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    """Gather rows; each process gets back what all processes' losses say of its rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return gather(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[local_rows(len(total))]


def gather_with_gradient(rows: Tensor) -> Tensor:
    """Concatenate equally many rows of every process in rank order; gradients flow back to the processes they came from."""
    return rows if world() == 1 else _Gather.apply(rows)


def local_rows(count: int) -> slice:
    """Return this process's contiguous share of ``count`` global rows."""
    share = count // world()
    return slice(rank() * share, (rank() + 1) * share)


def gather_objects(value: object) -> list:
    """Collect one small picklable value of every process (our own processes only)."""
    if world() == 1:
        return [value]
    values: list = [None] * world()
    dist.all_gather_object(values, value)
    return values


@torch.no_grad()
def average(tensors: list[Tensor]) -> None:
    """Replace floating-point tensors by their mean over processes, in place."""
    if world() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= world()


class Vote:
    """Agrees on a flag: at once on one process, one call late on several.

    The others' flags travel over gloo between CPUs while the next step is computed, so that no step waits for them, or
    for a GPU. All processes must make it and call it equally often; all get the same answer from the same call.
    """

    def __init__(self) -> None:
        self._group: Any = dist.new_group(backend="gloo") if world() > 1 else None
        self._under_way: tuple[dist.Work, Tensor] | None = None

    def cast(self, flag: bool) -> bool:
        """Give this process's flag; return whether any process had given one."""
        if self._group is None:
            return flag
        agreed = self._result()
        value = torch.tensor(float(flag))
        work = dist.all_reduce(value, group=self._group, async_op=True)
        assert work is not None
        self._under_way = (work, value)
        return agreed

    def close(self) -> None:
        """Wait for the last vote, which nobody reads."""
        self._result()

    def _result(self) -> bool:
        if self._under_way is None:
            return False
        work, value = self._under_way
        self._under_way = None
        work.wait()
        return bool(value > 0)
