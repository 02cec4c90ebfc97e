"""Branches: views in which something is masked or mixed, scored by the same formula for every method.

A branch turns the two clean views into a ``Mixed`` view; the objective scores it with
``lam * L(q, k) + (1 - lam) * L(q, k[partner])``. Erasing is ``lam = 1``. To add one, write ``pretrain/branches/NAME.py``
with a class named like the file that extends ``Branch`` and has a ``Config``; then name it in a config:
``branches.LABEL: {name: NAME}``. The label becomes the metric's name (``loss/LABEL``, ``lam/LABEL``).
"""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Generator, Tensor

from core.config import PluginSettings
from core.errors import InputError
from core.provenance import derive


class Mixed(NamedTuple):
    """What a branch makes of a batch.

    ``partner`` is None where nothing is mixed in (then ``lam`` is 1), ``key`` where the clean key view is compared with.
    """

    query: Float[Tensor, "batch 3 height width"]
    partner: Int[Tensor, " batch"] | None
    lam: Float[Tensor, " batch"]
    mask: Bool[Tensor, "batch channels height width"]
    key: Float[Tensor, "batch 3 height width"] | None = None


class Draws(NamedTuple):
    """The randomness of one branch in one step: a generator for each global row or group, whatever the number of processes.

    ``groups`` is how many groups of rows this process holds: partners are found inside a group, and ``scope: batch`` draws
    one mask a group. A group is one process's batch (or one of ``method.split_bn`` parts of it).
    """

    seed: int
    step: int
    label: str
    first_row: int = 0
    groups: int = 1

    def rows(self, count: int, purpose: str) -> list[Generator]:
        """Return one generator for each of ``count`` local rows."""
        return [self._generator(purpose, "row", self.first_row + row) for row in range(count)]

    def per_group(self, count: int, purpose: str) -> list[Generator]:
        """Return one generator for each local group of a batch of ``count`` rows."""
        first = self.first_row * self.groups // count
        return [self._generator(purpose, "group", first + group) for group in range(self.groups)]

    def _generator(self, *what: str | int) -> Generator:
        return Generator().manual_seed(derive(self.seed, self.step, self.label, *what))


class BranchSettings(PluginSettings):
    """``weight`` of the branch's loss beside the plain one."""

    weight: float = Field(1.0, gt=0)


class Branch(ABC):
    """Makes one mixed view a step."""

    Config: ClassVar[type[BranchSettings]]
    config: BranchSettings

    @abstractmethod
    def mix(
        self, query: Float[Tensor, "batch 3 height width"], key: Float[Tensor, "batch 3 height width"], draws: Draws
    ) -> Mixed:
        """Return the mixed view of a clean query view (and, for branches that change it too, of the key view)."""

    def check(self, size: int, group_rows: int) -> None:
        """Raise InputError when images of ``size`` pixels or groups of ``group_rows`` cannot be mixed."""


def reversed_partner(count: int, groups: int) -> Int[Tensor, " count"]:
    """Return each row's partner: its group read backwards."""
    return torch.arange(count).view(groups, -1).flip(1).reshape(-1)


def shuffled_partner(count: int, generators: list[Generator]) -> Int[Tensor, " count"]:
    """Return each row's partner: a random cycle through its group, so that no row is its own partner."""
    share = count // len(generators)
    partner = torch.empty(count, dtype=torch.long)
    for group, generator in enumerate(generators):
        cycle = torch.randperm(share, generator=generator)
        partner[group * share + cycle] = group * share + cycle.roll(-1)
    return partner


def check_partners(group_rows: int, how: str) -> None:
    """Refuse groups in which some row would be its own partner."""
    if group_rows < 2:
        raise InputError(f"mixing needs a partner, but a group has {group_rows} image; raise train.batch_size")
    if how == "reverse" and group_rows % 2:
        raise InputError(
            f"with partner=reverse the middle of {group_rows} images would mix with itself; use an even batch, or partner=shuffle"
        )


def visible_share(mask: Bool[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """Measure lam: the share of each anchor that is still visible."""
    return 1 - mask.float().mean(dim=(1, 2, 3))
