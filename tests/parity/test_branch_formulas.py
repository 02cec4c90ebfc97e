"""Branches equal slow transcriptions of their papers, MixMask also the release's form."""

import itertools
from typing import Any

import numpy as np
import pairs
import pytest
import references as slow
import torch
import torch.nn.functional as F
from torch import Tensor

from core.plugins import names
from pretrain.branches import Draws
from pretrain.branches.mixmask import MixMask
from pretrain.branches.mscn import Mscn
from pretrain.fills import high_pass
from pretrain.losses import unit
from pretrain.methods.moco import Moco
from pretrain.objective import Objective
from pretrain.saliency import foreground, share_out

METHODS, BRANCHES = names("pretrain.methods"), names("pretrain.branches")
SIAMESE = [name for name in METHODS if name != "supervised"]
PAIRS = [pair for pair in itertools.product(METHODS, BRANCHES) if pair != ("supervised", "mixsiam")]  # it is refused


def settings(method: str, branch: str) -> dict:
    """Return what a pair needs beyond the defaults: methods without negatives take no hard ones, labels no masked keys."""
    if method == "supervised" and branch in ("mscn", "masked"):
        return {"sides": "query"}
    return {"hard_negatives": False} if branch == "saliency" and method not in ("moco", "simclr") else {}


def test_every_method_and_branch_is_in_the_tables() -> None:
    assert sorted(pairs.METHODS) == METHODS
    assert sorted(pairs.BRANCHES) == sorted(pairs.SCORING) == BRANCHES


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("method", "branch"), PAIRS)
def test_loss_equals_the_formula_of_the_pair(method: str, branch: str, symmetric: bool) -> None:
    first, second = pairs.pair(pairs.COUNT, pairs.SIZE)
    maker = pairs.branch(branch, weight=0.7, **settings(method, branch))
    directions = {} if method == "supervised" else {"symmetric": symmetric}
    objective = pairs.objective(method, {"b": maker}, 1.3, **directions)
    drawn = pairs.draws(objective, branch, first, second)
    found = objective(
        first, second, pairs.STEP, labels=pairs.LABELS
    )  # first of all, since every forward moves the statistics saliency reads
    wanted = pairs.expected(pairs.Encoders.of(objective.method), branch, drawn, (1.3, 0.7))
    assert found.loss.item() == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("method", "branch"),
    [
        ("simclr", "mixmask"), ("simclr", "saliency"), ("simclr", "mixsiam"), ("byol", "unmix"), ("byol", "masked"),
        ("simsiam", "mixsiam"), ("simsiam", "masked"), ("moco", "saliency"), ("moco", "mixsiam"),
        ("supervised", "mixmask"), ("supervised", "unmix"),
    ],
)  # fmt: skip
def test_gradients_are_central_differences_with_the_targets_held_still(method: str, branch: str) -> None:
    """Keys are those of a frozen copy, except SimCLR's own; MixSiam's maximum always is: a gradient through it would show."""
    first, second = pairs.pair(pairs.COUNT, pairs.SIZE)
    maker = pairs.branch(branch, weight=0.7, **settings(method, branch))
    objective = pairs.objective(
        method, {"b": maker}, **({} if method in ("moco", "supervised") else {"symmetric": True})
    )
    drawn = pairs.draws(objective, branch, first, second)
    encoders = pairs.Encoders.of(objective.method)
    objective(first, second, pairs.STEP, labels=pairs.LABELS).loss.backward()
    trained = [(n, p) for n, p in objective.method.named_parameters() if p.requires_grad]
    checked, width = 0, 1e-5
    for name, parameter in trained:
        place, flat, sides = parameter.numel() // 2, parameter.data.view(-1), []
        for sign in (1, -1):
            flat[place] += sign * width
            sides.append(pairs.expected(encoders, branch, drawn, (1.0, 0.7)))
            flat[place] -= sign * width
        found = parameter.grad.view(-1)[place].item()
        assert found == pytest.approx((sides[0] - sides[1]) / (2 * width), abs=2e-6, rel=1e-5), name
        checked += abs(found) > 1e-4
    assert checked >= 4


@pytest.mark.parametrize("scope", ["image", "batch"])
@pytest.mark.parametrize("probability", [0.0, 1.0, 0.5])
def test_unmix_pixels_and_lam_are_mixups_or_cutmixs(probability: float, scope: str) -> None:
    query, key = pairs.pair(8, 12)
    maker = pairs.branch("unmix", mixup_probability=probability, scope=scope)
    mixed = maker.mix(query, key, Draws(5, 2, "b/0"))
    partner = [7 - row for row in range(8)]
    assert mixed.partner.tolist() == partner
    boxes = mixed.mask[:, 0].numpy()
    by_box = boxes.any(axis=(1, 2))
    if probability == 1:
        assert not by_box.any()
    elif probability == 0:  # a box may be smaller than two pixels, and empty
        assert (mixed.lam.numpy()[~by_box] == 1).all()
    blended = slow.mixup(query.numpy(), mixed.lam.numpy(), partner)
    pasted = slow.mix_by_mask(query.numpy(), boxes, partner)
    wanted = np.where(by_box[:, None, None, None], pasted, blended)
    np.testing.assert_allclose(mixed.query.numpy(), wanted, atol=1e-12)
    np.testing.assert_allclose(mixed.lam.numpy()[by_box], slow.lam_of(boxes)[by_box], atol=1e-6)
    if scope == "batch":
        assert len(set(mixed.lam.tolist())) == 1
        assert (boxes == boxes[0]).all()


def test_cutmix_boxes_are_those_of_the_formula_for_their_draws() -> None:
    maker = pairs.branch("unmix", mixup_probability=0.0)
    query, key = pairs.pair(16, 20)
    draws = Draws(5, 2, "b/0")
    mixed = maker.mix(query, key, draws)
    for row, generator in enumerate(draws.rows(16, "mix")):
        _, lam, down, right = torch.rand(4, generator=generator).tolist()
        (top, bottom, left, right_end), share = slow.cutmix_box(20, 20, lam, int(down * 20), int(right * 20))
        wanted = np.zeros((20, 20), dtype=bool)
        wanted[top:bottom, left:right_end] = True
        np.testing.assert_array_equal(mixed.mask[row, 0].numpy(), wanted)
        assert mixed.lam[row].item() == pytest.approx(share, abs=1e-6)


def test_blending_weights_follow_the_beta_law() -> None:
    images = torch.zeros(600, 3, 2, 2)
    for alpha, spread in [(1.0, 1 / 12), (0.3, 1 / (4 * 1.6)), (4.0, 1 / (4 * 9))]:  # variance 1 / (4 (2 alpha + 1))
        for maker in (pairs.branch("unmix", mixup_probability=1.0, alpha=alpha), pairs.branch("mixsiam", alpha=alpha)):
            lam = maker.mix(images, images, Draws(1, 1, "b/0")).lam.double()
            assert lam.mean().item() == pytest.approx(0.5, abs=0.04)
            assert lam.var().item() == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("spread", [0.0, 0.6, 1.5])
def test_foreground_is_the_papers_rule(spread: float) -> None:
    maps = torch.randn(20, 5, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = foreground(maps, spread)
    for one, wanted in zip(found.numpy(), maps.numpy(), strict=True):
        np.testing.assert_array_equal(one, slow.foreground(wanted, spread))


@pytest.mark.parametrize("value", [3.0, 0.1, 1 / 3, -0.7])
def test_flat_maps_are_all_foreground(value: float) -> None:
    assert foreground(torch.full((1, 7, 7), value), 0.6).all()


def test_hidden_cells_are_shared_out_by_area() -> None:
    for cells in (4, 9, 16, 49):
        for front in range(cells + 1):
            for count in range(cells + 1):
                assert share_out(count, front, cells - front) == slow.split_ratio(count, front, cells - front)


def saliency_of(objective: object, images: torch.Tensor) -> list[np.ndarray]:
    """Return each image's foreground on the 4 x 4 grid, by averaging the tiny network's 7 x 7 map as torch does."""
    maps = objective.features(images, 1).float().sum(dim=1, keepdim=True)
    small = torch.nn.functional.interpolate(maps, (4, 4), mode="bilinear", antialias=True, align_corners=False)
    return [slow.foreground(one.numpy(), 0.1) for one in small[:, 0]]


def test_saliency_masks_are_balanced_and_hard_negatives_lose_foreground_only() -> None:
    query, key = pairs.pair(12, pairs.SIZE)
    given = {"ratio": [0.25, 0.25], "hard_ratio": [0.4, 0.7], "saliency": {"stage": 1, "spread": 0.1}}
    maker = pairs.branch("saliency", **given)
    objective = pairs.objective("moco", {"b": maker})
    mixed = pairs.draw(objective, maker, query, key, 0)
    lost, sides = set(), set()
    for row, (seen, other) in enumerate(zip(saliency_of(objective, query), saliency_of(objective, key), strict=True)):
        grid = mixed.mask[row, 0, ::4, ::4].numpy()
        front, back = slow.split_ratio(4, int(seen.sum()), int((~seen).sum()))
        assert ((grid & seen).sum(), (grid & ~seen).sum()) == (front, back)
        gone = (mixed.hard[row] == 0).all(dim=0)[::4, ::4].numpy()
        assert not (gone & ~other).any()
        area = int(other.sum())
        assert slow.hard_negative_count(0.4, area) <= gone.sum() <= slow.hard_negative_count(0.7, area)
        lost.add(int(gone.sum()))
        sides.add((front, back))
    assert len(lost) > 1
    assert len(sides) > 1
    assert mixed.alpha == 2.0
    assert mixed.key is None


def test_hard_negatives_are_each_rows_own_and_weighed_by_alpha() -> None:
    """Another alpha, another loss; alpha reaches every row, not only the first as in the release."""
    first, second = pairs.pair(pairs.COUNT, pairs.SIZE)
    losses = {}
    for alpha in (0.5, 2.0, 8.0):
        objective = pairs.objective("moco", {"b": pairs.branch("saliency", alpha=alpha)}, 0.0)
        mixed = pairs.draw(objective, objective.branches["b"], first, second, 0)
        encoders = pairs.Encoders.of(objective.method)
        hard = encoders.key(mixed.hard.numpy())
        rows = pairs.row_loss(objective.method, hard, alpha)(
            encoders.query(mixed.query.numpy()), encoders.key(second.numpy())
        )
        losses[alpha] = objective(first, second, pairs.STEP).loss.item()
        assert losses[alpha] == pytest.approx(rows.mean(), rel=1e-9)
    assert len(set(losses.values())) == 3


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixsiam_mixes_the_two_views_of_one_image(mix: str) -> None:
    query, key = pairs.pair(10, 12)
    mixed = pairs.branch("mixsiam", mix=mix).mix(query, key, Draws(5, 2, "b/0"))
    both, own = np.concatenate([query.numpy(), key.numpy()]), list(range(10))
    if mix == "mixup":
        wanted = slow.mixup(both, [*mixed.lam.tolist()] * 2, [10 + row for row in own] * 2)[:10]
        assert mixed.mask is None
    else:
        boxes = mixed.mask[:, 0].numpy()
        wanted = slow.mix_by_mask(both, np.concatenate([boxes, boxes]), [10 + row for row in own] * 2)[:10]
        np.testing.assert_allclose(mixed.lam.numpy(), slow.lam_of(boxes), atol=1e-6)
    np.testing.assert_allclose(mixed.query.numpy(), wanted, atol=1e-12)
    assert mixed.partner is None
    assert mixed.both_keys
    assert len({round(share, 4) for share in mixed.lam.tolist()}) > 5


@pytest.mark.parametrize("sides", ["both", "query"])
@pytest.mark.parametrize("method", SIAMESE)
def test_mscn_masks_the_sides_it_is_told_to(method: str, sides: str) -> None:
    first, second = pairs.pair(pairs.COUNT, pairs.SIZE)
    maker = pairs.branch("mscn", sides=sides)
    objective = pairs.objective(method, {"b": maker}, 0.0, symmetric=False)
    mixed = pairs.draw(objective, maker, first, second, 0)
    encoders = pairs.Encoders.of(objective.method)
    shown = second.numpy()
    if sides == "both":
        filtered = np.stack([slow.high_pass(image, 5, 5.0) for image in shown])
        shown = pairs.erased(filtered, pairs.zeros(mixed.key))
    masked = np.stack([slow.high_pass(image, 5, 5.0) for image in first.numpy()])
    masked = pairs.erased(masked, mixed.mask.numpy())
    wanted = pairs.row_loss(objective.method)(encoders.query(masked), encoders.key(shown)).mean()
    assert objective(first, second, pairs.STEP).loss.item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("sides", ["query", "key", "both"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("method", SIAMESE)
def test_masked_sides_are_the_same_ones_in_both_directions(method: str, symmetric: bool, sides: str) -> None:
    first, second = pairs.pair(pairs.COUNT, pairs.SIZE)
    maker = pairs.branch("masked", sides=sides)
    objective = pairs.objective(method, {"b": maker}, 0.0, symmetric=symmetric)
    encoders = pairs.Encoders.of(objective.method)
    mixes = [pairs.draw(objective, maker, first, second, 0)]
    if symmetric and sides == "both":
        mixes.append(mixes[0]._replace(query=mixes[0].key, key=mixes[0].query))
    elif symmetric:
        mixes.append(pairs.draw(objective, maker, second, first, 1))
    losses = []
    for mixed, clean_query, clean_key in zip(mixes, (first, second), (second, first), strict=False):
        query = clean_query.numpy() if sides == "key" else pairs.erased(clean_query.numpy(), pairs.zeros(mixed.query))
        key = clean_key.numpy() if sides == "query" else pairs.erased(clean_key.numpy(), pairs.zeros(mixed.key))
        assert (query == 0).any() == (sides != "key")
        assert (key == 0).any() == (sides != "query")
        losses.append(pairs.row_loss(objective.method)(encoders.query(query), encoders.key(key)).mean())
    assert objective(first, second, pairs.STEP).loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-9)


SEED, STEP = 11, 3


def branch(**config: Any) -> MixMask:
    """Return MixMask with half of a 4 x 4 grid hidden."""
    settings = {"mask": {"name": "block", "cells": 4, "ratio": 0.5}} | config
    return MixMask(MixMask.Config.model_validate(settings))


def drawn_masks(maker: MixMask, count: int, size: int, direction: int = 0) -> np.ndarray:
    """Return the [count, size, size] masks this step draws, which the formulas take as given."""
    images = torch.zeros(count, 3, size, size)
    return maker.mix(images, images, Draws(SEED, STEP, f"filled/{direction}")).mask[:, 0].numpy()


def backwards(count: int) -> list[int]:
    """Return the reverse partner."""
    return [count - 1 - row for row in range(count)]


def gradients(objective: Objective) -> list[Tensor]:
    """Return the query encoder's gradients, and see that the key encoder has none."""
    assert all(parameter.grad is None for parameter in objective.method.key_encoder.parameters())
    return [parameter.grad for parameter in objective.method.query_encoder.parameters()]


def contrasted(method: Moco) -> slow.RowLoss:
    """Return MoCo's L(q, k) with the method's queue and temperature, from the reference."""
    return lambda q, k: slow.info_nce(q, k, method.queue.numpy(), method.config.temperature)


def expected_loss(objective: Objective, query: Tensor, key: Tensor, masks: np.ndarray, weight: float) -> float:
    """Return the paper's loss of one direction from loops over pixels, rows and negatives."""
    method, partner = objective.method, backwards(len(query))
    mixed, lam = slow.mix_by_mask(query.numpy(), masks, partner), slow.lam_of(masks)
    clean, own = (pairs.features(method.query_encoder, images) for images in (query, mixed))
    keys, contrast = pairs.features(method.key_encoder, key), contrasted(method)
    return float((contrast(clean, keys) + weight * slow.two_term(contrast, own, keys, partner, lam)).mean())


@pytest.mark.parametrize("name", ["block", "discrete"])
@pytest.mark.parametrize(("cells", "size"), [(2, 8), (4, 16), (8, 24), (6, 6)])
def test_mask_is_the_grid_blown_up_by_nearest_neighbour(name: str, cells: int, size: int) -> None:
    maker = branch(mask={"name": name, "cells": cells, "ratio": 0.5})
    for mask in drawn_masks(maker, 4, size):
        grid = mask[:: size // cells, :: size // cells]
        np.testing.assert_array_equal(mask, slow.nearest(grid, size))
        assert grid.sum() == cells**2 / 2


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_mixed_image_and_lam_equal_the_loop_over_pixels(ratio: float) -> None:
    query, key = pairs.pair(count=6)
    maker = branch(mask={"name": "discrete", "cells": 4, "ratio": ratio})
    mixed = maker.mix(query, key, Draws(SEED, STEP, "filled/0"))
    masks = drawn_masks(maker, 6, 16)
    images, lam = slow.mix_by_mask(query.numpy(), masks, backwards(6)), slow.lam_of(masks)
    np.testing.assert_array_equal(mixed.query.numpy(), images)
    assert mixed.lam.tolist() == lam.tolist() == [1 - ratio] * 6
    assert mixed.key is None


@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize("scope", ["image", "batch"])
def test_objective_is_the_papers_two_term_loss(scope: str, weight: float) -> None:
    query, key = pairs.pair()
    maker = branch(scope=scope, weight=weight)
    objective = Objective(pairs.moco(), {"filled": maker}, 1.0, SEED)
    scored = objective(query, key, STEP)
    masks = drawn_masks(maker, 4, 16)
    assert scored.loss.item() == pytest.approx(expected_loss(objective, query, key, masks, weight), rel=1e-9)
    assert scored.parts["lam/filled"].item() == 0.5
    np.testing.assert_allclose(
        unit(scored.keys[0]).numpy(), pairs.features(objective.method.key_encoder, key), atol=1e-12
    )


def test_symmetric_objective_is_the_mean_of_both_directions() -> None:
    first, second = pairs.pair()
    maker = branch()
    objective = Objective(pairs.moco(symmetric=True), {"filled": maker}, 1.0, SEED)
    wanted = [
        expected_loss(objective, query, key, drawn_masks(maker, 4, 16, direction), 1.0)
        for direction, (query, key) in enumerate([(first, second), (second, first)])
    ]
    assert objective(first, second, STEP).loss.item() == pytest.approx(sum(wanted) / 2, rel=1e-9)


def test_two_branches_add_their_terms_to_one_plain_loss() -> None:
    query, key = pairs.pair()
    makers = {"filled": branch(weight=0.5), "other": branch(weight=2.0, mask={"name": "discrete", "cells": 2})}
    losses = {}
    for labels in [(), ("filled",), ("other",), ("filled", "other")]:
        objective = Objective(pairs.moco(), {label: makers[label] for label in labels}, 1.0, SEED)
        losses[labels] = objective(query, key, STEP).loss.item()
    both = losses[("filled",)] + losses[("other",)] - losses[()]
    assert losses[("filled", "other")] == pytest.approx(both, rel=1e-9)


def release_loss(objective: Objective, query: Tensor, key: Tensor, mask: np.ndarray) -> Tensor:
    """Score as the authors' release does: one mask a batch, and the mixed queries flipped rather than the keys."""
    method = objective.method
    hidden = torch.from_numpy(mask).double()
    lam = 1 - hidden.mean()
    images = query * (1 - hidden) + query.flip(0) * hidden
    q, q_mixed = (F.normalize(method.query_encoder(batch), dim=1) for batch in (query, images))
    with torch.no_grad():
        k = F.normalize(method.key_encoder(key), dim=1)

    def contrast(queries: Tensor) -> Tensor:
        rows = []
        for row, own in zip(queries, k, strict=True):
            scores = torch.stack([row @ own, *(row @ column for column in method.queue.T)]) / method.config.temperature
            rows.append(scores.logsumexp(dim=0) - scores[0])
        return sum(rows[1:], rows[0]) / len(rows)

    return contrast(q) + lam * contrast(q_mixed) + (1 - lam) * contrast(q_mixed.flip(0))


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.6875])
def test_batch_scope_equals_the_release_that_flips_the_queries_in_loss_and_gradient(ratio: float) -> None:
    query, key = pairs.pair(count=6)
    maker = branch(scope="batch", mask={"name": "block", "cells": 4, "ratio": ratio})
    ours, theirs = (Objective(pairs.moco(), {"filled": maker}, 1.0, SEED) for _ in range(2))
    loss = ours(query, key, STEP).loss
    masks = drawn_masks(maker, 6, 16)
    expected = release_loss(theirs, query, key, masks[0])
    loss.backward()
    expected.backward()
    assert (masks == masks[0]).all()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    for found, wanted in zip(gradients(ours), gradients(theirs), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
        assert (
            wanted.abs().max() > 1e-4 or wanted.numel() == pairs.Tiny.feature_dim
        )  # a bias before batch norm has none


def test_release_form_written_in_numpy_gives_the_same_number() -> None:
    query, key = pairs.pair()
    maker = branch(scope="batch", mask={"name": "block", "cells": 4, "ratio": 0.25})
    objective = Objective(pairs.moco(), {"filled": maker}, 1.0, SEED)
    method = objective.method
    masks = drawn_masks(maker, 4, 16)
    mixed, lam = slow.mix_by_mask(query.numpy(), masks, backwards(4)), slow.lam_of(masks)
    clean, own = (pairs.features(method.query_encoder, images) for images in (query, mixed))
    keys, contrast = pairs.features(method.key_encoder, key), contrasted(method)
    expected = float((contrast(clean, keys) + slow.release_form(contrast, own, keys, lam)).mean())
    assert objective(query, key, STEP).loss.item() == pytest.approx(expected, abs=1e-9)


def test_gradients_equal_central_differences_of_the_numpy_loss() -> None:
    query, key = pairs.pair()
    maker = branch(weight=0.7)
    objective = Objective(pairs.moco(), {"filled": maker}, 1.0, SEED)
    objective(query, key, STEP).loss.backward()
    masks, width = drawn_masks(maker, 4, 16), 1e-5
    checked = 0
    for parameter in objective.method.query_encoder.parameters():
        for place in (0, parameter.numel() // 2, parameter.numel() - 1):
            flat, sides = parameter.data.view(-1), []
            for sign in (1, -1):
                flat[place] += sign * width
                sides.append(expected_loss(objective, query, key, masks, 0.7))
                flat[place] -= sign * width
            assert parameter.grad.view(-1)[place].item() == pytest.approx((sides[0] - sides[1]) / (2 * width), abs=1e-6)
            checked += 1
    assert checked == 3 * 8


def mscn(**config: Any) -> Mscn:
    """Return MSCN with a 4 px grid."""
    return Mscn(Mscn.Config.model_validate({"cell": 4, "ratio": [0.1, 0.5]} | config))


@pytest.mark.parametrize(("kernel", "sigma"), [(11, 5.0), (3, 0.5), (7, 2.0)])
def test_high_pass_is_the_image_less_its_gaussian_blur(kernel: int, sigma: float) -> None:
    images = pairs.pair(count=2, size=12)[0]
    wanted = [slow.high_pass(image, kernel, sigma) for image in images.numpy()]
    np.testing.assert_allclose(high_pass(images, kernel, sigma).numpy(), wanted, atol=1e-12)


def test_high_pass_of_one_colour_is_zero_up_to_the_edges() -> None:
    image = torch.tensor([0.3, -2.0, 7.0], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 14, 14)
    assert high_pass(image, 11, 5.0).abs().max() < 1e-12


def test_visible_pixels_are_high_passed_and_hidden_ones_are_filled() -> None:
    images, other = pairs.pair(count=12, size=12)
    mixed = mscn(fill={"name": "zero"}).mix(images, other, Draws(0, 0, "masked/0"))
    wanted = np.stack([slow.high_pass(image) for image in images.numpy()])
    wanted[mixed.mask.numpy()] = 0
    np.testing.assert_allclose(mixed.query.numpy(), wanted, atol=1e-12)
    assert (mixed.key == 0).any()
    assert mixed.partner is None
    assert mixed.lam.tolist() == [1.0] * 12


def test_without_the_filter_visible_pixels_are_the_images_own() -> None:
    images, other = pairs.pair(count=6, size=12)
    maker = mscn(high_pass=False, fill={"name": "mean"}, sides="query")
    mixed = maker.mix(images, other, Draws(0, 0, "masked/0"))
    for row in range(6):
        for channel in range(3):
            mask, image = mixed.mask[row, channel].numpy(), images[row, channel].numpy()
            wanted = np.where(mask, image.mean(), image)
            np.testing.assert_allclose(mixed.query[row, channel].numpy(), wanted, atol=1e-12)
    assert mixed.key is None


def test_both_views_are_masked_independently() -> None:
    images = torch.ones(16, 3, 12, 12)
    mixed = mscn(high_pass=False, fill={"name": "zero"}).mix(images, images, Draws(0, 0, "masked/0"))
    assert (mixed.query != mixed.key).flatten(1).any(dim=1).sum() >= 14


def test_noise_has_mean_zero_and_the_asked_deviation() -> None:
    images = torch.zeros(64, 3, 16, 16)
    mixed = mscn(fill={"name": "noise", "std": 0.18}).mix(images, images, Draws(0, 0, "masked/0"))
    hidden = mixed.query[mixed.mask].numpy()
    assert len(hidden) > 5000
    assert hidden.mean() == pytest.approx(0, abs=0.01)
    assert hidden.std() == pytest.approx(0.18, rel=0.05)


def test_mask_kinds_appear_in_their_shares() -> None:
    images = torch.zeros(800, 3, 16, 16)
    masks = mscn(high_pass=False).mix(images, images, Draws(0, 0, "masked/0")).mask
    grids = masks.view(800, 3, 4, 4, 4, 4).float().mean(dim=(3, 5))  # a grid mask's cells are hidden or not
    whole = ((grids == 0) | (grids == 1)).flatten(1).all(dim=1)
    alike = (masks == masks[:, :1]).flatten(1).all(dim=1)
    channelwise = (~alike).float().mean().item()
    spatial = (alike & whole).float().mean().item()
    # a few channel-wise masks agree by chance, and a few focal squares lie on the grid
    assert channelwise == pytest.approx(0.8 * 0.7, abs=0.05)
    assert spatial == pytest.approx(0.8 * 0.3, abs=0.06)


@pytest.mark.parametrize("sides", ["both", "query"])
def test_loss_is_the_plain_contrast_between_erased_views(sides: str) -> None:
    first, second = pairs.pair(size=12)
    maker = mscn(weight=0.5, sides=sides)
    objective = Objective(pairs.moco(), {"masked": maker}, 0.0, seed=4)
    scored = objective(first, second, step=9)
    mixed = maker.mix(first, second, Draws(4, 9, "masked/0"))
    method = objective.method
    keys = pairs.features(method.key_encoder, second if sides == "query" else mixed.key)
    query = pairs.features(method.query_encoder, mixed.query)
    rows = slow.info_nce(query, keys, method.queue.numpy(), method.config.temperature)
    assert scored.loss.item() == pytest.approx(0.5 * rows.mean(), rel=1e-9)
    assert set(scored.parts) == {"loss/masked", "lam/masked"}
    np.testing.assert_allclose(unit(scored.keys[0]).numpy(), keys, atol=1e-12)  # what the queue will remember


def test_the_high_pass_is_not_rounded_under_autocast() -> None:
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + 2
    with torch.autocast("cpu", torch.bfloat16):
        found = high_pass(images, 11, 5.0)
    assert torch.equal(found, high_pass(images, 11, 5.0))
