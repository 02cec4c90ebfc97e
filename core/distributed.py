"""Rank, gather and shuffle across processes; all of it does nothing special on one process."""

import os
from datetime import timedelta

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


def any_process(flag: bool, device: torch.device) -> bool:
    """Tell whether ``flag`` is set in any process, so that all stop together."""
    if world() == 1:
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value)
    return bool(value.item() > 0)
