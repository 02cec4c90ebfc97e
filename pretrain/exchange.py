"""Rows of all processes in another order, each sent only to the process that wants it."""

import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor

from core import distributed
from pretrain.upload import upload


@torch.no_grad()
def exchange(rows: Tensor, order: Int[Tensor, " total"]) -> Tensor:
    """Return this process's share of ``gather(rows)[order]`` without gathering; ``order`` is on the CPU, the same everywhere.

    All processes have equally many rows. A process sends and receives its own number of rows, where a gather would
    receive everyone's: at 64 processes that is most of a MoCo step (docs/scaling.md).
    """
    if distributed.world() == 1:
        return rows[upload(order, rows.device)]
    share, rank = len(rows), distributed.rank()
    wanted = order.view(-1, share)  # a line a process
    sent = [line[line // share == rank] - rank * share for line in wanted]
    owners = wanted[rank] // share
    places = upload(owners.argsort(stable=True), rows.device)  # rows arrive owner by owner
    arrived = torch.empty_like(rows, memory_format=torch.contiguous_format)
    dist.all_to_all_single(
        arrived,
        rows[upload(torch.cat(sent), rows.device)].contiguous(),
        output_split_sizes=owners.bincount(minlength=len(wanted)).tolist(),
        input_split_sizes=[len(part) for part in sent],
    )
    placed = torch.empty_like(rows)
    placed[places] = arrived
    return placed
