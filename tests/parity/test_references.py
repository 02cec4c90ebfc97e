"""The slow references give the numbers one gets with pencil and paper."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import references as slow

E = math.e
RIGHT, UP, LEFT = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def rows(*values: list[float]) -> np.ndarray:
    """Return the vectors as float64 rows."""
    return np.array(values, dtype=np.float64)


def random_rows(seed: int, count: int = 4, dim: int = 3) -> np.ndarray:
    """Return seeded normal rows."""
    return np.random.default_rng(seed).normal(size=(count, dim))


def test_unit_rows_of_a_three_four_five_triangle() -> None:
    np.testing.assert_allclose(slow.unit(rows([3, 4], [0, -2])), rows([0.6, 0.8], [0, -1]), atol=1e-15)


def test_info_nce_of_one_equal_key_against_a_right_angle_and_an_opposite() -> None:
    found = slow.info_nce(rows(RIGHT), rows(RIGHT), rows(UP, LEFT).T, 0.5)
    assert found == pytest.approx([math.log(E**2 + 1 + E**-2) - 2], rel=1e-14)


def test_info_nce_multiplies_the_logit_of_its_own_row_s_hard_negative_by_alpha() -> None:
    query = rows(RIGHT, UP)
    found = slow.info_nce(query, query, rows(LEFT).T, 1.0, extra=rows(RIGHT, LEFT), alpha=2.0)
    first = -math.log(E / (E + 1 / E + E**2))  # the negative is opposite, the hard one the same
    second = -math.log(E / (E + 1 + 1))  # both are at right angles
    assert found == pytest.approx([first, second], rel=1e-14)
    colder = slow.info_nce(query, query, rows(LEFT).T, 0.5, extra=rows(RIGHT, LEFT), alpha=2.0)
    assert colder[0] == pytest.approx(-math.log(E**2 / (E**2 + E**-2 + E**4)), rel=1e-14)


def test_nt_xent_multiplies_the_logit_of_its_own_row_s_hard_negative_by_alpha() -> None:
    query, key = rows([2, 0], [0, 3]), rows([5, 0], [0, 1])
    found = slow.nt_xent_directional(query, key, 1.0, extra=rows([7, 0], [4, 0]), alpha=3.0)
    assert found == pytest.approx([math.log(E + 2 + E**3) - 1, math.log(E + 2 + 1) - 1], rel=1e-14)


def test_info_nce_survives_logits_whose_exponentials_overflow() -> None:
    query = rows([40, 0])
    assert slow.info_nce(query, -query, rows(UP).T, 0.1) == pytest.approx([16000.0])


def test_nt_xent_of_two_pairs_at_right_angles() -> None:
    found = slow.nt_xent(rows([2, 0], [0, 3]), rows([5, 0], [0, 1]), 1.0)
    assert found == pytest.approx([math.log(E + 2) - 1] * 4, rel=1e-14)


def test_nt_xent_leaves_only_the_positive_out_of_the_negatives() -> None:
    """Cosines from row 0 (right): its positive is up (0), its negatives are left (-1) and right (1)."""
    found = slow.nt_xent(rows(RIGHT, LEFT), rows(UP, RIGHT), 1.0)
    assert found[0] == pytest.approx(math.log(1 + 1 / E + E), rel=1e-14)
    assert found[1] == pytest.approx(math.log(1 / E + 1 / E + 1) + 1, rel=1e-14)


def test_nt_xent_is_the_two_directions_one_after_the_other() -> None:
    first, second = random_rows(0), random_rows(1)
    halves = [slow.nt_xent_directional(first, second, 0.3), slow.nt_xent_directional(second, first, 0.3)]
    np.testing.assert_allclose(slow.nt_xent(first, second, 0.3), np.concatenate(halves), rtol=1e-14)


def test_one_direction_has_two_n_minus_two_negatives() -> None:
    same = rows(*[[1.0, 2.0]] * 5)
    np.testing.assert_allclose(slow.nt_xent_directional(same, same, 0.1), [math.log(9)] * 5, rtol=1e-14)


def test_byol_and_simsiam_of_equal_right_angled_opposite_and_sixty_degree_rows() -> None:
    prediction = rows(RIGHT, RIGHT, RIGHT, RIGHT)
    key = rows([7, 0], [0, 2], [-3, 0], [1, math.sqrt(3)])
    assert slow.byol(prediction, key) == pytest.approx([0, 2, 4, 1])
    assert slow.simsiam(prediction, key) == pytest.approx([-1, 0, 1, -0.5])


def test_two_terms_weigh_own_key_and_partner_key_by_the_row_s_lam() -> None:
    found = slow.two_term(slow.simsiam, rows(RIGHT, UP), rows(RIGHT, LEFT), [1, 0], [0.75, 0.5])
    assert found == pytest.approx([0.75 * -1 + 0.25 * 1, 0])


def test_one_lam_serves_all_rows_and_one_means_the_plain_loss() -> None:
    query, key = random_rows(2), random_rows(3)
    np.testing.assert_array_equal(slow.two_term(slow.byol, query, key, [3, 2, 1, 0], 1), slow.byol(query, key))


def queue_loss(query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return InfoNCE against six fixed negatives."""
    return slow.info_nce(query, key, random_rows(9, 6).T, 0.2)


def batch_loss(query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return one direction of NT-Xent, in which rows see each other."""
    return slow.nt_xent_directional(query, key, 0.5)


@pytest.mark.parametrize("loss", [queue_loss, batch_loss, slow.byol, slow.simsiam])
@pytest.mark.parametrize("lam", [0.3, [0.1, 0.4, 0.7, 0.95]])
def test_flipping_the_mixtures_equals_flipping_the_keys_in_the_mean(
    loss: Callable[[np.ndarray, np.ndarray], np.ndarray], lam: float | list[float]
) -> None:
    query, key = random_rows(4), random_rows(5)
    wanted = slow.two_term(loss, query, key, [3, 2, 1, 0], lam)
    found = slow.release_form(loss, query, key, lam)
    assert found.mean() == pytest.approx(wanted.mean(), rel=1e-13)
    assert not np.allclose(found, wanted), "only the means agree, row by row they are other sums"


def test_mixsiam_scores_against_the_greater_features_as_given() -> None:
    first, second = rows([3, -1], [0, 2]), rows([1, 4], [0, 5])
    assert slow.mixsiam_target(first, second).tolist() == [[3, 4], [0, 5]]
    assert slow.mixsiam_loss(rows(RIGHT, UP), first, second) == pytest.approx([-0.6, -1])


def test_averages_keep_the_momentum_s_share_of_the_old() -> None:
    assert slow.ema(rows([1, 2], [3, 4]), rows([5, 6], [7, 8]), 0.75) == pytest.approx(rows([2, 3], [4, 5]))


def test_momentum_rises_from_its_base_to_one_along_half_a_cosine() -> None:
    found = [slow.cosine_momentum(0.996, progress) for progress in (0, 1 / 3, 0.5, 1)]
    assert found == pytest.approx([0.996, 0.997, 0.998, 1], abs=1e-15)


def test_effective_rank_counts_equal_directions_and_discounts_weak_ones() -> None:
    assert slow.effective_rank(4 * np.eye(5)[:, :3]) == pytest.approx(3)
    assert slow.effective_rank(np.outer([1.0, 2, 3], [1.0, -1])) == pytest.approx(1)
    assert slow.effective_rank(np.diag([3.0, 1.0])) == pytest.approx(4 / 3**0.75)  # p = 3/4, 1/4


def test_spread_of_embeddings_is_that_of_unit_rows() -> None:
    assert slow.embedding_std(rows([2, 0], [-3, 0], [0, 5], [0, -1])) == pytest.approx(1 / math.sqrt(2))
    assert slow.embedding_std(rows([1, 1], [4, 4])) == pytest.approx(0, abs=1e-15)
    assert slow.embedding_std(rows([1, 0], [0, 9])) == pytest.approx(0.5)


def plane(values: list[list[float]]) -> np.ndarray:
    """Return one image whose three channels are 1, 10 and 100 times the values."""
    return np.array(
        [[[factor * value for value in row] for row in values] for factor in (1, 10, 100)], dtype=np.float64
    )


def test_hidden_pixels_come_from_the_partner() -> None:
    images = np.stack([plane([[1, 2], [3, 4]]), plane([[5, 6], [7, 8]])])
    mask = np.array([[[True, False], [False, True]], [[False, False], [False, True]]])
    wanted = np.stack([plane([[5, 2], [3, 8]]), plane([[5, 6], [7, 4]])])
    np.testing.assert_array_equal(slow.mix_by_mask(images, mask, [1, 0]), wanted)
    np.testing.assert_array_equal(slow.mix_by_mask(images, mask[:, None], [1, 0]), wanted)
    assert slow.lam_of(mask).tolist() == [0.5, 0.75]


def test_a_mask_per_channel_hides_channel_by_channel() -> None:
    images = np.stack([plane([[1]]), plane([[2]])])
    mask = np.array([True, False, False, False, False, True]).reshape(2, 3, 1, 1)
    assert slow.mix_by_mask(images, mask, [1, 0]).ravel().tolist() == [2, 10, 100, 2, 20, 100]
    assert slow.lam_of(mask) == pytest.approx([2 / 3, 2 / 3])


def test_mixup_blends_with_the_partner() -> None:
    images = np.stack([plane([[0, 4]]), plane([[8, 4]])])
    wanted = np.stack([plane([[2, 4]]), plane([[4, 4]])])
    assert slow.mixup(images, [0.75, 0.5], [1, 0]) == pytest.approx(wanted)
    assert slow.mixup(images, 1.0, [1, 0]) == pytest.approx(images)


@pytest.mark.parametrize(
    ("size", "lam", "centre", "box", "share"),
    [
        ((8, 8), 0.75, (4, 4), (2, 6, 2, 6), 0.75),
        ((8, 8), 0.75, (0, 7), (0, 2, 5, 8), 58 / 64),  # clipped at the top and at the right
        ((4, 12), 0.75, (2, 6), (1, 3, 3, 9), 0.75),  # not square
        ((10, 10), 0.75, (5, 5), (3, 7, 3, 7), 0.84),  # a side of 5 becomes 2 + 2
        ((8, 8), 1.0, (4, 4), (4, 4, 4, 4), 1.0),
        ((8, 8), 0.0, (4, 4), (0, 8, 0, 8), 0.0),
    ],
)
def test_cutmix_boxes_are_clipped_and_their_share_is_counted(
    size: tuple[int, int], lam: float, centre: tuple[int, int], box: tuple[int, int, int, int], share: float
) -> None:
    assert slow.cutmix_box(*size, lam, *centre) == (box, pytest.approx(share))


def test_gaussian_kernel_of_three_by_three_by_hand() -> None:
    sigma = 1 / math.sqrt(2 * math.log(2))  # one pixel off the centre weighs exactly a half
    wanted = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    assert slow.gaussian_kernel(3, sigma) == pytest.approx(wanted, rel=1e-14)
    assert slow.gaussian_kernel(11, 5.0).sum() == pytest.approx(1)


def test_borders_are_mirrored_without_repeating_the_end_pixel() -> None:
    assert [slow.reflect(place, 4) for place in range(-3, 7)] == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]
    assert [slow.reflect(place, 2) for place in range(-3, 5)] == [1, 0, 1, 0, 1, 0, 1, 0]


def test_blur_and_high_pass_of_a_dot_in_a_corner() -> None:
    sigma = 1 / math.sqrt(2 * math.log(2))
    image = plane([[16, 0, 0], [0, 0, 0], [0, 0, 0]])
    blurred = plane([[4, 2, 0], [2, 1, 0], [0, 0, 0]])  # the corner is its own mirror's axis: it is met once
    assert slow.blur(image, 3, sigma) == pytest.approx(blurred)
    assert slow.high_pass(image, 3, sigma) == pytest.approx(image - blurred)
    beside = plane([[0, 16, 0], [0, 0, 0], [0, 0, 0]])  # met twice from the corner: once in place, once in the mirror
    assert slow.blur(beside, 3, sigma) == pytest.approx(plane([[4, 4, 4], [2, 2, 2], [0, 0, 0]]))


def test_high_pass_of_one_colour_is_nothing() -> None:
    assert np.abs(slow.high_pass(plane([[0.25] * 9] * 8))).max() < 1e-12


def test_foreground_takes_in_cells_a_little_below_the_mean() -> None:
    """Eight cells of 7, eight of -7, two of 2.3, two of -2.3 and zeros: mean 0, variance (784 + 21.16) / 49 = 4.054^2."""
    saliency = np.zeros((7, 7))
    saliency.ravel()[:8], saliency.ravel()[8:16] = 7, -7
    saliency.ravel()[[20, 21]], saliency.ravel()[[22, 23]] = 2.3, -2.3
    low, lowest = [22, 23], list(range(8, 16))
    for share, wanted in [(0.6, lowest), (0.5, [*lowest, *low])]:  # the limits are 2.43 and 2.03 below the mean
        assert np.flatnonzero(~slow.foreground(saliency + 5, share)).tolist() == wanted


@pytest.mark.parametrize("value", [3.0, 0.1, 1 / 3, -0.7])
def test_flat_maps_are_foreground_all_over(value: float) -> None:
    assert slow.foreground(np.full((7, 7), value)).all()


@pytest.mark.parametrize(
    ("hidden", "front", "back", "wanted"),
    [
        (10, 25, 24, (5, 5)),  # 5.10 and 4.90
        (7, 10, 39, (1, 6)),  # 1.43 and 5.57
        (7, 12, 37, (2, 5)),  # 1.71 and 5.29
        (5, 49, 0, (5, 0)),
        (5, 0, 49, (0, 5)),
        (1, 2, 2, (1, 0)),  # a tie
        (49, 20, 29, (20, 29)),
        (0, 20, 29, (0, 0)),
    ],
)
def test_hidden_cells_are_split_by_area_without_losing_one(
    hidden: int, front: int, back: int, wanted: tuple[int, int]
) -> None:
    assert slow.split_ratio(hidden, front, back) == wanted


def test_split_never_asks_for_more_cells_than_there_are() -> None:
    for front in range(50):
        for hidden in range(50):
            found = slow.split_ratio(hidden, front, 49 - front)
            assert sum(found) == hidden
            assert found[0] <= front
            assert found[1] <= 49 - front


def test_hard_negatives_hide_the_nearest_number_of_foreground_cells_and_at_least_one() -> None:
    assert [slow.hard_negative_count(*case) for case in [(0.5, 20), (0.4, 21), (0.7, 21), (0.4, 1)]] == [
        10, 8, 15, 1,
    ]  # fmt: skip


def test_exact_share_wants_whole_cells_and_the_asked_number_of_them() -> None:
    cells = np.array([[True, False], [False, True]])
    mask = cells.repeat(3, axis=0).repeat(4, axis=1)
    assert slow.is_exact_share(mask, 2, 0.5)
    assert not slow.is_exact_share(mask, 2, 0.25)
    assert not slow.is_exact_share(mask, 3, 0.5)  # cells of the wrong size
    mask[0, 0] = False
    assert not slow.is_exact_share(mask, 2, 0.5)  # a ragged cell


def test_exact_share_refuses_empty_and_full_masks_and_grids_finer_than_pixels() -> None:
    assert not slow.is_exact_share(np.zeros((8, 8), dtype=bool), 2, 0.1)
    assert not slow.is_exact_share(np.ones((8, 8), dtype=bool), 2, 0.9)
    assert not slow.is_exact_share(np.eye(2, dtype=bool), 4, 0.125)


def test_exact_share_of_an_odd_grid_takes_either_neighbour_of_a_half() -> None:
    for hidden, wanted in [(3, False), (4, True), (5, True), (6, False)]:
        mask = (np.arange(9) < hidden).reshape(3, 3)
        assert slow.is_exact_share(mask, 3, 0.5) is wanted
