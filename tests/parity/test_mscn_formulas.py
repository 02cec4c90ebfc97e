"""MSCN's filter and masked views equal the loops; its loss is the plain contrast of two erased views."""

from typing import Any

import formulas
import numpy as np
import pytest
import tiny
import torch

from pretrain.branches import Draws
from pretrain.branches.mscn import Mscn
from pretrain.fills import high_pass
from pretrain.losses import unit
from pretrain.objective import Objective


def mscn(**config: Any) -> Mscn:
    """Return MSCN with a 4 px grid."""
    return Mscn(Mscn.Config.model_validate({"cell": 4, "ratio": [0.1, 0.5]} | config))


@pytest.mark.parametrize(("kernel", "sigma"), [(11, 5.0), (3, 0.5), (7, 2.0)])
def test_high_pass_is_the_image_less_its_gaussian_blur(kernel: int, sigma: float) -> None:
    images = tiny.pair(count=2, size=12)[0]
    wanted = [formulas.high_pass(image, kernel, sigma) for image in images.numpy()]
    np.testing.assert_allclose(high_pass(images, kernel, sigma).numpy(), wanted, atol=1e-12)


def test_high_pass_of_one_colour_is_zero_up_to_the_edges() -> None:
    image = torch.tensor([0.3, -2.0, 7.0], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 14, 14)
    assert high_pass(image, 11, 5.0).abs().max() < 1e-12


def test_visible_pixels_are_high_passed_and_hidden_ones_are_filled() -> None:
    images, other = tiny.pair(count=12, size=12)
    mixed = mscn(fill={"name": "zero"}).mix(images, other, Draws(0, 0, "masked/0"))
    wanted = np.stack([formulas.high_pass(image) for image in images.numpy()])
    wanted[mixed.mask.numpy()] = 0
    np.testing.assert_allclose(mixed.query.numpy(), wanted, atol=1e-12)
    assert (mixed.key == 0).any()
    assert mixed.partner is None
    assert mixed.lam.tolist() == [1.0] * 12


def test_without_the_filter_visible_pixels_are_the_images_own() -> None:
    images, other = tiny.pair(count=6, size=12)
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
    first, second = tiny.pair(size=12)
    maker = mscn(weight=0.5, sides=sides)
    objective = Objective(tiny.moco(), {"masked": maker}, 0.0, seed=4)
    scored = objective(first, second, step=9)
    mixed = maker.mix(first, second, Draws(4, 9, "masked/0"))
    method = objective.method
    keys = tiny.features(method.key_encoder, second if sides == "query" else mixed.key)
    query = tiny.features(method.query_encoder, mixed.query)
    rows = formulas.info_nce(query, keys, method.queue.numpy(), method.config.temperature)
    assert scored.loss.item() == pytest.approx(0.5 * rows.mean(), rel=1e-9)
    assert set(scored.parts) == {"loss/masked", "lam/masked"}
    np.testing.assert_allclose(unit(scored.keys[0]).numpy(), keys, atol=1e-12)  # what the queue will remember


def test_the_high_pass_is_not_rounded_under_autocast() -> None:
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + 2
    with torch.autocast("cpu", torch.bfloat16):
        found = high_pass(images, 11, 5.0)
    assert torch.equal(found, high_pass(images, 11, 5.0))
