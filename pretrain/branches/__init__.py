"""Branches: views in which something is masked or mixed, scored by the same formula for every method.

A branch turns the two clean views into a ``Mixed`` view; the objective scores it with
``lam * L(q, k) + (1 - lam) * L(q, k[partner])``. Erasing is ``lam = 1``. To add one, write ``pretrain/branches/NAME.py``
with a class named like the file that extends ``Branch`` and has a ``Config``; then name it in a config:
``branches.LABEL: {name: NAME}``. The label becomes the metric's name (``loss/LABEL``, ``lam/LABEL``).
"""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Generator, Tensor

from core.config import PluginSettings
from core.provenance import derive
from pretrain.drawing import Generators, Kept
from pretrain.saliency import Features


class Mixed(NamedTuple):
    """What a branch makes of a batch.

    ``partner`` is None where nothing is mixed in (then ``lam`` does not weigh), ``key`` where the clean key view is compared
    with, ``mask`` where whole images are blended. ``both_keys`` compares with the element-wise maximum of both clean views'
    keys. ``hard`` is a view whose key is one more negative for its row, its logit times ``alpha``.
    """

    query: Float[Tensor, "batch 3 height width"]
    partner: Int[Tensor, " batch"] | None
    lam: Float[Tensor, " batch"]
    mask: Bool[Tensor, "batch channels height width"] | None = None
    key: Float[Tensor, "batch 3 height width"] | None = None
    both_keys: bool = False
    hard: Float[Tensor, "batch 3 height width"] | None = None
    alpha: float = 1.0


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
    kept: Kept | None = None  # what was drawn of this step before

    def rows(self, count: int, purpose: str) -> Generators:
        """Return one generator for each of ``count`` local rows."""

        def make(row: int) -> Generator:
            return self._generator(purpose, "row", self.first_row + row)

        return Generators(count, make, f"{self.label}/{purpose}/rows", self.kept)

    def per_group(self, count: int, purpose: str) -> Generators:
        """Return one generator for each local group of a batch of ``count`` rows."""
        first = self.first_row * self.groups // count

        def make(group: int) -> Generator:
            return self._generator(purpose, "group", first + group)

        return Generators(self.groups, make, f"{self.label}/{purpose}/groups", self.kept)

    def _generator(self, *what: str | int) -> Generator:
        return Generator().manual_seed(derive(self.seed, self.step, self.label, *what))


class BranchSettings(PluginSettings):
    """``weight`` of the branch's loss beside the plain one."""

    weight: float = Field(1.0, gt=0)


class Branch(ABC):
    """Makes one mixed view a step."""

    Config: ClassVar[type[BranchSettings]]
    config: BranchSettings
    hard_negatives: bool = False  # needs a contrastive method
    changes_query: bool = True  # else only the key view is mixed or masked
    needs_keys: bool = False  # compares with more than the clean key, which labels are not

    @abstractmethod
    def mix(
        self,
        query: Float[Tensor, "batch 3 height width"],
        key: Float[Tensor, "batch 3 height width"],
        draws: Draws,
        features: Features | None = None,
    ) -> Mixed:
        """Return the mixed view of a clean query view (and, for branches that change it too, of the key view).

        ``features`` gives the key backbone's feature maps, for masks that follow the objects.
        """

    def check(self, size: int, group_rows: int) -> None:
        """Raise InputError when images of ``size`` pixels or groups of ``group_rows`` cannot be mixed."""


def visible_share(mask: Bool[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """Measure lam: the share of each anchor that is still visible."""
    return 1 - mask.float().mean(dim=(1, 2, 3))
