"""MixMask equals the paper's two-term loss and the release's arithmetic, in value and in gradient."""

from typing import Any

import formulas
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.branches import Draws
from pretrain.branches.mixmask import MixMask
from pretrain.losses import unit
from pretrain.objective import Objective

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


def expected_loss(objective: Objective, query: Tensor, key: Tensor, masks: np.ndarray, weight: float) -> float:
    """Return the paper's loss of one direction from loops over pixels, rows and negatives."""
    method, partner = objective.method, backwards(len(query))
    mixed, lam = formulas.mix(query.numpy(), masks, partner)
    return formulas.two_term_loss(
        tiny.features(method.query_encoder, query), tiny.features(method.query_encoder, mixed),
        tiny.features(method.key_encoder, key), method.queue.numpy(), method.config.temperature, partner, lam, weight,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["block", "discrete"])
@pytest.mark.parametrize(("cells", "size"), [(2, 8), (4, 16), (8, 24), (6, 6)])
def test_mask_is_the_grid_blown_up_by_nearest_neighbour(name: str, cells: int, size: int) -> None:
    maker = branch(mask={"name": name, "cells": cells, "ratio": 0.5})
    for mask in drawn_masks(maker, 4, size):
        grid = mask[:: size // cells, :: size // cells]
        np.testing.assert_array_equal(mask, formulas.nearest(grid, size))
        assert grid.sum() == cells**2 / 2


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_mixed_image_and_lam_equal_the_loop_over_pixels(ratio: float) -> None:
    query, key = tiny.pair(count=6)
    maker = branch(mask={"name": "discrete", "cells": 4, "ratio": ratio})
    mixed = maker.mix(query, key, Draws(SEED, STEP, "filled/0"))
    images, lam = formulas.mix(query.numpy(), drawn_masks(maker, 6, 16), backwards(6))
    np.testing.assert_array_equal(mixed.query.numpy(), images)
    assert mixed.lam.tolist() == lam.tolist() == [1 - ratio] * 6
    assert mixed.key is None


@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize("scope", ["image", "batch"])
def test_objective_is_the_papers_two_term_loss(scope: str, weight: float) -> None:
    query, key = tiny.pair()
    maker = branch(scope=scope, weight=weight)
    objective = Objective(tiny.moco(), {"filled": maker}, 1.0, SEED)
    scored = objective(query, key, STEP)
    masks = drawn_masks(maker, 4, 16)
    assert scored.loss.item() == pytest.approx(expected_loss(objective, query, key, masks, weight), rel=1e-9)
    assert scored.parts["lam/filled"].item() == 0.5
    np.testing.assert_allclose(
        unit(scored.keys[0]).numpy(), tiny.features(objective.method.key_encoder, key), atol=1e-12
    )


def test_symmetric_objective_is_the_mean_of_both_directions() -> None:
    first, second = tiny.pair()
    maker = branch()
    objective = Objective(tiny.moco(symmetric=True), {"filled": maker}, 1.0, SEED)
    wanted = [
        expected_loss(objective, query, key, drawn_masks(maker, 4, 16, direction), 1.0)
        for direction, (query, key) in enumerate([(first, second), (second, first)])
    ]
    assert objective(first, second, STEP).loss.item() == pytest.approx(sum(wanted) / 2, rel=1e-9)


def test_two_branches_add_their_terms_to_one_plain_loss() -> None:
    query, key = tiny.pair()
    makers = {"filled": branch(weight=0.5), "other": branch(weight=2.0, mask={"name": "discrete", "cells": 2})}
    losses = {}
    for labels in [(), ("filled",), ("other",), ("filled", "other")]:
        objective = Objective(tiny.moco(), {label: makers[label] for label in labels}, 1.0, SEED)
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
    query, key = tiny.pair(count=6)
    maker = branch(scope="batch", mask={"name": "block", "cells": 4, "ratio": ratio})
    ours, theirs = (Objective(tiny.moco(), {"filled": maker}, 1.0, SEED) for _ in range(2))
    loss = ours(query, key, STEP).loss
    masks = drawn_masks(maker, 6, 16)
    expected = release_loss(theirs, query, key, masks[0])
    loss.backward()
    expected.backward()
    assert (masks == masks[0]).all()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    for found, wanted in zip(gradients(ours), gradients(theirs), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
        assert wanted.abs().max() > 1e-4 or wanted.numel() == tiny.Tiny.feature_dim  # a bias before batch norm has none


def test_release_form_written_in_numpy_gives_the_same_number() -> None:
    query, key = tiny.pair()
    maker = branch(scope="batch", mask={"name": "block", "cells": 4, "ratio": 0.25})
    objective = Objective(tiny.moco(), {"filled": maker}, 1.0, SEED)
    method = objective.method
    mixed, lam = formulas.mix(query.numpy(), drawn_masks(maker, 4, 16), backwards(4))
    expected = formulas.flipped_query_loss(
        tiny.features(method.query_encoder, query), tiny.features(method.query_encoder, mixed),
        tiny.features(method.key_encoder, key), method.queue.numpy(), method.config.temperature, lam[0],
    )  # fmt: skip
    assert objective(query, key, STEP).loss.item() == pytest.approx(expected, abs=1e-9)


def test_gradients_equal_central_differences_of_the_numpy_loss() -> None:
    query, key = tiny.pair()
    maker = branch(weight=0.7)
    objective = Objective(tiny.moco(), {"filled": maker}, 1.0, SEED)
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
