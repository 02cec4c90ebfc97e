"""Methods, their losses and the weighted kNN vote equal slow transcriptions of their papers."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pairs
import pytest
import references as slow
import torch
from torch import Tensor

from core.backbones import build
from core.backbones.resnet import ResNet
from core.errors import InputError
from core.knn import weighted_knn
from core.plugins import names
from pretrain.branches import Draws
from pretrain.heads import follow, momentum_copy
from pretrain.losses import info_nce, nt_xent, unit
from pretrain.methods import Method, MomentumMethod
from pretrain.objective import Objective
from pretrain.optimizers import Schedule, cosine

METHODS = names("pretrain.methods")


def rows(seed: int, count: int = 5, dim: int = 4) -> Tensor:
    """Return seeded float64 rows."""
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("method", "hard"), [*((method, False) for method in METHODS), ("moco", True), ("simclr", True)]
)
def test_row_losses_equal_the_formula(method: str, hard: bool) -> None:
    made, (query, key, extra) = pairs.method(method), (3 * rows(seed, dim=4) for seed in range(3))
    assert made.contrastive or not hard
    given = (extra, 2.5) if hard else ()
    found = made.loss(query, key, *given)
    wanted = pairs.row_loss(made, extra.numpy() if hard else None, 2.5)(query.numpy(), key.numpy())
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-10)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 4.0])
def test_an_alpha_of_zero_still_counts_the_hard_negative_once(alpha: float) -> None:
    """exp(alpha q.h / T): not alpha exp(q.h / T), which would vanish."""
    query, key, extra = rows(0), rows(1), rows(2)
    found = info_nce(query, key, rows(3).T, 0.7, extra, alpha)
    np.testing.assert_allclose(
        found.numpy(),
        slow.info_nce(query.numpy(), key.numpy(), rows(3).T.numpy(), 0.7, extra.numpy(), alpha),
        rtol=1e-12,
    )
    assert (found > info_nce(query, key, rows(3).T, 0.7)).all()


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_nt_xent_of_a_process_is_its_rows_of_the_whole_batchs(processes: int) -> None:
    query, key = (torch.nn.functional.normalize(rows(seed, 6)) for seed in (0, 1))
    share = 6 // processes
    parts = []
    for rank in range(processes):
        mine = slice(rank * share, (rank + 1) * share)
        parts.append(nt_xent(query[mine], key[mine], query, key, mine.start, 0.4))
    whole = slow.nt_xent(query.numpy(), key.numpy(), 0.4)
    np.testing.assert_allclose(torch.cat(parts).numpy(), whole[:6], rtol=1e-10)


def test_simclr_of_both_directions_is_the_papers_mean_over_two_n_rows() -> None:
    first, second = pairs.pair(pairs.COUNT, pairs.SIZE)
    objective = pairs.objective("simclr", {})
    loss = objective(first, second, pairs.STEP).loss
    encoder = objective.method.query_encoder
    with torch.no_grad():
        embeddings = [encoder(view).numpy() for view in (first, second)]
    assert loss.item() == pytest.approx(slow.nt_xent(*embeddings, 0.3).mean(), rel=1e-10)
    assert objective.forwards == {"query": 2, "key": 0}


def test_simclr_has_a_gradient_through_its_keys() -> None:
    """The gradient is that of eq. 1 over all pairs, written with autograd on one table of cosines."""
    first, second = pairs.pair(pairs.COUNT, pairs.SIZE)
    ours, theirs = pairs.objective("simclr", {}), pairs.objective("simclr", {})
    ours(first, second, pairs.STEP).loss.backward()
    both = torch.cat([theirs.method.query_encoder(view) for view in (first, second)])
    table = torch.cosine_similarity(both[:, None], both[None], dim=2) / 0.3
    table = table - torch.diag(torch.full((8,), torch.inf, dtype=torch.float64))
    positives = torch.stack([table[row, (row + 4) % 8] for row in range(8)])
    (table.logsumexp(dim=1) - positives).mean().backward()
    compare_gradients(ours.method, theirs.method)


def compare_gradients(ours: Method, theirs: Method, atol: float = 1e-9) -> None:
    """See that all trained tensors have equal gradients, and enough of them some."""
    large = 0
    for (name, found), wanted in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if found.requires_grad:
            torch.testing.assert_close(
                found.grad, wanted.grad, rtol=1e-6, atol=atol, msg=lambda text, n=name: f"{n}: {text}"
            )
            large += wanted.grad.abs().max() > 1e-5
        else:
            assert found.grad is None
    assert large >= 4


@pytest.mark.parametrize(("method", "sign"), [("byol", 2), ("simsiam", 1)])
def test_targets_have_no_gradient(method: str, sign: int) -> None:
    """With keys that were made constant beforehand the gradient is the same; without the stop it would be another."""
    first, second = pairs.pair(pairs.COUNT, pairs.SIZE)
    ours, theirs, leaky = (pairs.objective(method, {}).method for _ in range(3))
    Objective(ours, {}, 1.0, pairs.SEED)(first, second, pairs.STEP).loss.backward()
    for made, stopped in ((theirs, True), (leaky, False)):
        target_encoder = made.key_encoder if isinstance(made, MomentumMethod) else made.query_encoder
        total = torch.zeros((), dtype=torch.float64)
        for query, key in ((first, second), (second, first)):
            target = target_encoder(key)
            target = target.detach() if stopped else target
            prediction = made.predictor(made.query_encoder(query))
            total = total - sign * torch.cosine_similarity(prediction, target, dim=1).mean() / 2
        total.backward()
    compare_gradients(ours, theirs)
    same = torch.allclose(ours.query_encoder.projector[0].weight.grad, leaky.query_encoder.projector[0].weight.grad)
    assert same == (method == "byol")  # its key encoder takes no gradient anyhow


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("base", [0.996, 0.5])
def test_byols_momentum_rises_along_the_cosine(base: float, progress: float) -> None:
    made = pairs.method("byol", key_momentum=base)
    momentum = slow.cosine_momentum(base, progress)
    wanted = [
        slow.ema(key.numpy(), query.detach().numpy(), momentum)
        for key, query in zip(made.key_encoder.parameters(), made.query_encoder.parameters(), strict=True)
    ]
    before = copy.deepcopy(made.predictor.state_dict())
    made.begin_step(progress)
    for key, expected in zip(made.key_encoder.parameters(), wanted, strict=True):
        np.testing.assert_allclose(key.numpy(), expected, rtol=1e-12, atol=1e-15)
    assert all(torch.equal(value, before[name]) for name, value in made.predictor.state_dict().items())


def test_the_end_of_byols_training_leaves_the_key_encoder_still() -> None:
    made = pairs.method("byol")
    before = [parameter.clone() for parameter in made.key_encoder.parameters()]
    made.begin_step(1.0)
    assert all(map(torch.equal, before, made.key_encoder.parameters()))


RowsLoss = Callable[[Tensor, Tensor], Tensor]


def own_words(method: Method) -> RowsLoss:
    """Return the method's mean loss with autograd, row by row."""
    kind = type(method).__name__

    def simclr(query: Tensor, key: Tensor) -> Tensor:
        losses = []
        for row in range(len(query)):
            others = [other for other in range(len(query)) if other != row]
            candidates = torch.stack([key[row], *(key[o] for o in others), *(query[o] for o in others)])
            scores = torch.cosine_similarity(query[row][None], candidates, dim=1) / method.temperature
            losses.append(scores.logsumexp(dim=0) - scores[0])
        return torch.stack(losses).mean()

    def moco(query: Tensor, key: Tensor) -> Tensor:
        losses = []
        for one, own in zip(query, key, strict=True):
            one, own = one / one.square().sum().sqrt(), own / own.square().sum().sqrt()
            scores = torch.stack([one @ own, *(one @ column for column in method.queue.T)]) / method.config.temperature
            losses.append(scores.logsumexp(dim=0) - scores[0])
        return torch.stack(losses).mean()

    def distance(query: Tensor, key: Tensor) -> Tensor:
        query, key = (part / part.square().sum(dim=1, keepdim=True).sqrt() for part in (query, key))
        return (query - key).square().sum(dim=1).mean()

    def simsiam(query: Tensor, key: Tensor) -> Tensor:
        return distance(query, key) / 2 - 1

    return {"Simclr": simclr, "Moco": moco, "Byol": distance, "Simsiam": simsiam}[kind]


def release_loss(method: Method, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """Score one direction as MixMask's release does: one mask and lam a batch, the mixed queries flipped, not the keys."""
    hidden = mask.double()
    lam = 1 - hidden.mean()
    images = query * (1 - hidden) + query.flip(0) * hidden
    predict = method.predictor if hasattr(method, "predictor") else torch.nn.Identity()
    q, q_mixed = (predict(method.query_encoder(view)) for view in (query, images))
    if isinstance(method, MomentumMethod):
        with torch.no_grad():
            k = method.key_encoder(key)
    else:
        k = method.query_encoder(key)
        k = k if type(method).__name__ == "Simclr" else k.detach()
    loss = own_words(method)
    return loss(q, k) + lam * loss(q_mixed, k) + (1 - lam) * loss(q_mixed.flip(0), k)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "supervised"])
def test_mixmask_equals_the_release_that_flips_the_queries(name: str, symmetric: bool) -> None:
    views = pairs.pair(6, pairs.SIZE)
    settings = {"scope": "batch", "partner": "reverse", "mask": {"name": "block", "cells": 4, "ratio": 0.3125}}
    maker = pairs.branch("mixmask", **settings)
    ours, theirs = (pairs.objective(name, {"b": maker}, symmetric=symmetric) for _ in range(2))
    loss = ours(*views, pairs.STEP).loss
    loss.backward()
    parts = []
    for number, (query, key) in enumerate([views, views[::-1]][: 1 + symmetric]):
        masks = maker.mix(query, key, Draws(pairs.SEED, pairs.STEP, f"b/{number}")).mask[:, 0]
        assert (masks == masks[0]).all()
        parts.append(release_loss(theirs.method, query, key, masks[0]))
    expected = sum(parts[1:], parts[0]) / len(parts)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    compare_gradients(ours.method, theirs.method)


@pytest.mark.parametrize("depth", [18, 50])
def test_networks_begin_as_the_published_ones_do(depth: int) -> None:
    """Blocks that start as the identity; SimCLR's head ends with a norm without shift, BYOL's last layers have no bias."""
    network = build(ResNet.Config(depth=depth, width=4, zero_last_norm=True))
    last = "bn2" if depth == 18 else "bn3"
    weights = {name: value for name, value in network.named_parameters() if name.endswith("weight") and value.ndim == 1}
    zeros = {name for name, value in weights.items() if not value.any()}
    assert zeros == {name for name in weights if name.endswith(f"{last}.weight") and name.startswith("layer")}
    assert all((value == 1).all() for name, value in weights.items() if name not in zeros)
    simclr = pairs.method("simclr", final_norm=True)
    (*_, linear, norm) = simclr.query_encoder.projector
    assert (linear.bias, norm.bias.requires_grad, norm.weight.requires_grad) == (None, False, True)
    with torch.no_grad():
        found = simclr.embed(pairs.pair(6, pairs.SIZE)[0])
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(found.shape[1], dtype=found.dtype), atol=1e-6, rtol=0)
    byol = pairs.method("byol", final_bias=False)
    assert [part[-1].bias for part in (byol.query_encoder.projector, byol.predictor)] == [None, None]
    assert byol.query_encoder.projector[0].bias is None  # a norm follows


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_info_nce_equals_the_softmax_written_row_by_row(temperature: float) -> None:
    rng = np.random.default_rng(3)
    query, key, negatives = rng.normal(size=(5, 7)), rng.normal(size=(5, 7)), rng.normal(size=(7, 11))
    found = info_nce(*(torch.from_numpy(part) for part in (query, key, negatives)), temperature)
    assert found.shape == (5,)
    np.testing.assert_allclose(found.numpy(), slow.info_nce(query, key, negatives, temperature), 1e-10, 1e-14)


def test_info_nce_stays_finite_where_the_exponentials_overflow() -> None:
    query = torch.tensor([[40.0, 0.0], [40.0, 0.0]], dtype=torch.float64)
    key = torch.tensor([[40.0, 0.0], [-40.0, 0.0]], dtype=torch.float64)
    found = info_nce(query, key, torch.zeros(2, 3, dtype=torch.float64), 0.1)
    assert found.tolist() == pytest.approx([0.0, 16000 + np.log(3)])


def test_queue_holds_the_same_keys_in_the_same_places_as_a_list() -> None:
    method = pairs.moco(queue=12)
    start = method.queue.numpy().copy()
    rng = np.random.default_rng(5)
    batches = [rng.normal(size=(4, 4)) for _ in range(5)]  # wraps around after the third
    for batch in batches:
        method.end_step(torch.from_numpy(batch))
    pointer = int(method.queue_pointer)
    oldest_first = [method.queue[:, (pointer + place) % 12].numpy() for place in range(12)]
    np.testing.assert_allclose(
        oldest_first,
        slow.first_in_first_out(start, [batch / np.linalg.norm(batch, axis=1, keepdims=True) for batch in batches]),
    )
    assert pointer == 5 * 4 % 12


def test_queue_starts_with_unit_vectors() -> None:
    lengths = [np.sqrt(sum(column**2)) for column in pairs.moco().queue.numpy().T]
    assert lengths == pytest.approx([1.0] * 16)


def test_method_as_shipped_equals_the_formula_in_single_precision() -> None:
    method = pairs.shipped_moco()
    first, second = (view.float() for view in pairs.pair())
    query, key = unit(method.embed(first)), unit(method.encode_key(second))
    exact = pairs.moco()
    wanted = [pairs.features(exact.query_encoder, first.double()), pairs.features(exact.key_encoder, second.double())]
    np.testing.assert_allclose(query.detach().numpy(), wanted[0], atol=1e-6)
    np.testing.assert_allclose(key.numpy(), wanted[1], atol=1e-6)
    assert (query.requires_grad, key.requires_grad) == (True, False)
    losses = slow.info_nce(*wanted, exact.queue.numpy(), 0.2)
    np.testing.assert_allclose(method.loss(query, key).detach().numpy(), losses, rtol=1e-5)


@pytest.mark.parametrize("key_momentum", [0.0, 0.3, 0.9, 0.999])
def test_key_encoder_follows_by_the_moving_average(key_momentum: float) -> None:
    method = pairs.moco(key_momentum=key_momentum)
    wanted = [
        slow.ema(key.numpy(), query.detach().numpy(), key_momentum)
        for key, query in zip(method.key_encoder.parameters(), method.query_encoder.parameters(), strict=True)
    ]
    before = [parameter.detach().clone() for parameter in method.query_encoder.parameters()]
    method.begin_step(0.5)
    for found, expected in zip(method.key_encoder.parameters(), wanted, strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-15)
    assert all(map(torch.equal, method.query_encoder.parameters(), before))


def test_momentum_copy_is_equal_apart_and_without_gradient() -> None:
    network = torch.nn.Linear(2, 2)
    copied = momentum_copy(network)
    with torch.no_grad():
        network.weight.add_(1)
    assert torch.equal(copied.weight + 1, network.weight)
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    follow(copied, network, 0.75)
    torch.testing.assert_close(network.weight - copied.weight, torch.full((2, 2), 0.75))


def test_cosine_equals_the_formula_of_sgdr_at_every_hundredth() -> None:
    points = [number / 100 for number in range(101)]
    found = [cosine(point, 0.3, 0.01) for point in points]
    assert found == pytest.approx([slow.annealed(point, 0.3, 0.01) for point in points], rel=1e-12)


def test_schedule_climbs_in_a_line_then_falls_along_the_cosine() -> None:
    schedule = Schedule(warmup=0.2)
    assert [schedule.factor(point) for point in (0.0, 0.05, 0.1)] == pytest.approx([0.0, 0.25, 0.5])
    later = [0.2, 0.4, 0.6, 0.8, 1.0]
    wanted = [slow.annealed((point - 0.2) / 0.8, 1.0, 0.0) for point in later]
    assert [schedule.factor(point) for point in later] == pytest.approx(wanted)


def voted(train, labels, test, classes, k, temperature):
    """Follow arXiv 1805.01978, sec. 3.4 row by row in float64."""
    predictions = []
    for row in test.double().tolist():
        found = []
        for other, label in zip(train.double().tolist(), labels.tolist(), strict=True):
            dot = sum(a * b for a, b in zip(row, other, strict=True))
            found.append((dot / math.sqrt(sum(a * a for a in row)) / math.sqrt(sum(b * b for b in other)), label))
        votes = [0.0] * classes
        for similarity, label in sorted(found, reverse=True)[:k]:
            votes[label] += math.exp(similarity / temperature)
        predictions.append(votes.index(max(votes)))
    return predictions


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (7, 0.07), (7, 1.0), (40, 0.1), (40, 100.0)])
def test_predictions_equal_those_of_a_loop_over_pairs(k, temperature):
    generator = torch.Generator().manual_seed(k)
    labels = torch.randint(0, 4, (40,), generator=generator)
    train = torch.randn(40, 6, generator=generator) + torch.eye(6)[labels]
    test = torch.randn(33, 6, generator=generator) * 10
    found = weighted_knn(train, labels, test, 4, k, temperature, chunk=8)
    assert found.tolist() == voted(train, labels, test, 4, k, temperature)
    assert found.dtype == labels.dtype


def test_the_temperature_decides_whether_one_near_row_outvotes_two_far_ones():
    train = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    labels = torch.tensor([0, 1, 1])
    test = torch.tensor([[5.0, 0.0]])
    assert weighted_knn(train, labels, test, 2, 3, 0.07).tolist() == [0]  # e^(1/.07) > 2 e^(.71/.07)
    assert weighted_knn(train, labels, test, 2, 3, 1.0).tolist() == [1]


def test_a_very_low_temperature_does_not_overflow():
    train, labels = torch.eye(3), torch.tensor([2, 0, 1])
    assert weighted_knn(train, labels, torch.eye(3), 3, 3, 1e-4).tolist() == [2, 0, 1]


def test_no_test_rows_give_no_predictions():
    assert weighted_knn(torch.eye(3), torch.arange(3), torch.zeros(0, 3), 3, 2, 0.1).tolist() == []


@pytest.mark.parametrize("k", [0, 6])
def test_a_k_that_the_training_rows_cannot_fill_is_refused(k):
    with pytest.raises(InputError, match=rf"k is {k}, but there are 5 training rows; choose k between 1 and 5"):
        weighted_knn(torch.eye(5), torch.arange(5), torch.eye(5), 5, k, 0.1)


def test_a_temperature_that_is_not_positive_is_refused():
    with pytest.raises(InputError, match="temperature is 0"):
        weighted_knn(torch.eye(5), torch.arange(5), torch.eye(5), 5, 1, 0.0)
