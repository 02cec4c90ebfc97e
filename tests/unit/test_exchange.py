"""Rows that change places between processes arrive as if all had been gathered."""

import socket

import torch
from torch import distributed as dist
from torch import multiprocessing

from core import distributed
from pretrain.exchange import exchange

PROCESSES, SHARE = 3, 5


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
    (folder / str(rank)).touch()
    dist.destroy_process_group()


def test_three_processes_exchange_rows_as_a_gather_would_and_back(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(work, (port, tmp_path), nprocs=PROCESSES)
    assert len(list(tmp_path.iterdir())) == PROCESSES


def test_one_process_only_reorders():
    rows = torch.arange(4.0)
    assert exchange(rows, torch.tensor([2, 0, 3, 1])).tolist() == [2, 0, 3, 1]
