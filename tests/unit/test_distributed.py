"""Processes: their ranks, their ends, and the exchange of shuffled keys."""

import os
import socket
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
from tiny_objective import Tiny
from torch import distributed as dist
from torch import multiprocessing

from core import distributed
from core.distributed import GRACE, POLL, first_host
from core.errors import InputError
from pretrain import form
from pretrain.heads import Encoder
from pretrain.methods.moco import exchange

RANK = """
import sys, time, torch
from core import distributed
distributed.start(torch.device("cpu"))
assert (distributed.rank(), distributed.world(), distributed.local_rank()) == (int(sys.argv[1]), 2, int(sys.argv[1]))
assert distributed.gather_objects(distributed.rank()) == [0, 1]
if distributed.is_main():
    print("waiting", flush=True)
    time.sleep(100)  # as in a collective of NCCL, which no signal ends
try:
    raise RuntimeError("out of paper")
except RuntimeError:
    distributed.abandon()
    raise
"""


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node7", "node7"),
        ("node[01-04,7],login", "node01"),
        ("a[3]-ib,b", "a3-ib"),
        ("gpu-[10,12]", "gpu-10"),
        ("a,b", "a"),
    ],
)
def test_the_first_host_is_read_from_slurms_short_form(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_a_process_ends_within_a_minute_after_another_has_failed_and_says_why_last() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    slurm = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank)],
            text=True,
            stderr=subprocess.PIPE,
            env=os.environ | slurm | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
        )
        for rank in range(2)
    ]
    _, failed = ranks[1].communicate(timeout=90)
    began = time.monotonic()
    _, waited = ranks[0].communicate(timeout=90)
    assert time.monotonic() - began < POLL + GRACE + 15  # the machine may be busy
    assert [rank.returncode for rank in ranks] == [1, 1]
    assert "RuntimeError: out of paper" in failed
    assert waited.splitlines()[-1] == "another process of this run failed, its message says why; this one ends"


PROCESSES, SHARE, CPU = 3, 5, torch.device("cpu")


def work(rank, port, folder):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=PROCESSES)
    every = torch.randn(PROCESSES * SHARE, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    rows = every[distributed.local_rows(len(every))].contiguous(memory_format=torch.channels_last)
    for seed in range(3):
        order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))
        moved = exchange(rows, order)
        assert torch.equal(moved, every[order][distributed.local_rows(len(every))])
        assert moved.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(exchange(moved, order.argsort()), rows)
    made = []
    for what in (["listed", rank], lambda: rank):  # a function of a function cannot be pickled
        made.append(distributed.from_main(lambda what=what: (folder / f"{rank}-{len(made)}").touch() or what))
    assert made[0] == ["listed", 0]
    assert made[1]() == rank
    with pytest.raises(InputError, match=r"^no folder on 0$"):
        distributed.from_main(partial(refuse, rank))
    choose = partial(form.choose, ("auto", "fp32"), form.Task(Encoder(Tiny(), torch.nn.Identity()), 4, 1, 16), CPU)
    for full, found in (
        ({True}, form.Form(False, "fp32")),
        ({True, False}, None),
    ):  # the first process has no memory for some
        form._pass = partial(timed, full, rank)
        if found is None:
            with pytest.raises(InputError, match=r"do not fit into the memory of cpu in any form"):
                choose()
        else:
            assert choose() == (found, {"contiguous fp32": 1.0})
    (folder / str(rank)).touch()
    dist.destroy_process_group()


def timed(full, rank, one, encoder, images):
    assert rank == 0, "the first process measures for all"
    if one.channels_last in full:
        raise torch.OutOfMemoryError("out of memory")
    return 1.0


def refuse(rank):
    raise InputError(f"no folder on {rank}")


def test_three_processes_exchange_rows_as_a_gather_would_and_share_what_the_first_makes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(work, (port, tmp_path), nprocs=PROCESSES)
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "2", "0-0", "0-1", "1-1", "2-1"}


def test_one_process_only_reorders():
    rows = torch.arange(4.0)
    assert exchange(rows, torch.tensor([2, 0, 3, 1])).tolist() == [2, 0, 3, 1]
