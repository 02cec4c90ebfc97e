"""MoCo v2: contrast with a queue of keys from a momentum encoder (arXiv 1911.05722 and 2003.04297)."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Int
from pydantic import Field
from torch import Generator, Tensor

from core import distributed
from core.backbones import Backbone
from core.config import PluginSettings
from core.errors import InputError
from pretrain.batchnorm import split
from pretrain.drawing import once
from pretrain.heads import Encoder, follow, mlp, momentum_copy
from pretrain.losses import against, contrast, info_nce, unit
from pretrain.methods import MomentumMethod
from pretrain.upload import fused, upload


class Moco(MomentumMethod):
    """Query encoder, momentum key encoder, and a first-in first-out queue of negatives."""

    contrastive = True
    synchronised = False  # shuffling would tell nothing (MoCo, sec. 3.3)
    queue: Tensor
    queue_pointer: Tensor

    class Config(PluginSettings):
        """``split_bn`` normalises that many parts of the batch of all processes apart: 8 is the published 8 GPUs.

        The same number is the same method on any number of processes that divides it; 1 leaves each process's rows together.
        """

        name: Literal["moco"] = "moco"
        temperature: float = Field(0.2, gt=0)
        queue: int = Field(65536, ge=1, le=2**24)
        key_momentum: float = Field(0.999, ge=0, lt=1)  # lower, and the queued keys drift apart (MoCo, sec. 4.1)
        dim: int = Field(128, ge=1)
        hidden: int | None = Field(None, ge=1)  # width of the projector; by default that of the backbone's features
        symmetric: bool = False
        split_bn: int = Field(1, ge=1)

    def __init__(self, config: "Moco.Config", backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.symmetric = config.symmetric
        features = backbone.feature_dim
        self.query_encoder = Encoder(backbone, mlp(features, config.hidden or features, config.dim))
        self.groups = self._groups(config.split_bn, distributed.world())
        split(self.query_encoder, self.groups)
        self.key_encoder = momentum_copy(self.query_encoder)
        self.register_buffer("queue", F.normalize(torch.randn(config.dim, config.queue), dim=0))
        self.register_buffer("queue_pointer", torch.zeros((), dtype=torch.long))

    def _groups(self, total: int, world: int) -> int:
        """Return this process's share of the groups; say what is normalised together."""
        if 1 < total < world or (total % world and world < total):
            raise InputError(
                f"method.split_bn={total} groups cannot be shared by {world} processes; start a number of processes that divides "
                f"it, or set method.split_bn={world}, which is another method"
            )
        if total == world == 1:
            self.note = (
                "warning: method.split_bn=1 on one process: joint batch norm lets MoCo tell batches apart, and learn no more; "
                "method.split_bn=8 normalises as the published 8 GPUs do"
            )
        else:
            self.note = (
                f"batch norm over {max(total, world)} groups of the batch, on any number of processes that divides it"
            )
        return max(total // world, 1)

    def check(self, batch: int) -> None:
        """Refuse a batch that does not divide the queue or cannot be split."""
        keys = batch * (2 if self.symmetric else 1)
        if self.config.queue % keys:
            raise InputError(
                f"method.queue={self.config.queue} is not a multiple of the {keys} keys that enter it at a time "
                f"(train.batch_size over train.accumulate{', twice if symmetric' if self.symmetric else ''}); change one of them"
            )
        super().check(batch)

    def begin_step(self, progress: float) -> None:
        """Move the key encoder after the query encoder."""
        follow(self.key_encoder, self.query_encoder, self.config.key_momentum)

    def order(self, rows: int, shuffle: Sequence[Generator]) -> Tensor | None:
        """Shuffle where there are groups, so that batch statistics tell nothing (MoCo, sec. 3.3)."""
        if self.groups == 1 and distributed.world() == 1:
            return None

        def draw() -> Tensor:
            order = torch.randperm(rows * distributed.world(), generator=shuffle[0])
            return torch.stack([order, order.argsort()])

        return once(shuffle, "order", draw)

    @torch.no_grad()
    def encode_key(self, images: Tensor, order: Tensor | None = None) -> Tensor:
        """Encode in shuffled order."""
        if order is None:
            return self.key_encoder(images)
        return exchange(self.key_encoder(exchange(images, order[0])), order[1])

    def loss(self, query: Tensor, key: Tensor, hard: Tensor | None = None, alpha: float = 1.0) -> Tensor:
        """InfoNCE between unit vectors against the queue."""
        extra = None if hard is None else unit(hard)
        return info_nce(unit(query), unit(key), self.queue, self.config.temperature, extra, alpha)

    def losses(self, query: Tensor, keys: Sequence[Tensor]) -> list[Tensor]:
        """InfoNCE for each of several keys, the queries multiplied with the queue once."""
        query, temperature = unit(query), self.config.temperature
        others = against(query, self.queue, temperature)
        return [contrast(query, unit(key), others, temperature) for key in keys]

    @torch.no_grad()
    def end_step(self, keys: Tensor) -> None:
        """Put the keys of all processes at the queue's pointer, over the oldest ones."""
        if distributed.world() > 1:
            keys = distributed.gather(unit(keys))
        _enqueue(self.queue, self.queue_pointer, keys)


@fused
def _enqueue(queue: Tensor, pointer: Tensor, keys: Tensor) -> None:
    places = (pointer + torch.arange(len(keys), device=keys.device)) % queue.shape[1]
    queue[:, places] = unit(keys).T.to(queue)
    pointer.add_(len(keys)).remainder_(queue.shape[1])


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
