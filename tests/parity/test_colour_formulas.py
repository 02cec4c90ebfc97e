"""Batched colour changes equal torchvision's, one image and one operation at a time."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from pretrain.views import ORDERS, ViewSettings, colour, colours_of, luma, recolour, recolouring

CLOSE = {"rtol": 0, "atol": 5e-5}  # torchvision rounds the luma weight of red to 0.2989
OPERATIONS: tuple[Callable[[Tensor, float], Tensor], ...] = (
    tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue,
)  # fmt: skip


@pytest.fixture
def images() -> Tensor:
    """Return four images: noise, a dark one, gray with equal channels, and pure colours that tie in hue."""
    generator = torch.Generator().manual_seed(2)
    noise = torch.rand(4, 3, 24, 20, generator=generator)
    noise[1] *= 0.05
    noise[2] = noise[2, :1]
    noise[3] = (noise[3] > 0.5).float()
    return noise.mul_(255).round_().div_(255)


def changed(images: Tensor, factors: Tensor, orders: Tensor | int = 0, sigma: Tensor | float = 0.0) -> Tensor:
    """Change brightness, contrast, saturation and hue by [batch, 4] factors in each row's order, then blur; nothing else."""
    drawn = torch.zeros(len(images), 8)
    drawn[:, :4], drawn[:, 4], drawn[:, 6] = factors, orders, sigma
    plain = ViewSettings(size=images.shape[-1], mean=(0, 0, 0), std=(1, 1, 1))
    return colour(images.mul(255).round().to(torch.uint8), drawn, plain)


UNCHANGED = torch.tensor([1.0, 1.0, 1.0, 0.0])


@pytest.mark.parametrize("which", range(4), ids=["brightness", "contrast", "saturation", "hue"])
@pytest.mark.parametrize("strength", [-1.0, -0.35, 0.001, 0.6, 1.0])
def test_each_change_equals_torchvisions(images: Tensor, which: int, strength: float) -> None:
    factor = strength * 0.5 if which == 3 else 1 + strength * 0.4
    factors = UNCHANGED.repeat(4, 1)
    factors[:, which] = factor
    found = changed(images, factors)
    torch.testing.assert_close(found, OPERATIONS[which](images, factor), **CLOSE)


def test_changes_are_made_in_the_drawn_order(images: Tensor) -> None:
    factors = torch.tensor([1.3, 0.7, 1.25, 0.08])
    for number, order in enumerate(itertools.permutations(range(4))):
        expected = images
        for which in order:
            expected = OPERATIONS[which](expected, factors[which].item())
        found = changed(images, factors, number)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)  # four changes pass the luma difference on
    assert len(ORDERS) == 24


def test_rows_with_different_orders_do_not_mix(images: Tensor) -> None:
    factors = torch.tensor([[1.3, 0.7, 1.2, 0.1], [0.8, 1.4, 0.6, -0.1], [1.0, 1.0, 1.0, 0.0], [1.1, 0.9, 1.0, 0.05]])
    orders = torch.tensor([0, 23, 7, 11])
    together = changed(images, factors, orders)
    apart = [changed(images[row : row + 1], factors[row], orders[row]) for row in range(4)]
    torch.testing.assert_close(together, torch.cat(apart), rtol=0, atol=1e-6)
    assert torch.equal(together[2], images[2])


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.7, 2.0])
def test_blur_equals_torchvisions_with_the_same_kernel(images: Tensor, sigma: float) -> None:
    found = changed(images, UNCHANGED, sigma=sigma)
    torch.testing.assert_close(found, tv.gaussian_blur(images, [13, 13], [sigma, sigma]), **CLOSE)


def test_each_row_is_blurred_by_its_own_sigma_and_zero_is_left_alone(images: Tensor) -> None:
    found = changed(images, UNCHANGED, sigma=torch.tensor([0.4, 0.0, 1.5, 2.0]))
    assert torch.equal(found[1], images[1])
    for row, sigma in ((0, 0.4), (2, 1.5), (3, 2.0)):
        torch.testing.assert_close(found[row], tv.gaussian_blur(images[row], [13, 13], [sigma, sigma]), **CLOSE)


def test_luma_equals_torchvisions_grayscale(images: Tensor) -> None:
    torch.testing.assert_close(luma(images), tv.rgb_to_grayscale(images), rtol=0, atol=1.1e-4)


def test_whole_colour_step_equals_torchvisions_operations_in_a_row() -> None:
    pixels = torch.randint(0, 256, (5, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(8))
    drawn = torch.tensor([
        [1.2, 0.8, 1.3, 0.05, 3, 0, 0.0, 0], [0.7, 1.1, 0.9, -0.1, 20, 1, 1.2, 0],
        [1.0, 1.0, 1.0, 0.0, 5, 1, 0.0, 0], [1.0, 1.0, 1.0, 0.0, 0, 0, 0.7, 0], [1.0, 1.0, 1.0, 0.0, 0, 0, 0.0, 1],
    ])  # fmt: skip
    settings = ViewSettings(size=20)
    found = colour(pixels, drawn, settings)
    for row, (image, values) in enumerate(zip(pixels, drawn.tolist(), strict=True)):
        expected = tv.to_dtype(image, torch.float32, scale=True)
        for which in ORDERS[int(values[4])].tolist():
            expected = OPERATIONS[which](expected, values[which])
        if values[5]:
            expected = tv.rgb_to_grayscale(expected, num_output_channels=3)
        if values[6]:
            expected = tv.gaussian_blur(expected, [13, 13], [values[6], values[6]])
        if values[7]:
            expected = tv.solarize(expected, 0.5)
        expected = tv.normalize(expected, list(settings.mean), list(settings.std))
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-3)  # 2e-4 / 0.229


def test_the_whole_batch_at_once_is_coloured_as_rows_by_rows_are() -> None:
    settings = ViewSettings(size=12, solarize_probability=0.3)
    units = torch.rand(200, 10, generator=torch.Generator().manual_seed(5)).tolist()
    drawn = colours_of(settings, units)
    crops = torch.randint(0, 256, (200, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(6))
    found = recolour(crops, recolouring(drawn), settings)
    wanted = colour(crops, torch.from_numpy(drawn), settings)
    near = torch.isclose(found, wanted, atol=2e-5)
    assert near.float().mean() > 0.9995  # rounding decides on the few pixels at the threshold of solarisation
    assert len(set(drawn[:, 4])) == 24  # all orders
