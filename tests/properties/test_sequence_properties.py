"""Things that go on step by step: queue, momentum, schedules, the order of an epoch, and crops."""

from itertools import chain

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from one_view import crop_box, draw_colours
from torch import Tensor, nn

from core.backbones import Backbone, Rules
from pretrain.batchnorm import split
from pretrain.heads import follow
from pretrain.loader import EpochOrder
from pretrain.methods.moco import Moco
from pretrain.optimizers import Schedule, cosine
from pretrain.views import ViewSettings, colour, cut

SEEDS = st.integers(0, 2**62)
SHARE = st.floats(0, 1)


class Nothing(Backbone):
    """A backbone of no weights, since only the queue is looked at."""

    feature_dim = 1

    def stages(self, images: Tensor) -> list[Tensor]:
        """Return the images' first channel."""
        return [images[:, :1]]

    @classmethod
    def rename_rules(cls, framework: str) -> Rules:
        """Return nothing."""
        return []


@given(st.integers(1, 20), st.lists(st.integers(1, 20), max_size=8))
def test_queue_holds_the_newest_keys_in_the_order_they_came(length: int, batches: list[int]) -> None:
    batches = [min(batch, length) for batch in batches]
    method = Moco(Moco.Config(queue=length, dim=2), Nothing())
    came = method.queue.T.tolist()
    for batch in batches:
        angles = torch.arange(len(came), len(came) + batch).double()
        keys = torch.stack([angles.cos(), angles.sin()], dim=1).float()  # unit vectors, each another one
        came += keys.tolist()
        method.end_step(5 * keys)
    pointer = int(method.queue_pointer)
    oldest_first = method.queue.roll(-pointer, dims=1)
    torch.testing.assert_close(oldest_first.T, torch.tensor(came[-length:]))
    assert 0 <= pointer < length


@given(st.floats(0, 0.999), SEEDS)
def test_the_key_encoder_lies_between_where_it_was_and_the_query_encoder(key_momentum: float, seed: int) -> None:
    torch.manual_seed(seed)
    query, key = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
    before = [parameter.detach().clone() for parameter in key.parameters()]
    follow(key, query, key_momentum)
    for now, was, goal in zip(key.parameters(), before, query.parameters(), strict=True):
        torch.testing.assert_close(now - was, (1 - key_momentum) * (goal - was))


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), SHARE, SHARE)
def test_cosine_hits_its_ends_and_never_turns_back(start: float, end: float, one: float, other: float) -> None:
    assert cosine(0.0, start, end) == pytest.approx(start, abs=1e-9)
    assert cosine(1.0, start, end) == pytest.approx(end, abs=1e-9)
    early, late = (abs(cosine(point, start, end) - start) for point in sorted((one, other)))
    assert early <= late + 1e-9


@given(st.sampled_from(["cosine", "constant"]), st.floats(0, 0.99), SHARE)
@example("cosine", 0.0, 0.0)
def test_schedule_starts_peaks_and_ends_where_it_should(name: str, warmup: float, point: float) -> None:
    schedule = Schedule(name=name, warmup=warmup)
    assert schedule.factor(0.0) == (1.0 if warmup == 0 else 0.0)
    assert schedule.factor(warmup) == pytest.approx(1.0)
    assert schedule.factor(1.0) == pytest.approx(1.0 if name == "constant" else 0.0, abs=1e-12)
    assert 0 <= schedule.factor(point) <= 1


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 5), SEEDS, st.integers(0, 3), st.data())
def test_ranks_together_see_what_one_process_sees_and_resuming_gives_the_tail(
    count: int, world: int, share: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    batch = world * share

    def batches(rank: int, processes: int, first: int = 0) -> list[list[tuple[int, int]]]:
        order = EpochOrder(count, batch, seed, rank, processes)
        order.epoch, order.first = epoch, first
        found = list(order)
        assert len(order) == len(found)
        return found

    alone = batches(0, 1)
    assert len(alone) == count // batch
    ranks = [batches(rank, world) for rank in range(world)]
    assert [list(chain.from_iterable(parts)) for parts in zip(*ranks, strict=True)] == alone
    seen = [index for one in alone for _, index in one]
    assert len(set(seen)) == len(seen) == count // batch * batch
    assert set(seen) <= set(range(count))
    first = data.draw(st.integers(0, len(alone)))
    assert [batches(rank, world, first) for rank in range(world)] == [rank[first:] for rank in ranks]


@given(SEEDS)
def test_epochs_have_their_own_order_and_leave_other_images_out(seed: int) -> None:
    order = EpochOrder(50, 40, seed, 0, 1)
    left = []
    for order.epoch in range(6):
        (batch,) = list(order)
        assert {number for number, _ in batch} == {order.epoch}
        left.append(frozenset(range(50)) - {index for _, index in batch})
    assert len(set(left)) == 6


@given(st.integers(1, 3000), st.integers(1, 3000), st.floats(0.001, 1), st.floats(0.001, 1), SEEDS)
@example(1, 3000, 0.2, 1.0, 0)
@example(3000, 1, 0.2, 1.0, 0)
@example(1, 1, 0.001, 0.001, 0)
def test_crops_lie_inside_the_image(height: int, width: int, one: float, other: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    top, left, tall, wide = crop_box(height, width, (min(one, other), max(one, other)), generator)
    assert 0 <= top <= top + tall <= height
    assert 0 <= left <= left + wide <= width
    assert tall >= 1
    assert wide >= 1


@given(st.integers(100, 400), st.integers(100, 400), SEEDS)
def test_crops_of_ordinary_images_have_the_asked_area_and_shape(height: int, width: int, seed: int) -> None:
    assume(3 / 4 <= width / height <= 4 / 3)
    _, _, tall, wide = crop_box(height, width, (0.3, 0.5), torch.Generator().manual_seed(seed))
    assert 0.97 * 0.3 <= tall * wide / (height * width) <= 1.03 * 0.5
    assert 0.97 * 3 / 4 <= wide / tall <= 1.03 * 4 / 3


@given(st.integers(1, 40), st.integers(1, 40), SEEDS)
def test_a_view_holds_no_colour_that_the_image_does_not_span(height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(40, 90, (3, height, width), generator=generator, dtype=torch.uint8)
    view = torch.empty(3, 8, 8, dtype=torch.uint8)
    box = crop_box(height, width, ViewSettings().scale, generator)
    cut(image.permute(1, 2, 0).numpy(), box, seed % 2 == 1, view.numpy())
    for channel, source in zip(view, image, strict=True):
        assert source.min() <= channel.min() <= channel.max() <= source.max()


@given(st.integers(8, 14), SEEDS)
def test_colours_stay_on_the_scale_of_pixels(size: int, seed: int) -> None:
    settings = ViewSettings(size=size, mean=(0, 0, 0), std=(1, 1, 1), hue=0.5, brightness=1, contrast=1, saturation=1)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (4, 3, size, size), generator=generator, dtype=torch.uint8)
    drawn = draw_colours(settings, generator, 4)
    found = colour(images, drawn, settings)
    assert found.min() >= -1e-5
    assert found.max() <= 1 + 1e-5
    alone = [colour(images[row : row + 1], drawn[row : row + 1], settings) for row in range(4)]
    torch.testing.assert_close(found, torch.cat(alone), rtol=0, atol=1e-5)


@given(SEEDS)
def test_drawn_colours_are_inside_their_ranges(seed: int) -> None:
    settings = ViewSettings(jitter_probability=1.0, blur_probability=1.0, gray_probability=0.0)
    *factors, hue, order, gray, sigma, solarized = draw_colours(settings, torch.Generator().manual_seed(seed))[
        0
    ].tolist()
    assert all(0.6 - 1e-6 <= factor <= 1.4 + 1e-6 for factor in factors)
    assert -0.1 - 1e-6 <= hue <= 0.1 + 1e-6
    assert order in range(24)
    assert (gray, solarized) == (0, 0)
    assert 0.1 - 1e-6 <= sigma <= 2.0 + 1e-6


@given(st.integers(1, 4), st.integers(2, 4), SEEDS)
def test_a_part_of_split_batch_norm_does_not_see_the_others(parts: int, share: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(parts * share, 2, 3, 3, generator=generator)
    norm = nn.Sequential(nn.BatchNorm2d(2))
    split(norm, parts)
    before = norm(images)
    images[share:] += 5
    images[share:] *= 3
    torch.testing.assert_close(norm(images)[:share], before[:share])


@given(SEEDS, st.floats(0, 1), st.floats(0, 1))
def test_the_second_view_differs_only_where_it_is_told_to(seed: int, blurred: float, solarized: float) -> None:
    settings = ViewSettings(second_blur_probability=blurred, second_solarize_probability=solarized)
    assert settings.of_view(0) == settings
    same = settings.of_view(1).model_dump(exclude={"blur_probability", "solarize_probability"})
    assert same == settings.model_dump(exclude={"blur_probability", "solarize_probability"})
    assert (settings.of_view(1).blur_probability, settings.of_view(1).solarize_probability) == (blurred, solarized)
    first, second = (
        draw_colours(settings.of_view(view), torch.Generator().manual_seed(seed))[0].tolist() for view in (0, 1)
    )
    assert first[:6] == second[:6]
