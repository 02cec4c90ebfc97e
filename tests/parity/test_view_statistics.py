"""The MoCo v2, SimCLR and BYOL recipes draw from torchvision's distributions: two-sample Kolmogorov-Smirnov, means, rates.

Seeds are fixed, so nothing here fails by chance; ``SURE`` is what chance would give less often than once in a thousand tests.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, ks_2samp
from torch import Tensor, nn
from torchvision.transforms import v2

from core.provenance import derive
from pretrain.views import PERMUTATIONS, ViewSettings, box_of, colour, colours_of, draw

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
