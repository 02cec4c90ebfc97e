"""Every method with every branch: the objective's loss and gradient are those of the formulas written out slowly."""

import itertools

import numpy as np
import pairs
import pytest
import reference_branches as pixels
import tiny
import torch

from core.plugins import names
from pretrain.branches import Draws
from pretrain.saliency import foreground, share_out

METHODS, BRANCHES = names("pretrain.methods"), names("pretrain.branches")


def settings(method: str, branch: str) -> dict:
    """Return what a pair needs beyond the defaults: methods without negatives take no hard ones."""
    return {"hard_negatives": False} if branch == "saliency" and method in ("byol", "simsiam") else {}


def test_every_method_and_branch_is_in_the_tables() -> None:
    assert sorted(pairs.METHODS) == METHODS
    assert sorted(pairs.BRANCHES) == sorted(pairs.SCORING) == BRANCHES


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("method", "branch"), list(itertools.product(METHODS, BRANCHES)))
def test_loss_equals_the_formula_of_the_pair(method: str, branch: str, symmetric: bool) -> None:
    first, second = tiny.pair(pairs.COUNT, pairs.SIZE)
    maker = pairs.branch(branch, weight=0.7, **settings(method, branch))
    objective = pairs.objective(method, {"b": maker}, 1.3, symmetric=symmetric)
    drawn = pairs.draws(objective, branch, first, second)
    found = objective(
        first, second, pairs.STEP
    )  # first of all, since every forward moves the statistics saliency reads
    wanted = pairs.expected(pairs.Encoders.of(objective.method), branch, drawn, (1.3, 0.7))
    assert found.loss.item() == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("method", "branch"),
    [
        ("simclr", "mixmask"), ("simclr", "saliency"), ("simclr", "mixsiam"), ("byol", "unmix"), ("byol", "masked"),
        ("simsiam", "mixsiam"), ("simsiam", "masked"), ("moco", "saliency"), ("moco", "mixsiam"),
    ],
)  # fmt: skip
def test_gradients_are_central_differences_with_the_targets_held_still(method: str, branch: str) -> None:
    """Keys are those of a frozen copy, except SimCLR's own; MixSiam's maximum always is: a gradient through it would show."""
    first, second = tiny.pair(pairs.COUNT, pairs.SIZE)
    maker = pairs.branch(branch, weight=0.7, **settings(method, branch))
    objective = pairs.objective(method, {"b": maker}, symmetric=method != "moco")
    drawn = pairs.draws(objective, branch, first, second)
    encoders = pairs.Encoders.of(objective.method)
    objective(first, second, pairs.STEP).loss.backward()
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
    query, key = tiny.pair(8, 12)
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
    blended = pixels.mixup(query.numpy(), mixed.lam.numpy(), partner)
    pasted = pixels.mix_by_mask(query.numpy(), boxes, partner)
    wanted = np.where(by_box[:, None, None, None], pasted, blended)
    np.testing.assert_allclose(mixed.query.numpy(), wanted, atol=1e-12)
    np.testing.assert_allclose(mixed.lam.numpy()[by_box], pixels.lam_of(boxes)[by_box], atol=1e-6)
    if scope == "batch":
        assert len(set(mixed.lam.tolist())) == 1
        assert (boxes == boxes[0]).all()


def test_cutmix_boxes_are_those_of_the_formula_for_their_draws() -> None:
    maker = pairs.branch("unmix", mixup_probability=0.0)
    query, key = tiny.pair(16, 20)
    draws = Draws(5, 2, "b/0")
    mixed = maker.mix(query, key, draws)
    for row, generator in enumerate(draws.rows(16, "mix")):
        _, lam, down, right = torch.rand(4, generator=generator).tolist()
        (top, bottom, left, right_end), share = pixels.cutmix_box(20, 20, lam, int(down * 20), int(right * 20))
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
        np.testing.assert_array_equal(one, pixels.foreground(wanted, spread))


@pytest.mark.parametrize("value", [3.0, 0.1, 1 / 3, -0.7])
def test_flat_maps_are_all_foreground(value: float) -> None:
    assert foreground(torch.full((1, 7, 7), value), 0.6).all()


def test_hidden_cells_are_shared_out_by_area() -> None:
    for cells in (4, 9, 16, 49):
        for front in range(cells + 1):
            for count in range(cells + 1):
                assert share_out(count, front, cells - front) == pixels.split_ratio(count, front, cells - front)


def saliency_of(objective: object, images: torch.Tensor) -> list[np.ndarray]:
    """Return each image's foreground on the 4 x 4 grid, by averaging the tiny network's 7 x 7 map as torch does."""
    maps = objective.features(images, 1).float().sum(dim=1, keepdim=True)
    small = torch.nn.functional.interpolate(maps, (4, 4), mode="bilinear", antialias=True, align_corners=False)
    return [pixels.foreground(one.numpy(), 0.1) for one in small[:, 0]]


def test_saliency_masks_are_balanced_and_hard_negatives_lose_foreground_only() -> None:
    query, key = tiny.pair(12, pairs.SIZE)
    given = {"ratio": [0.25, 0.25], "hard_ratio": [0.4, 0.7], "saliency": {"stage": 1, "spread": 0.1}}
    maker = pairs.branch("saliency", **given)
    objective = pairs.objective("moco", {"b": maker})
    mixed = pairs.draw(objective, maker, query, key, 0)
    lost, sides = set(), set()
    for row, (seen, other) in enumerate(zip(saliency_of(objective, query), saliency_of(objective, key), strict=True)):
        grid = mixed.mask[row, 0, ::4, ::4].numpy()
        front, back = pixels.split_ratio(4, int(seen.sum()), int((~seen).sum()))
        assert ((grid & seen).sum(), (grid & ~seen).sum()) == (front, back)
        gone = (mixed.hard[row] == 0).all(dim=0)[::4, ::4].numpy()
        assert not (gone & ~other).any()
        area = int(other.sum())
        assert pixels.hard_negative_count(0.4, area) <= gone.sum() <= pixels.hard_negative_count(0.7, area)
        lost.add(int(gone.sum()))
        sides.add((front, back))
    assert len(lost) > 1
    assert len(sides) > 1
    assert mixed.alpha == 2.0
    assert mixed.key is None


def test_hard_negatives_are_each_rows_own_and_weighed_by_alpha() -> None:
    """Another alpha, another loss; alpha reaches every row, not only the first as in the release."""
    first, second = tiny.pair(pairs.COUNT, pairs.SIZE)
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
    query, key = tiny.pair(10, 12)
    mixed = pairs.branch("mixsiam", mix=mix).mix(query, key, Draws(5, 2, "b/0"))
    both, own = np.concatenate([query.numpy(), key.numpy()]), list(range(10))
    if mix == "mixup":
        wanted = pixels.mixup(both, [*mixed.lam.tolist()] * 2, [10 + row for row in own] * 2)[:10]
        assert mixed.mask is None
    else:
        boxes = mixed.mask[:, 0].numpy()
        wanted = pixels.mix_by_mask(both, np.concatenate([boxes, boxes]), [10 + row for row in own] * 2)[:10]
        np.testing.assert_allclose(mixed.lam.numpy(), pixels.lam_of(boxes), atol=1e-6)
    np.testing.assert_allclose(mixed.query.numpy(), wanted, atol=1e-12)
    assert mixed.partner is None
    assert mixed.both_keys
    assert len({round(share, 4) for share in mixed.lam.tolist()}) > 5


@pytest.mark.parametrize("sides", ["both", "query"])
@pytest.mark.parametrize("method", METHODS)
def test_mscn_masks_the_sides_it_is_told_to(method: str, sides: str) -> None:
    first, second = tiny.pair(pairs.COUNT, pairs.SIZE)
    maker = pairs.branch("mscn", sides=sides)
    objective = pairs.objective(method, {"b": maker}, 0.0, symmetric=False)
    mixed = pairs.draw(objective, maker, first, second, 0)
    encoders = pairs.Encoders.of(objective.method)
    shown = second.numpy()
    if sides == "both":
        filtered = np.stack([pixels.high_pass(image, 5, 5.0) for image in shown])
        shown = pairs.erased(filtered, pairs.zeros(mixed.key))
    masked = np.stack([pixels.high_pass(image, 5, 5.0) for image in first.numpy()])
    masked = pairs.erased(masked, mixed.mask.numpy())
    wanted = pairs.row_loss(objective.method)(encoders.query(masked), encoders.key(shown)).mean()
    assert objective(first, second, pairs.STEP).loss.item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("sides", ["query", "key", "both"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_masked_sides_are_the_same_ones_in_both_directions(method: str, symmetric: bool, sides: str) -> None:
    first, second = tiny.pair(pairs.COUNT, pairs.SIZE)
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
