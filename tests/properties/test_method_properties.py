"""Rows stay rows in every method's loss, and losses keep the bounds and symmetries of their formulas."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.backbones import Backbone, Rules
from core.plugins import find, names
from pretrain.methods import Method
from pretrain.objective import mixed_loss

SEEDS = st.integers(0, 2**32)
SMALL: dict[str, dict[str, Any]] = {
    "moco": {"queue": 8, "dim": 5, "hidden": 4}, "simclr": {"dim": 5, "hidden": 4}, "byol": {"dim": 5, "hidden": 4},
    "simsiam": {"dim": 5, "hidden": 4, "bottleneck": 3}, "supervised": {"classes": 5},
}  # fmt: skip


class Nothing(Backbone):
    """A backbone of no weights, since only losses are looked at."""

    feature_dim = 1

    def stages(self, images: Tensor) -> list[Tensor]:
        """Return the images' first channel."""
        return [images[:, :1]]

    @classmethod
    def rename_rules(cls, framework: str) -> Rules:
        """Return nothing."""
        return []


def make(name: str) -> Method:
    """Return a small method in float64."""
    kind = find("pretrain.methods", name)
    torch.manual_seed(0)
    return kind(kind.Config(**SMALL[name]), Nothing()).double()


MADE = {name: make(name) for name in names("pretrain.methods")}
METHODS = st.sampled_from(sorted(MADE)).map(MADE.__getitem__)
SIAMESE = st.sampled_from(sorted(set(MADE) - {"supervised"})).map(MADE.__getitem__)
CONTRASTIVE = st.sampled_from(sorted(name for name in MADE if MADE[name].contrastive)).map(MADE.__getitem__)


def rows(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return three batches of rows of any length."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(3, count, 5, generator=generator, dtype=torch.float64)
    return tuple(found * torch.rand(3, count, 1, generator=generator, dtype=torch.float64).add(0.1).mul(9))  # type: ignore[return-value]


def test_the_sizes_above_name_every_method() -> None:
    assert sorted(SMALL) == sorted(MADE)
    assert [name for name in MADE if MADE[name].contrastive] == ["moco", "simclr"]


@given(METHODS, st.integers(2, 9), SEEDS, st.randoms(use_true_random=False))
def test_rows_stay_rows(method: Method, count: int, seed: int, random: Any) -> None:
    query, key, _ = rows(count, seed)
    order = torch.tensor(random.sample(range(count), count))
    found = method.loss(query, key)
    assert found.shape == (count,)
    torch.testing.assert_close(method.loss(query[order], key[order]), found[order])


@given(CONTRASTIVE, st.integers(2, 9), SEEDS, st.floats(0.1, 5), st.randoms(use_true_random=False))
def test_rows_stay_rows_with_hard_negatives_and_each_belongs_to_its_own(
    method: Method, count: int, seed: int, alpha: float, random: Any
) -> None:
    query, key, hard = rows(count, seed)
    order = torch.tensor(random.sample(range(count), count))
    found = method.loss(query, key, hard, alpha)
    torch.testing.assert_close(method.loss(query[order], key[order], hard[order], alpha), found[order])
    assert (found >= method.loss(query, key)).all()  # equal where the hard negative's share is below rounding
    changed = hard.clone()
    changed[0] = query[0]  # the hardest there is
    other = method.loss(query, key, changed, alpha)
    assert other[0] >= found[0]
    torch.testing.assert_close(other[1:], found[1:])


@given(METHODS, st.integers(2, 9), SEEDS, st.randoms(use_true_random=False))
def test_rows_stay_rows_in_the_loss_of_mixed_views(method: Method, count: int, seed: int, random: Any) -> None:
    query, key, shares = rows(count, seed)
    lam = shares[:, 0].sigmoid()
    order, partner = (torch.tensor(random.sample(range(count), count)) for _ in range(2))
    moved = order.argsort()[partner[order]]  # where each row's partner is after the move
    found = mixed_loss(method, query, key, partner, lam)
    torch.testing.assert_close(mixed_loss(method, query[order], key[order], moved, lam[order]), found[order])


@given(SIAMESE, st.integers(2, 6), SEEDS, st.floats(0.01, 100), st.floats(0.01, 100))
def test_lengths_of_queries_and_keys_do_not_count(
    method: Method, count: int, seed: int, one: float, other: float
) -> None:
    query, key, _ = rows(count, seed)
    torch.testing.assert_close(method.loss(one * query, other * key), method.loss(query, key))


@given(SIAMESE, st.integers(2, 6), SEEDS)
def test_no_key_scores_better_than_the_query_itself(method: Method, count: int, seed: int) -> None:
    query, key, _ = rows(count, seed)
    if type(method).__name__ == "Simclr":  # other rows' keys are negatives: change one row at a time
        best = query.clone()
        own, others = torch.stack([method.loss(query, torch.where(torch.arange(count)[:, None] == row, best, key))[row]
                                   for row in range(count)]), method.loss(query, key)  # fmt: skip
    else:
        own, others = method.loss(query, query), method.loss(query, key)
    assert (own <= others + 1e-12).all()


@given(SEEDS)
def test_cosine_losses_keep_their_ranges(seed: int) -> None:
    query, key, _ = rows(6, seed)
    byol, simsiam = MADE["byol"].loss(query, key), MADE["simsiam"].loss(query, key)
    assert ((byol >= 0) & (byol <= 4)).all()
    assert ((simsiam >= -1) & (simsiam <= 1)).all()
    torch.testing.assert_close(byol, 2 + 2 * simsiam)


@pytest.mark.parametrize("name", sorted(MADE))
def test_half_precision_rows_are_scored_in_single(name: str) -> None:
    query, key, _ = rows(4, 3)
    method = make(name).float()
    found = method.loss(query.bfloat16(), key.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, make(name).loss(query.bfloat16().double(), key.bfloat16().double()).float())
