"""Optimizers equal their papers' formulas written as loops over numbers."""

import math

import numpy as np
import pytest
import torch
from tiny import moco
from torch import nn

from pretrain import optimizers
from pretrain.optimizers import AdamW, Lars, OptimizerSettings, Sgd

STEPS = 4


def gradients(method: nn.Module, step: int) -> list[np.ndarray]:
    """Give every parameter of the query encoder a gradient that depends on the step only."""
    generator = torch.Generator().manual_seed(step)
    found = []
    for parameter in method.query_encoder.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        found.append(parameter.grad.numpy().copy())
    return found


def trained(settings: OptimizerSettings, rates: list[float]) -> tuple[list[np.ndarray], list[np.ndarray], list]:
    """Return the parameters before and after the steps, and each step's gradients."""
    method = moco()
    before = [p.detach().numpy().copy() for p in method.query_encoder.parameters()]
    optimizer = optimizers.make(settings, method, 256)
    seen = []
    for step, rate in enumerate(rates):
        seen.append(gradients(method, step))
        optimizers.set_lr(optimizer, settings.lr, rate / settings.lr)
        optimizer.step()
    return before, [p.detach().numpy() for p in method.query_encoder.parameters()], seen


def norm(values: np.ndarray) -> float:
    """Return the Euclidean norm by a sum."""
    return math.sqrt(sum(float(v) ** 2 for v in values.ravel()))


RATES = [0.5, 0.4, 0.2, 0.1]


def test_sgd_adds_the_decay_to_the_gradient_and_gathers_momentum() -> None:
    before, after, seen = trained(Sgd(lr=0.5, momentum=0.9, weight_decay=0.01), RATES)
    for index, start in enumerate(before):
        weight, buffer = start.copy(), np.zeros_like(start)
        for rate, grads in zip(RATES, seen, strict=True):
            buffer = 0.9 * buffer + grads[index] + 0.01 * weight
            weight = weight - rate * buffer
        np.testing.assert_allclose(after[index], weight, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("exclude", ["norm_bias", "none"])
def test_lars_scales_each_tensors_step_by_its_norm_and_leaves_norms_and_biases_to_sgd(exclude: str) -> None:
    settings = Lars(lr=0.5, momentum=0.9, weight_decay=0.01, trust_coefficient=0.002, exclude=exclude)
    before, after, seen = trained(settings, RATES)
    assert {start.ndim for start in before} >= {1, 2, 4}
    for index, start in enumerate(before):
        adapted = start.ndim > 1 or exclude == "none"
        weight, buffer = start.copy(), np.zeros_like(start)
        for rate, grads in zip(RATES, seen, strict=True):
            change = grads[index] + (0.01 * weight if adapted else 0)
            if adapted and norm(weight) > 0:  # a tensor of zeros has no scale to step by
                change = change * 0.002 * norm(weight) / (norm(grads[index]) + 0.01 * norm(weight))
            buffer = 0.9 * buffer + change
            weight = weight - rate * buffer
        np.testing.assert_allclose(after[index], weight, rtol=1e-6, atol=1e-9)


def test_adamw_decays_weights_apart_from_the_gradient_and_not_biases_and_norms() -> None:
    settings = AdamW(lr=0.5, weight_decay=0.1, betas=(0.8, 0.95))
    before, after, seen = trained(settings, RATES)
    for index, start in enumerate(before):
        weight, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
        for step, (rate, grads) in enumerate(zip(RATES, seen, strict=True), start=1):
            if start.ndim > 1:
                weight = weight * (1 - rate * 0.1)
            first = 0.8 * first + 0.2 * grads[index]
            second = 0.95 * second + 0.05 * grads[index] ** 2
            step_size = first / (1 - 0.8**step) / (np.sqrt(second / (1 - 0.95**step)) + 1e-8)
            weight = weight - rate * step_size
        np.testing.assert_allclose(after[index], weight, rtol=1e-10, atol=1e-12)
