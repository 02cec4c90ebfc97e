"""What is drawn on the host, once: ahead by a worker of the data loader, or when a branch asks for it; partners too."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from core.errors import InputError

Kept = dict[str, Tensor]  # by label, purpose and name


class Generators(Sequence[Generator]):
    """Generators that are made when they are drawn from, and with ``kept`` what was drawn from them before."""

    def __init__(self, count: int, make: Callable[[int], Generator], key: str, kept: Kept | None) -> None:
        self._made: list[Generator] | None = None
        self._count, self._make, self.key, self.kept = count, make, key, kept

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number):
        """Return one generator, or several."""
        if self._made is None:
            assert not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()), (
                f"a captured step cannot draw {self.key} on the host: draw it through pretrain.drawing.once"
            )
            self._made = [self._make(row) for row in range(self._count)]
        return self._made[number]

    def __iter__(self) -> Iterator[Generator]:
        return iter(self[:])


def once(generators: Sequence[Generator], name: str, make: Callable[[], Tensor]) -> Tensor:
    """Return what was drawn from these generators under this name, or draw it now and keep it."""
    if not isinstance(generators, Generators) or generators.kept is None:
        return make()
    key = f"{generators.key}/{name}"
    if key not in generators.kept:
        generators.kept[key] = make()
    return generators.kept[key]


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
