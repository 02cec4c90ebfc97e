"""Split batch norm on one process equals as many devices that each normalise their own rows."""

import formulas
import numpy as np
import pytest
import tiny
import torch
from torch import nn

from pretrain.batchnorm import SplitBatchNorm2d, split
from pretrain.losses import unit


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_each_part_is_normalised_by_its_own_statistics(parts: int) -> None:
    images = 3 * tiny.pair(count=8, size=6)[0] + 1
    norm = SplitBatchNorm2d(3).double()
    norm.parts = parts
    found = norm(images).detach().numpy()
    wanted = [formulas.batch_norm(part, norm.eps) for part in np.split(images.numpy(), parts)]
    np.testing.assert_allclose(found, np.concatenate(wanted), atol=1e-10)


def test_output_gradients_and_running_statistics_equal_separate_batches() -> None:
    images = tiny.pair(count=8, size=6)[0]
    weights = torch.randn(8, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together = nn.Sequential(nn.BatchNorm2d(3)).double()
    apart = [nn.BatchNorm2d(3).double() for _ in range(4)]
    split(together, 4)
    for _ in range(3):
        (together(images) * weights).sum().backward()
        for norm, part, weight in zip(apart, images.chunk(4), weights.chunk(4), strict=True):
            (norm(part) * weight).sum().backward()
    norm = together[0]
    torch.testing.assert_close(norm.weight.grad, sum(one.weight.grad for one in apart))
    torch.testing.assert_close(norm.bias.grad, sum(one.bias.grad for one in apart))
    torch.testing.assert_close(norm.running_mean, torch.stack([one.running_mean for one in apart]).mean(dim=0))
    torch.testing.assert_close(norm.running_var, torch.stack([one.running_var for one in apart]).mean(dim=0))
    assert norm.num_batches_tracked.item() == 3


def test_evaluation_uses_the_running_statistics_whatever_the_parts() -> None:
    images = tiny.pair(count=5, size=6)[0]  # five rows cannot be split, and need not be
    plain, parted = nn.BatchNorm2d(3).double(), nn.Sequential(nn.BatchNorm2d(3)).double()
    split(parted, 2)
    for norm in (plain, parted[0]):
        norm.running_mean.fill_(0.4)
        norm.running_var.fill_(2.0)
    torch.testing.assert_close(parted.eval()(images), plain.eval()(images))


def test_tensor_names_do_not_change() -> None:
    plain, parted = tiny.Tiny(), tiny.Tiny()
    split(parted, 2)
    assert list(parted.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_split_keys_are_those_of_the_rows_that_the_shuffle_puts_together(seed: int) -> None:
    images = tiny.pair(count=6)[0]
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    assert not torch.equal(order, order.argsort())  # or undoing the shuffle could not be told from doing it again
    wanted = np.zeros((6, 4))
    for part in order.view(2, 3).tolist():
        wanted[part] = tiny.features(tiny.moco().key_encoder, images[part])
    found = unit(tiny.shipped_moco(split_bn=2).encode_key(images.float(), shuffle_seed=seed))
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


def test_split_queries_are_normalised_in_the_order_they_come() -> None:
    images = tiny.pair(count=4)[0]
    found = unit(tiny.shipped_moco(split_bn=2).embed(images.float())).detach().numpy()
    wanted = [tiny.features(tiny.moco().query_encoder, part) for part in images.chunk(2)]
    np.testing.assert_allclose(found, np.concatenate(wanted), atol=1e-6)
