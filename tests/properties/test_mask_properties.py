"""A mask hides exactly what was asked, in whole cells, never all or none; what cannot be hidden exactly is refused."""

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch import Generator, Tensor

from core.errors import InputError
from core.plugins import find, names
from pretrain.masks import ROUNDING, GridMask, Mask
from pretrain.masks.block import Block
from pretrain.masks.channelwise import Channelwise
from pretrain.masks.discrete import Discrete
from pretrain.masks.focal import Focal

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
