"""Whatever branch, mask and fill: what is visible stays as it was, what is hidden is the asked share, and lam says so."""

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from torch import Generator, Tensor

from core.errors import InputError
from core.plugins import find, names
from pretrain.branches import Branch, Draws, Mixed
from pretrain.fills import noise_from
from pretrain.masks.balanced import Balanced

SEEDS = st.integers(0, 2**32)
MASK_SETTINGS: dict[str, dict[str, Any]] = {
    "block": {"cells": 4, "ratio": 0.5}, "discrete": {"cells": 4, "ratio": [0.1, 0.9]},
    "channelwise": {"cells": 2, "ratio": 0.25}, "focal": {"ratio": [0.2, 0.8]}, "balanced": {"cells": 4, "ratio": 0.25},
}  # fmt: skip
FILL_SETTINGS: dict[str, dict[str, Any]] = {
    "partner": {}, "zero": {}, "mean": {}, "noise": {}, "blur": {"kernel": 5, "sigma": 2.0}, "highpass": {"kernel": 5},
}  # fmt: skip
MASKS = st.sampled_from([{"name": name} | given for name, given in MASK_SETTINGS.items()])
FILLS = st.sampled_from([{"name": name} | given for name, given in FILL_SETTINGS.items()])
ERASING = FILLS.filter(lambda fill: fill["name"] != "partner")


def features(images: Tensor, stage: int, network: object = None) -> Tensor:
    """Stand in for the key backbone: a map of cells whose first corner is bright, another one in each image."""
    maps = torch.nn.functional.avg_pool2d(images.float(), 2)
    return maps + stage


def views(count: int, seed: int, size: int = 8) -> tuple[Tensor, Tensor]:
    """Return two views whose every pixel is its own number, none zero."""
    shape = (2, count, 3, size, size)
    numbers = torch.randperm(math.prod(shape), generator=Generator().manual_seed(seed)).double().view(shape) + 1
    return numbers[0] / numbers.numel(), numbers[1] / numbers.numel()


def branch(name: str, **config: Any) -> Branch:
    """Return a branch."""
    kind = find("pretrain.branches", name)
    return kind(kind.Config.model_validate(config))


def mix(maker: Branch, query: Tensor, key: Tensor, seed: int, first_row: int = 0, groups: int = 1) -> Mixed:
    """Return one step's mixture."""
    return maker.mix(query, key, Draws(seed, 1, "b/0", first_row, groups), features)


@given(MASKS, st.integers(2, 6), SEEDS, st.sampled_from(["reverse", "shuffle"]), st.booleans())
def test_each_pixel_is_the_anchors_or_the_partners_and_lam_is_the_share(
    mask: dict, count: int, seed: int, order: str, free: bool
) -> None:
    query, key = views(count, seed)
    if free:
        maker = branch("masked", mask=mask, fill={"name": "partner", "order": order})
    else:
        maker = branch("mixmask", mask=mask, partner=order)
    mixed = mix(maker, query, key, seed)
    assert torch.equal(mixed.query, torch.where(mixed.mask, query[mixed.partner], query))
    own = (mixed.query == query).double().mean(dim=(1, 2, 3))
    apart = mixed.partner != torch.arange(count)  # the middle of an odd reversed batch is its own partner
    assert mixed.lam[apart].tolist() == pytest.approx(own[apart].tolist(), abs=1e-6)
    assert ((mixed.lam > 0) & (mixed.lam < 1)).all()
    assert mixed.key is None


@given(MASKS, ERASING, st.sampled_from(["query", "key", "both"]), st.integers(1, 4), SEEDS)
def test_every_mask_and_fill_erases_any_side_and_leaves_visible_pixels_untouched(
    mask: dict, fill: dict, sides: str, count: int, seed: int
) -> None:
    query, key = views(count, seed)
    mixed = mix(branch("masked", mask=mask, fill=fill, sides=sides), query, key, seed)
    assert mixed.partner is None
    assert mixed.lam.tolist() == [1.0] * count
    assert (mixed.query is query) == (sides == "key")
    assert (mixed.key is None) == (sides == "query")
    for shown, clean in ((mixed.query, query), (mixed.key, key)):
        if shown is None or shown is clean:
            continue
        changed = shown != clean
        hidden = changed.flatten(1).double().mean(dim=1)
        assert ((hidden > 0) & (hidden < 1)).all()
        if shown is mixed.query:
            assert not (changed & ~mixed.mask).any()
            assert (
                changed == mixed.mask.expand_as(changed)
            ).double().mean() > 0.9  # a fill may hit a pixel's own value


@given(st.integers(2, 6), SEEDS)
def test_mixup_is_a_convex_combination(count: int, seed: int) -> None:
    query, key = views(count, seed)
    for maker, other in (
        (branch("unmix", mixup_probability=1.0), lambda mixed: query[mixed.partner]),
        (branch("mixsiam"), lambda _: key),
    ):
        mixed = mix(maker, query, key, seed)
        second = other(mixed)
        assert (mixed.query >= torch.minimum(query, second) - 1e-12).all()
        assert (mixed.query <= torch.maximum(query, second) + 1e-12).all()
        assert ((mixed.lam >= 0) & (mixed.lam <= 1)).all()
        lam = mixed.lam.double().view(-1, 1, 1, 1)
        torch.testing.assert_close(mixed.query - second, lam * (query - second), rtol=1e-9, atol=1e-12)


@given(st.integers(2, 6), SEEDS, st.floats(0.2, 5))
def test_pasted_boxes_are_rectangles_of_the_partner(count: int, seed: int, alpha: float) -> None:
    query, key = views(count, seed)
    for maker in (branch("unmix", mixup_probability=0.0, alpha=alpha), branch("mixsiam", mix="cutmix", alpha=alpha)):
        mixed = mix(maker, query, key, seed)
        other = key if mixed.partner is None else query[mixed.partner]
        assert torch.equal(mixed.query, torch.where(mixed.mask, other, query))
        for box, lam in zip(mixed.mask[:, 0], mixed.lam.tolist(), strict=True):
            down, across = box.any(dim=1), box.any(dim=0)
            assert torch.equal(box, down[:, None] & across[None])
            for line in (down, across):
                assert (line[1:] & ~line[:-1]).sum() + line[0].long() <= 1  # one piece
            assert lam == pytest.approx(1 - box.double().mean().item(), abs=1e-6)


@given(st.sampled_from(names("pretrain.branches")), st.integers(1, 3), st.integers(1, 3), SEEDS)
def test_draws_are_the_same_on_any_number_of_processes(name: str, half: int, world: int, seed: int) -> None:
    world, share = 2**world, 2 * half
    given = {"mask": {"name": "balanced", "cells": 4, "ratio": 0.5}} if name in ("mixmask", "masked") else {}
    if name == "masked":
        given["fill"] = {"name": "partner", "order": "shuffle"}
    if name == "saliency":
        given = {"cells": 4, "ratio": [0.2, 0.5], "fill": {"name": "noise"}}
    if name == "mscn":
        given = {"cell": 2, "ratio": [0.2, 0.5], "high_pass": False}
    maker = branch(name, **given)
    query, key = views(world * share, seed)
    whole = mix(maker, query, key, seed, groups=world)
    for rank in range(world):
        mine = slice(rank * share, (rank + 1) * share)
        part = mix(maker, query[mine], key[mine], seed, rank * share)
        assert torch.equal(part.query, whole.query[mine])
        assert torch.equal(part.lam, whole.lam[mine])
        if whole.key is not None:
            assert torch.equal(part.key, whole.key[mine])
        if whole.hard is not None:
            assert torch.equal(part.hard, whole.hard[mine])
        if whole.partner is not None:
            assert torch.equal(part.partner + rank * share, whole.partner[mine])


@given(st.integers(2, 7), st.data(), SEEDS, st.integers(1, 3), st.floats(0, 1.5))
def test_balanced_masks_share_out_the_asked_cells_exactly(
    cells: int, data: st.DataObject, seed: int, factor: int, spread: float
) -> None:
    asked = data.draw(st.integers(1, cells**2 - 1))
    values = {"cells": cells, "ratio": asked / cells**2, "saliency": {"spread": spread}}
    maker = Balanced(Balanced.Config.model_validate(values))
    maps = torch.randn(5, 2, cells, cells, generator=Generator().manual_seed(seed))
    images = torch.zeros(5, 3, cells * factor, cells * factor)
    generators = Draws(seed, 1, "b/0").rows(5, "mask")
    mask = maker.masks(images, generators, lambda *_: maps)
    grid = mask[:, 0, ::factor, ::factor]
    assert torch.equal(grid.repeat_interleave(factor, 1).repeat_interleave(factor, 2), mask[:, 0])
    front = maker.saliency.foreground(images, lambda *_: maps, cells)
    for one, seen in zip(grid, front, strict=True):
        area, hidden = int(seen.sum()), int((one & seen).sum())
        assert int(one.sum()) == asked
        exact = asked * area / cells**2
        assert math.floor(exact) <= hidden <= math.ceil(exact)
        assert abs(hidden - exact) <= 0.5 + 1e-9
        assert area >= 1


def test_balanced_masks_hide_every_foreground_cell_sometimes() -> None:
    maker = Balanced(Balanced.Config.model_validate({"cells": 4, "ratio": 0.25, "saliency": {"spread": 0.0}}))
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 1:3, 1:3] = 1.0
    images, met = torch.zeros(1, 3, 4, 4), torch.zeros(4, 4)
    for seed in range(400):
        mask = maker.masks(images, Draws(seed, 1, "b/0").rows(1, "mask"), lambda *_: maps)[0, 0]
        assert mask[1:3, 1:3].sum() == 1  # a quarter of the object, and a quarter of what is around it
        assert mask.sum() == 4
        met += mask
    assert met.min() > 60  # 100 expected


@given(st.integers(1, 6), st.floats(0.05, 0.9), st.floats(0.05, 0.9), SEEDS)
def test_hard_negatives_hide_the_asked_share_of_the_object_and_nothing_else(
    count: int, one: float, other: float, seed: int
) -> None:
    low, high = sorted((one, other))
    query, key = views(count, seed)
    maker = branch("saliency", cells=4, ratio=[0.1, 0.5], hard_ratio=[low, high], fill={"name": "zero"})
    mixed = mix(maker, query, key, seed)
    front = maker.attention.foreground(key, features, 4).repeat_interleave(2, 1).repeat_interleave(2, 2)
    for shown, clean, seen in zip(mixed.hard, key, front, strict=True):
        hidden = (shown == 0).all(dim=0)
        assert torch.equal(hidden, (shown != clean).any(dim=0))
        assert not (hidden & ~seen).any()
        area = int(seen.sum()) // 4
        assert max(math.floor(low * area + 0.5), 1) <= int(hidden.sum()) // 4 <= max(math.floor(high * area + 0.5), 1)


@given(
    st.sampled_from(["block", "discrete", "channelwise", "balanced"]), st.integers(2, 9), st.floats(0.01, 0.99), SEEDS
)
def test_any_ratio_is_hidden_exactly_or_refused(name: str, cells: int, ratio: float, seed: int) -> None:
    kind = find("pretrain.masks", name)
    wanted = ratio * cells**2
    assume(abs(abs(wanted - round(wanted)) - 1e-4 * cells**2) > 1e-6)  # the edge of what rounding allows
    try:
        maker = kind(kind.Config(cells=cells, ratio=ratio))
    except InputError:
        assert abs(wanted - round(wanted)) > 1e-4 * cells**2 or round(wanted) in (0, cells**2)
        return
    images = torch.rand(2, 3, 2 * cells, 2 * cells, generator=Generator().manual_seed(seed))
    mask = maker.masks(images, Draws(seed, 1, "b/0").rows(2, "mask"), features)
    assert (mask[:, :, ::2, ::2].sum(dim=(2, 3)) == round(wanted)).all()
    assert 0 < round(wanted) < cells**2


@given(ERASING, st.integers(1, 4), SEEDS)
def test_fills_of_a_row_do_not_depend_on_the_others(fill: dict, count: int, seed: int) -> None:
    query, _ = views(count, seed)
    maker = find("pretrain.fills", fill["name"])
    made = maker(maker.Config.model_validate(fill))
    whole = made.content(query, Draws(seed, 1, "b/0").rows(count, "fill"))
    assert whole.shape == query.shape
    for row in range(count):
        part = made.content(query[row : row + 1], Draws(seed, 1, "b/0", row).rows(1, "fill"))
        torch.testing.assert_close(part[0], whole[row])


def test_noise_drawn_on_a_device_is_each_rows_own_whatever_rows_are_beside_it():
    images = torch.zeros(3, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    noise = noise_from(torch.tensor([5, 6, 7]), images)
    assert torch.equal(noise[2:], noise_from(torch.tensor([7]), images[:1]))
    assert noise.is_contiguous(memory_format=torch.channels_last)


def test_noise_drawn_on_a_device_is_standard_normal_in_every_row_and_of_neighbours_in_place_and_seed_apart():
    rows = noise_from(torch.tensor([0, 1, 2**62 - 1]), torch.zeros(3, 3, 256, 256)).flatten(1).double()
    assert stats.kstest(rows.flatten().numpy(), "norm").pvalue > 0.01
    for row in rows:
        assert stats.kstest(row.numpy(), "norm").pvalue > 0.001
    for one, other in ((rows[0], rows[1]), (rows[0, 1:], rows[0, :-1]), (rows[1, 256:], rows[1, :-256])):
        assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 4 / len(one) ** 0.5
