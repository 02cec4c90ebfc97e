"""Rank, gather and shuffle across processes; all of it does nothing special on one process."""

import os
import pickle
import re
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

POLL, GRACE = 2.0, 10.0  # seconds between looks for a process that failed, and until this one ends itself
T = TypeVar("T")
_ended = threading.Event()  # this process leaves, or fails itself


def start(device: torch.device) -> None:
    """Join the process group that torchrun or srun describes; do nothing without them.

    NCCL carries what lies on GPUs, gloo what lies on the host, so that objects and barriers never pass through a GPU.
    """
    _adopt_slurm()
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        return
    backend, bound = ("cpu:gloo,cuda:nccl", device) if device.type == "cuda" else ("gloo", None)
    dist.init_process_group(backend, timeout=timedelta(minutes=30), device_id=bound)
    _ended.clear()
    threading.Thread(target=_watch, args=(_failures(),), daemon=True).start()


def stop() -> None:
    """Leave the process group, with nothing left to do in it; a process that fails calls ``abandon`` instead."""
    _ended.set()
    if dist.is_initialized():
        dist.destroy_process_group()


def abandon() -> None:
    """Tell the other processes that this one fails; they may sit in a collective that will never end, so wait for none.

    They end themselves within ``POLL + GRACE`` seconds (torchrun's SIGTERM only asks them to), and so does this one if
    leaving Python should hang.
    """
    if not dist.is_initialized():
        return
    _ended.set()
    try:
        _failures().set(_failed_key(), "1")
    except Exception as error:  # the one that holds the store is gone as well, which tells the others as much
        print(f"could not tell the other processes: {error}", file=sys.stderr)
    killer = threading.Timer(GRACE, os._exit, (1,))
    killer.daemon = True
    killer.start()


def _failures() -> dist.Store:
    """Return a connection of its own to the store: the process group's may be waiting for something."""
    store = dist.TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(seconds=30)
    )
    return dist.PrefixStore("masktransfer", store)


def _failed_key() -> str:
    return "failed/" + os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def _watch(store: dist.Store) -> None:
    """End this process once another one has failed, or is gone with the store."""
    while not _ended.wait(POLL):
        try:
            failed = store.check([_failed_key()])
        except Exception:
            failed = True
        if failed and not _ended.wait(GRACE):
            print(
                "another process of this run failed, its message says why; this one ends", file=sys.stderr, flush=True
            )
            os._exit(1)


def local_rank() -> int:
    """Return this process's number on its machine, which is that of its GPU."""
    _adopt_slurm()
    return int(os.environ.get("LOCAL_RANK", "0"))


def _adopt_slurm() -> None:
    """Let the variables of a Slurm step of several tasks stand for torchrun's, where there are none of torchrun's."""
    given = os.environ
    if "RANK" in given or int(given.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return
    names = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_STEP_NUM_TASKS", "LOCAL_RANK": "SLURM_LOCALID"}
    given.update({ours: given[theirs] for ours, theirs in names.items()})
    given.setdefault("MASTER_ADDR", first_host(given["SLURM_STEP_NODELIST"]))
    step = 100 * int(given.get("SLURM_JOB_ID", "0")) + int(given.get("SLURM_STEP_ID", "0"))
    given.setdefault("MASTER_PORT", str(20000 + step % 20000))


def first_host(nodes: str) -> str:
    """Return the first host of Slurm's short form: ``node[01-04,7],login`` is node01."""
    found = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\])?([^,\[]*)", nodes)
    assert found, nodes
    return "".join(part or "" for part in found.groups())


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


def from_main(make: Callable[[], T]) -> T:
    """Return what ``make`` returns, called by the first process alone and handed to the others, as is what it raises.

    What cannot be pickled is made by every process for itself.
    """
    if world() == 1:
        return make()
    made: list[Any] = [None, None]
    if is_main():
        try:
            made[0] = make()
        except Exception as error:
            made[1] = error
    sent = [_pickled(made) if is_main() else None]
    dist.broadcast_object_list(sent, src=0)
    if not is_main():
        made = pickle.loads(sent[0]) if sent[0] else [make(), None]  # noqa: S301 - from our own first process
    if made[1] is not None:
        raise made[1]
    return made[0]


def _pickled(value: object) -> bytes | None:
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None


@torch.no_grad()
def average(tensors: list[Tensor]) -> None:
    """Replace floating-point tensors by their mean over processes, in place."""
    if world() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= world()


class Vote:
    """Agrees on a number, the greatest that was given: at once on one process, one call late on several.

    The numbers travel over gloo between CPUs while the next step is computed, so that no step waits for them, or
    for a GPU. All processes must make it and call it equally often; all get the same answer from the same call.
    """

    def __init__(self) -> None:
        self._group: Any = dist.new_group(backend="gloo") if world() > 1 else None
        self._under_way: tuple[dist.Work, Tensor] | None = None

    def cast(self, number: int) -> int:
        """Give this process's number, at least 0; return the greatest that any process had given."""
        if self._group is None:
            return number
        agreed = self._result()
        value = torch.tensor(number)
        work = dist.all_reduce(value, dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._under_way = (work, value)
        return agreed

    def close(self) -> None:
        """Wait for the last vote, which nobody reads."""
        self._result()

    def _result(self) -> int:
        if self._under_way is None:
            return 0
        work, value = self._under_way
        self._under_way = None
        work.wait()
        return int(value)
