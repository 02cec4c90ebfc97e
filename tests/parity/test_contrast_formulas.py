"""Losses, queue, momentum encoder and schedules equal the papers' formulas written as loops."""

import formulas
import numpy as np
import pytest
import tiny
import torch

from pretrain.losses import info_nce, unit
from pretrain.momentum import follow, momentum_copy
from pretrain.schedules import Schedule, cosine


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_info_nce_equals_the_softmax_written_row_by_row(temperature: float) -> None:
    rng = np.random.default_rng(3)
    query, key, negatives = rng.normal(size=(5, 7)), rng.normal(size=(5, 7)), rng.normal(size=(7, 11))
    found = info_nce(*(torch.from_numpy(part) for part in (query, key, negatives)), temperature)
    assert found.shape == (5,)
    np.testing.assert_allclose(found.numpy(), formulas.info_nce(query, key, negatives, temperature), 1e-10, 1e-15)


def test_info_nce_stays_finite_where_the_exponentials_overflow() -> None:
    query = torch.tensor([[40.0, 0.0], [40.0, 0.0]], dtype=torch.float64)
    key = torch.tensor([[40.0, 0.0], [-40.0, 0.0]], dtype=torch.float64)
    found = info_nce(query, key, torch.zeros(2, 3, dtype=torch.float64), 0.1)
    assert found.tolist() == pytest.approx([0.0, 16000 + np.log(3)])


def test_queue_holds_the_same_keys_in_the_same_places_as_a_list() -> None:
    method = tiny.moco(queue=12)
    start = method.queue.numpy().copy()
    rng = np.random.default_rng(5)
    batches = [rng.normal(size=(4, 4)) for _ in range(5)]  # wraps around after the third
    for batch in batches:
        method.end_step(torch.from_numpy(batch))
    pointer = int(method.queue_pointer)
    oldest_first = [method.queue[:, (pointer + place) % 12].numpy() for place in range(12)]
    np.testing.assert_allclose(
        oldest_first,
        formulas.first_in_first_out(start, [batch / np.linalg.norm(batch, axis=1, keepdims=True) for batch in batches]),
    )
    assert pointer == 5 * 4 % 12


def test_queue_starts_with_unit_vectors() -> None:
    lengths = [np.sqrt(sum(column**2)) for column in tiny.moco().queue.numpy().T]
    assert lengths == pytest.approx([1.0] * 16)


def test_method_as_shipped_equals_the_formula_in_single_precision() -> None:
    method = tiny.shipped_moco()
    first, second = (view.float() for view in tiny.pair())
    query, key = unit(method.embed(first)), unit(method.encode_key(second, shuffle_seed=0))
    exact = tiny.moco()
    wanted = [tiny.features(exact.query_encoder, first.double()), tiny.features(exact.key_encoder, second.double())]
    np.testing.assert_allclose(query.detach().numpy(), wanted[0], atol=1e-6)
    np.testing.assert_allclose(key.numpy(), wanted[1], atol=1e-6)
    assert (query.requires_grad, key.requires_grad) == (True, False)
    losses = formulas.info_nce(*wanted, exact.queue.numpy(), 0.2)
    np.testing.assert_allclose(method.loss(query, key).detach().numpy(), losses, rtol=1e-5)


@pytest.mark.parametrize("key_momentum", [0.0, 0.3, 0.9, 0.999])
def test_key_encoder_follows_by_the_moving_average(key_momentum: float) -> None:
    method = tiny.moco(key_momentum=key_momentum)
    wanted = [
        formulas.momentum_update(key.numpy(), query.detach().numpy(), key_momentum)
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
    assert found == pytest.approx([formulas.cosine(point, 0.3, 0.01) for point in points], rel=1e-12)


def test_schedule_climbs_in_a_line_then_falls_along_the_cosine() -> None:
    schedule = Schedule(warmup=0.2)
    assert [schedule.factor(point) for point in (0.0, 0.05, 0.1)] == pytest.approx([0.0, 0.25, 0.5])
    later = [0.2, 0.4, 0.6, 0.8, 1.0]
    wanted = [formulas.cosine((point - 0.2) / 0.8, 1.0, 0.0) for point in later]
    assert [schedule.factor(point) for point in later] == pytest.approx(wanted)
