"""Partners: which other image of the batch is mixed into each row."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from core.errors import InputError
from pretrain.drawing import once

PartnerOrder = Literal["reverse", "shuffle"]


def partners(count: int, groups: Sequence[Generator], order: PartnerOrder) -> Int[Tensor, " count"]:
    """Return the row whose image fills each row; partners are of the same group."""
    if order == "reverse":
        return once(groups, "partners", lambda: reversed_partner(count, len(groups)))
    return once(groups, "partners", lambda: shuffled_partner(count, groups))


def reversed_partner(count: int, groups: int) -> Int[Tensor, " count"]:
    """Return each row's partner: its group read backwards."""
    return torch.arange(count).view(groups, -1).flip(1).reshape(-1)


def shuffled_partner(count: int, generators: Sequence[Generator]) -> Int[Tensor, " count"]:
    """Return each row's partner: a random cycle through its group, so that no row is its own partner."""
    share = count // len(generators)
    partner = torch.empty(count, dtype=torch.long)
    for group, generator in enumerate(generators):
        cycle = torch.randperm(share, generator=generator)
        partner[group * share + cycle] = group * share + cycle.roll(-1)
    return partner


def check_partners(group_rows: int, order: PartnerOrder, key: str = "partner") -> None:
    """Refuse groups in which some row would be its own partner; ``key`` is the setting that says the order."""
    group = "a group is train.batch_size over the processes, train.accumulate and method.split_bn"
    if group_rows < 2:
        raise InputError(f"mixing needs a partner, but a group has {group_rows} image ({group}); make groups larger")
    if order == "reverse" and group_rows % 2:
        raise InputError(
            f"{key}=reverse: the middle of {group_rows} images would mix with itself ({group}); make groups even, "
            f"or set {key}=shuffle"
        )
