"""Mixed views and their loss: pixels, shares, partners and draws belong to rows, whatever the batch or the processes."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.errors import InputError
from pretrain.branches import Draws, visible_share
from pretrain.branches.mixmask import MixMask
from pretrain.branches.mscn import Mscn
from pretrain.losses import info_nce
from pretrain.methods import MomentumMethod
from pretrain.objective import Objective, mixed_loss
from pretrain.partners import check_partners, reversed_partner, shuffled_partner

SEEDS = st.integers(0, 2**32)
MASKS = st.sampled_from([
    {"name": "block", "cells": 4, "ratio": 0.5}, {"name": "discrete", "cells": 4, "ratio": [0.1, 0.9]},
    {"name": "channelwise", "cells": 2, "ratio": 0.25}, {"name": "focal", "ratio": [0.2, 0.8]},
])  # fmt: skip
MSCN = Mscn(Mscn.Config.model_validate({"cell": 4, "ratio": [0.1, 0.6]}))


class Contrast(MomentumMethod):
    """Only what a branch's loss needs of a method: features are pixels."""

    symmetric, groups = False, 1

    def __init__(self, negatives: Tensor) -> None:
        super().__init__()
        self.negatives = negatives

    def embed(self, images: Tensor) -> Tensor:
        """Return the first row of the first channel."""
        return images[:, 0, 0]

    def encode_key(self, images: Tensor, order: Tensor | None = None) -> Tensor:
        """Return the last row of the last channel."""
        return images[:, -1, -1]

    def loss(self, query: Tensor, key: Tensor, hard: Tensor | None = None, alpha: float = 1.0) -> Tensor:
        """InfoNCE."""
        return info_nce(query, key, self.negatives, 0.2)


def images(count: int, seed: int, size: int = 8) -> tuple[Tensor, Tensor]:
    """Return two views whose every pixel is its own number."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, count, 3, size, size)
    numbers = torch.randperm(2 * count * 3 * size * size, generator=generator).double().view(shape)
    return numbers[0] / numbers.numel(), numbers[1] / numbers.numel()


def mixmask(**config: Any) -> MixMask:
    """Return MixMask of these settings."""
    return MixMask(MixMask.Config.model_validate({"mask": {"name": "block", "cells": 4, "ratio": 0.5}} | config))


def rows(count: int, seed: int) -> tuple[Tensor, Tensor, Contrast, Tensor]:
    """Return queries, keys, a method and shares."""
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, count, 6, generator=generator, dtype=torch.float64)
    negatives = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    return query, key, Contrast(negatives), torch.rand(count, generator=generator, dtype=torch.float64)


@given(MASKS, st.integers(2, 7), SEEDS, st.sampled_from(["reverse", "shuffle"]), st.sampled_from(["image", "batch"]))
def test_each_pixel_comes_from_anchor_or_partner_and_lam_is_the_anchors_share(
    mask: dict, count: int, seed: int, how: str, scope: str
) -> None:
    query, key = images(count, seed)
    mixed = mixmask(mask=mask, partner=how, scope=scope).mix(query, key, Draws(seed, 1, "filled/0"))
    own, other = mixed.query == query, mixed.query == query[mixed.partner]
    assert (own | other).all()
    assert torch.equal(mixed.query, torch.where(mixed.mask, query[mixed.partner], query))
    apart = mixed.partner != torch.arange(count)  # the middle of an odd reversed batch is its own partner
    assert apart.sum() >= count - 1
    share = own.double().mean(dim=(1, 2, 3))
    assert mixed.lam[apart].tolist() == pytest.approx(share[apart].tolist(), abs=1e-6)
    assert ((mixed.lam > 0) & (mixed.lam < 1)).all()
    if scope == "batch":
        assert (mixed.mask == mixed.mask[0]).all()


@given(st.integers(1, 6), SEEDS)
def test_erasing_branches_report_that_nothing_was_mixed_in(count: int, seed: int) -> None:
    mixed = MSCN.mix(*images(count, seed), Draws(seed, 0, "masked/0"))
    assert mixed.partner is None
    assert mixed.lam.tolist() == [1.0] * count
    hidden = mixed.mask.flatten(2).sum(dim=2)
    assert (hidden == hidden[:, :1]).all()
    assert ((hidden > 0) & (hidden < 64)).all()


@given(st.integers(1, 4), st.sampled_from([1, 3]), SEEDS)
def test_lam_counts_every_channel_also_where_channels_hide_unequally(count: int, channels: int, seed: int) -> None:
    mask = torch.rand(count, channels, 5, 5, generator=torch.Generator().manual_seed(seed)) < 0.5
    shares = [sum(not hidden for hidden in row.flatten().tolist()) / (channels * 25) for row in mask]
    assert visible_share(mask).tolist() == pytest.approx(shares, abs=1e-6)


@given(st.integers(2, 9), SEEDS, st.randoms(use_true_random=False))
def test_rows_stay_rows_in_both_losses(count: int, seed: int, random: Any) -> None:
    query, key, method, lam = rows(count, seed)
    order = torch.tensor(random.sample(range(count), count))
    partner = torch.tensor(random.sample(range(count), count))
    moved = order.argsort()[partner[order]]  # where each row's partner is after the move
    torch.testing.assert_close(method.loss(query[order], key[order]), method.loss(query, key)[order])
    mixed = mixed_loss(method, query, key, partner, lam)
    torch.testing.assert_close(mixed_loss(method, query[order], key[order], moved, lam[order]), mixed[order])


@given(st.integers(2, 9), SEEDS)
def test_lam_of_one_is_the_plain_loss_and_of_zero_the_partners(count: int, seed: int) -> None:
    query, key, method, lam = rows(count, seed)
    partner = reversed_partner(count, 1)
    one, zero = torch.ones_like(lam), torch.zeros_like(lam)
    assert torch.equal(mixed_loss(method, query, key, partner, one), method.loss(query, key))
    assert torch.equal(mixed_loss(method, query, key, partner, zero), method.loss(query, key[partner]))


@given(st.integers(1, 5), SEEDS)
def test_swapping_anchor_and_partner_with_one_less_lam_changes_nothing(half: int, seed: int) -> None:
    query, key, method, lam = rows(2 * half, seed)
    partner = reversed_partner(2 * half, 1)  # its own inverse
    found = mixed_loss(method, query, key[partner], partner, 1 - lam)
    torch.testing.assert_close(found, mixed_loss(method, query, key, partner, lam))


@given(MASKS, st.integers(1, 3), SEEDS)
def test_objective_averages_rows_and_weights_parts(mask: dict, half: int, seed: int) -> None:
    query, key = images(2 * half, seed)
    method = Contrast(torch.randn(8, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    branch = mixmask(mask=mask, weight=0.25)
    scored = Objective(method, {"filled": branch}, 2.0, seed)(query, key, 4)
    mixed = branch.mix(query, key, Draws(seed, 4, "filled/0"))
    own = method.loss(mixed.query[:, 0, 0], key[:, -1, -1])
    other = method.loss(mixed.query[:, 0, 0], key[:, -1, -1].flip(0))
    plain = method.loss(query[:, 0, 0], key[:, -1, -1]).mean()
    wanted = 2.0 * plain + 0.25 * (mixed.lam * own + (1 - mixed.lam) * other).mean()
    assert scored.loss.item() == pytest.approx(wanted.item(), rel=1e-9)
    assert scored.parts["loss/plain"].item() == pytest.approx(plain.item(), rel=1e-12)


@given(
    st.integers(1, 4), st.integers(2, 4), SEEDS,
    st.sampled_from(["reverse", "shuffle"]), st.sampled_from(["image", "batch"]),
)  # fmt: skip
def test_processes_draw_for_their_rows_what_one_process_with_as_many_groups_draws(
    world: int, share: int, seed: int, how: str, scope: str
) -> None:
    query, key = images(world * share, seed)
    branch = mixmask(partner=how, scope=scope)
    whole = branch.mix(query, key, Draws(seed, 5, "filled/0", 0, world))
    for rank in range(world):
        mine = slice(rank * share, (rank + 1) * share)
        part = branch.mix(query[mine], key[mine], Draws(seed, 5, "filled/0", rank * share, 1))
        assert torch.equal(part.query, whole.query[mine])
        assert torch.equal(part.partner + rank * share, whole.partner[mine])
        assert torch.equal(part.lam, whole.lam[mine])


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), SEEDS)
def test_rows_of_an_erasing_branch_do_not_depend_on_how_the_batch_is_cut(shares: list[int], seed: int) -> None:
    query, key = images(sum(shares), seed)
    whole = MSCN.mix(query, key, Draws(seed, 5, "masked/0"))
    first = 0
    for share in shares:
        part = MSCN.mix(query[first : first + share], key[first : first + share], Draws(seed, 5, "masked/0", first))
        assert torch.equal(part.mask, whole.mask[first : first + share])
        # the filter's convolution may add in another order in another batch
        torch.testing.assert_close(part.query, whole.query[first : first + share])
        torch.testing.assert_close(part.key, whole.key[first : first + share])
        first += share


@given(st.integers(0, 2**62), st.integers(0, 10**6), st.integers(0, 10**6))
def test_draws_differ_between_rows_steps_labels_and_purposes(seed: int, step: int, row: int) -> None:
    def number(draws: Draws, purpose: str = "mask") -> float:
        return torch.rand((), dtype=torch.float64, generator=draws.rows(1, purpose)[0]).item()

    base = number(Draws(seed, step, "a/0", row))
    others = [
        number(Draws(seed + 1, step, "a/0", row)), number(Draws(seed, step + 1, "a/0", row)),
        number(Draws(seed, step, "a/1", row)), number(Draws(seed, step, "b/0", row)),
        number(Draws(seed, step, "a/0", row + 1)), number(Draws(seed, step, "a/0", row), "partner"),
    ]  # fmt: skip
    assert base == number(Draws(seed, step, "a/0", row))
    assert len({base, *others}) == 7


@given(st.integers(1, 5), st.integers(1, 8), SEEDS)
def test_partners_are_permutations_inside_their_group(groups: int, share: int, seed: int) -> None:
    count = groups * share
    generators = Draws(seed, 0, "x", 0, groups).per_group(count, "partner")
    for partner in (reversed_partner(count, groups), shuffled_partner(count, generators)):
        assert sorted(partner.tolist()) == list(range(count))
        assert torch.equal(partner // share, torch.arange(count) // share)


@given(st.integers(1, 4), st.integers(1, 9), SEEDS, st.sampled_from(["reverse", "shuffle"]))
def test_no_row_is_its_own_partner_where_the_check_passes(groups: int, share: int, seed: int, how: str) -> None:
    count = groups * share
    partner = reversed_partner(count, groups)
    if how == "shuffle":
        partner = shuffled_partner(count, Draws(seed, 0, "x", 0, groups).per_group(count, "partner"))
    alone = (partner == torch.arange(count)).any().item()
    try:
        check_partners(share, how)
    except InputError:
        assert alone
    else:
        assert not alone


def test_every_row_meets_every_other_over_many_shuffles() -> None:
    met = torch.zeros(5, 5)
    for seed in range(400):
        partner = shuffled_partner(5, [torch.Generator().manual_seed(seed)])
        met[torch.arange(5), partner] += 1
    assert met.diagonal().sum() == 0
    assert met[~torch.eye(5, dtype=torch.bool)].min() > 60  # 100 expected
