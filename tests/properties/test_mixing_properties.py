"""A mask hides exactly what was asked; pixels, shares, partners and draws belong to rows, whatever the batch."""

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch import Generator, Tensor

from core.errors import InputError
from core.plugins import find, names
from pretrain.branches import Draws, visible_share
from pretrain.branches.mixmask import MixMask
from pretrain.branches.mscn import Mscn
from pretrain.drawing import check_partners, reversed_partner, shuffled_partner
from pretrain.losses import info_nce
from pretrain.masks import ROUNDING, GridMask, Mask
from pretrain.masks.block import Block
from pretrain.masks.channelwise import Channelwise
from pretrain.masks.discrete import Discrete
from pretrain.masks.focal import Focal
from pretrain.methods import MomentumMethod
from pretrain.objective import Objective, mixed_loss

ALL = [find("pretrain.masks", name) for name in names("pretrain.masks")]
MAKERS = st.sampled_from([mask for mask in ALL if issubclass(mask, GridMask)])
SEEDS = st.integers(0, 2**63 - 1)


def draw(maker: Mask, seed: int, size: int) -> Tensor:
    """Return the mask of one seed."""
    mask = maker.draw(Generator().manual_seed(seed), size)
    assert mask.dtype == torch.bool
    assert mask.shape[1:] == (size, size)
    return mask


@given(MAKERS, st.integers(2, 12), st.data(), SEEDS)
def test_a_fixed_ratio_hides_exactly_the_asked_cells(
    kind: type[GridMask], cells: int, data: st.DataObject, seed: int
) -> None:
    hidden, factor = data.draw(st.integers(1, cells**2 - 1)), data.draw(st.integers(1, 5))
    maker = kind(kind.Config(cells=cells, ratio=hidden / cells**2))
    maker.check(cells * factor)
    mask = draw(maker, seed, cells * factor)
    grid = mask[:, ::factor, ::factor]
    assert grid.sum(dim=(1, 2)).tolist() == [hidden] * len(mask)
    assert torch.equal(grid.repeat_interleave(factor, 1).repeat_interleave(factor, 2), mask)


@given(MAKERS, st.integers(2, 9), st.floats(0.001, 0.999), st.floats(0.001, 0.999), SEEDS)
@example(Block, 2, 0.001, 0.26, 0)
@example(Discrete, 2, 0.74, 0.999, 0)
def test_a_range_hides_a_share_within_it_and_never_all_or_none(
    kind: type[GridMask], cells: int, one: float, other: float, seed: int
) -> None:
    low, high = sorted((one, other))
    assume(max(math.ceil(low * cells**2), 1) <= min(math.floor(high * cells**2), cells**2 - 1))
    mask = draw(kind(kind.Config(cells=cells, ratio=(low, high))), seed, cells)
    hidden = mask.sum(dim=(1, 2))
    assert len(set(hidden.tolist())) == 1
    assert 1 <= hidden[0] <= cells**2 - 1
    assert low - ROUNDING <= hidden[0] / cells**2 <= high + ROUNDING


@given(MAKERS, st.integers(2, 9), st.floats(0.01, 0.99))
def test_a_ratio_that_no_number_of_cells_gives_is_refused(kind: type[GridMask], cells: int, ratio: float) -> None:
    wanted = ratio * cells**2
    assume(abs(wanted - round(wanted)) > 0.01)
    with pytest.raises(InputError, match=rf"{cells}x{cells} grid cannot hide exactly"):
        kind(kind.Config(cells=cells, ratio=ratio))


@given(MAKERS, st.integers(2, 16), st.integers(8, 256))
def test_a_grid_that_does_not_divide_the_image_is_refused(kind: type[GridMask], cells: int, size: int) -> None:
    maker = kind(kind.Config(cells=cells, ratio=1 / cells**2))
    if size % cells == 0:
        maker.check(size)
        assert draw(maker, 0, size).float().mean().item() == pytest.approx(1 / cells**2)
    else:
        with pytest.raises(InputError, match="does not fit"):
            maker.check(size)


@given(st.integers(2, 8), st.data(), SEEDS)
def test_a_channelwise_mask_hides_equally_many_in_each_channel(cells: int, data: st.DataObject, seed: int) -> None:
    hidden = data.draw(st.integers(1, cells**2 - 1))
    mask = draw(Channelwise(Channelwise.Config(cells=cells, ratio=hidden / cells**2)), seed, cells)
    assert mask.shape == (3, cells, cells)
    assert mask.sum(dim=(1, 2)).tolist() == [hidden] * 3


def test_channels_are_hidden_independently() -> None:
    maker = Channelwise(Channelwise.Config(cells=6, ratio=0.25))
    masks = torch.stack([draw(maker, seed, 6) for seed in range(200)])
    both = (masks[:, 0] & masks[:, 1]).float().mean().item()
    assert both == pytest.approx(0.25**2, abs=0.01)


@given(st.integers(2, 64), st.floats(0.01, 0.99), st.floats(0.01, 0.99), SEEDS)
def test_a_focal_mask_keeps_one_square_and_hides_the_rest(size: int, one: float, other: float, seed: int) -> None:
    low, high = sorted((one, other))
    maker = Focal(Focal.Config(ratio=(low, high)))
    assume(any(low <= 1 - (side / size) ** 2 <= high for side in range(1, size)))
    maker.check(size)
    mask = draw(maker, seed, size)
    visible = (~mask[0]).nonzero()
    (top, left), (bottom, right) = visible.min(dim=0).values.tolist(), visible.max(dim=0).values.tolist()
    side = bottom - top + 1
    assert right - left + 1 == side
    assert len(visible) == side**2
    assert 1 <= side <= size - 1
    assert low - ROUNDING <= 1 - (side / size) ** 2 <= high + ROUNDING


@pytest.mark.parametrize(("size", "ratio", "near"), [(32, (0.01, 0.02), "0.0615"), (4, (0.5, 0.6), "0.4375 or 0.7500")])
def test_a_focal_range_that_no_square_gives_is_refused_with_the_nearest_shares(
    size: int, ratio: Any, near: str
) -> None:
    with pytest.raises(InputError, match=rf"ratio: no square in {size} px .* take in {near}$"):
        Focal(Focal.Config(ratio=ratio)).check(size)


@given(MAKERS, SEEDS)
def test_one_seed_gives_one_mask(kind: type[GridMask], seed: int) -> None:
    maker = kind(kind.Config(cells=4, ratio=0.5))
    assert torch.equal(draw(maker, seed, 8), draw(maker, seed, 8))


@pytest.mark.parametrize("kind", [Block, Discrete])
def test_over_many_draws_no_cell_is_always_or_never_hidden(kind: type[GridMask]) -> None:
    maker = kind(kind.Config(cells=4, ratio=0.5))
    share = torch.stack([draw(maker, seed, 4)[0] for seed in range(300)]).float().mean(dim=0)
    assert share.min() > 0.25
    assert share.max() < 0.75


def test_block_masks_hang_together_more_than_independent_cells() -> None:
    joins = {}
    for kind in (Block, Discrete):
        maker = kind(kind.Config(cells=8, ratio=0.5))
        masks = torch.stack([draw(maker, seed, 8)[0] for seed in range(60)])
        joins[kind] = (masks[:, :, 1:] == masks[:, :, :-1]).float().mean().item()
    assert joins[Block] > joins[Discrete] + 0.15


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
