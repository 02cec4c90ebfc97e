"""Views are torchvision's: colours image by image and operation by operation, and the distributions they are drawn from.

The recipes of MoCo v2, SimCLR and BYOL: two-sample Kolmogorov-Smirnov, means, rates. Seeds are fixed, so nothing here fails by
chance; ``SURE`` is what chance would give less often than once in a thousand tests.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, ks_2samp
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from core.provenance import derive
from pretrain.views import (
    ORDERS,
    PERMUTATIONS,
    ViewSettings,
    box_of,
    colour,
    colours_of,
    draw,
    luma,
    recolour,
    recolouring,
)

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


SURE = 1e-3
COUNT = 3000
RECIPES = {
    "moco v2": ViewSettings(),
    "simclr": ViewSettings(scale=(0.08, 1.0), brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2),
    "byol": ViewSettings(
        scale=(0.08, 1.0), saturation=0.2, blur_probability=1.0, second_blur_probability=0.1, second_solarize_probability=0.2
    ),
}  # fmt: skip


def same(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Assert that two samples may come from one distribution, by KS and by their means."""
    assert ks_2samp(ours, theirs).pvalue > SURE
    error = math.hypot(ours.std() / math.sqrt(len(ours)), theirs.std() / math.sqrt(len(theirs)))
    assert abs(ours.mean() - theirs.mean()) < 3.3 * error + 1e-12
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        reach = 4 * math.sqrt(share * (1 - share) * (1 / len(ours) + 1 / len(theirs)))
        low, high = np.quantile(theirs, [max(0, share - reach), min(1, share + reach)])
        assert low <= np.quantile(ours, share) <= high


def rate(found: np.ndarray, probability: float) -> None:
    """Assert that an event is as frequent as asked."""
    assert binomtest(int(found.sum()), len(found), probability).pvalue > SURE


def drawn(settings: ViewSettings, seed: int, height: int = 375, width: int = 500) -> tuple[np.ndarray, ...]:
    """Draw boxes [COUNT, 4], flips [COUNT] and colour changes [COUNT, 8]."""
    generator = torch.Generator()
    views = [draw(generator.manual_seed(derive(seed, "view", 0, number, 0))) for number in range(COUNT)]
    boxes = [box_of(height, width, settings.scale, view.box) for view in views]
    flips = [view.flip < settings.flip_probability for view in views]
    return np.array(boxes), np.array(flips), colours_of(settings, [view.unit for view in views])


@pytest.mark.parametrize("size", [(375, 500), (500, 334), (90, 400)], ids=["landscape", "upright", "a strip"])
@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.08, 1.0)])
def test_boxes_have_torchvisions_area_shape_and_place(size: tuple[int, int], scale: tuple[float, float]) -> None:
    ours = drawn(ViewSettings(scale=scale), 1, *size)[0]
    torch.manual_seed(1)
    cropping, image = v2.RandomResizedCrop(224, scale=scale), torch.empty(3, *size)
    made = [cropping.make_params([image]) for _ in range(COUNT)]
    theirs = np.array([[one[key] for key in ("top", "left", "height", "width")] for one in made])
    for statistic in (
        lambda box: box[:, 2] * box[:, 3] / (size[0] * size[1]),  # share of the area
        lambda box: np.log(box[:, 3] / box[:, 2]),  # shape
        lambda box: box[:, 0], lambda box: box[:, 1],
        lambda box: box[:, 0] + box[:, 2] / 2, lambda box: box[:, 1] + box[:, 3] / 2,  # centre
    ):  # fmt: skip
        same(statistic(ours).astype(float), statistic(theirs).astype(float))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("view", [0, 1])
def test_drawn_changes_have_the_recipes_rates_and_torchvisions_factors(recipe: str, view: int) -> None:
    settings = RECIPES[recipe].of_view(view)
    _, flips, changes = drawn(settings, 2 + view)
    rate(flips, 0.5)
    jittered = (changes[:, :4] != [1, 1, 1, 0]).any(axis=1)
    rate(jittered, 0.8)
    rate(changes[:, 5] == 1, 0.2)
    rate(changes[:, 6] > 0, settings.blur_probability)
    rate(changes[:, 7] == 1, settings.solarize_probability)
    strengths = (settings.brightness, settings.contrast, settings.saturation, settings.hue)
    torch.manual_seed(view)
    jitter = v2.ColorJitter(*strengths)
    made = [jitter.make_params([]) for _ in range(COUNT)]
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    for number, name in enumerate(names):
        same(changes[jittered, number], np.array([one[name] for one in made]))
    places = np.array([PERMUTATIONS[int(order)].index(3) for order in changes[jittered, 4]])
    theirs = np.array([[int(fn) for fn in one["fn_idx"]].index(3) for one in made])
    assert np.abs(np.bincount(places) / len(places) - np.bincount(theirs) / COUNT).max() < 0.045
    blurred = changes[:, 6][changes[:, 6] > 0]
    blur = v2.GaussianBlur(13, settings.blur_sigma)
    same(blurred, np.array([blur.make_params([])["sigma"][0] for _ in range(COUNT)]))
    for one, other in ((0, 1), (1, 2), (2, 3), (0, 3)):  # drawn apart from each other
        assert abs(np.corrcoef(changes[jittered, one], changes[jittered, other])[0, 1]) < 0.07


class MakeParams(nn.Module):
    """Torchvision's v2 form of a recipe, image by image."""

    def __init__(self, settings: ViewSettings) -> None:
        super().__init__()
        jitter = v2.ColorJitter(settings.brightness, settings.contrast, settings.saturation, settings.hue)
        self.changes = v2.Compose([
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomApply([jitter], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.RandomApply([v2.GaussianBlur(13, settings.blur_sigma)], p=settings.blur_probability),
            v2.RandomSolarize(0.5, p=settings.solarize_probability),
            v2.Normalize(settings.mean, settings.std),
        ])  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Change each image by draws of its own."""
        return torch.stack([self.changes(image) for image in images])


STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean(dim=(1, 2, 3)),
    "spread": lambda x: x.std(dim=(1, 2, 3)),
    "lower quartile": lambda x: x.flatten(1).quantile(0.25, dim=1),
    "upper quartile": lambda x: x.flatten(1).quantile(0.75, dim=1),
    "red against blue": lambda x: (x[:, 0] - x[:, 2]).mean(dim=(1, 2)),
    "colourfulness": lambda x: x.std(dim=1).mean(dim=(1, 2)),
    "sharpness": lambda x: (x[..., 1:] - x[..., :-1]).abs().mean(dim=(1, 2, 3)),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("view", [0, 1])
def test_changed_images_have_torchvisions_statistics(recipe: str, view: int) -> None:
    settings, count = RECIPES[recipe].of_view(view).model_copy(update={"size": 16}), 700
    generator = torch.Generator().manual_seed(9)
    base = torch.rand(3, 6, 6, generator=generator)[None]  # one image: all differences come from the draws
    image = (torch.nn.functional.interpolate(base, size=16, mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)
    changes = torch.from_numpy(colours_of(settings, [draw(generator).unit for _ in range(count)]))
    ours = colour(image.expand(count, -1, -1, -1), changes, settings)
    torch.manual_seed(10 + view)
    theirs = MakeParams(settings)(image.expand(count, -1, -1, -1))
    for name, statistic in STATISTICS.items():
        one, other = statistic(ours).double().numpy().round(4), statistic(theirs).double().numpy().round(4)
        assert ks_2samp(one, other).pvalue > SURE, name
        error = math.hypot(one.std(), other.std()) / math.sqrt(count)
        assert abs(one.mean() - other.mean()) < 3.3 * error, name


def test_the_comparison_tells_a_changed_recipe_apart() -> None:
    weaker = RECIPES["moco v2"].model_copy(update={"brightness": 0.35})
    ours, theirs = (drawn(settings, 4)[2] for settings in (weaker, RECIPES["moco v2"]))
    with pytest.raises(AssertionError):
        same(ours[:, 0], theirs[:, 0])
    with pytest.raises(AssertionError):
        rate(theirs[:, 5] == 1, 0.25)
