"""The renderer of the embedded set: the same bytes everywhere, consistent masks, recognisable classes."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from core.contours import FULL, OUTLINES, PIXEL, fill, place
from core.shapes import CLASSES, FAVOURITES, MIN_VISIBLE, render
from core.textures import TEXTURES
from transfer.datasets.shapes import jpeg

PIXELS = "0c9c3e551487e3265b04e44b602498ac1923b3964006b78ea41b1a20e9429107"
FILES = "19675b0bc9d9db955d2ef6698b355e7fec816873db0964818c81b141fdc3f465"


def hashes() -> list[str]:
    pixels, files = hashlib.sha256(), hashlib.sha256()
    for seed, index, size in ((0, 0, 128), (1, 7, 128), (2, 300, 128), (1000, 1999, 96), (5, 5, 224)):
        scene = render(seed, index, size)
        pixels.update(scene.image.tobytes() + b"".join(item.mask.tobytes() for item in scene.objects))
        files.update(jpeg(scene.image))
    return [pixels.hexdigest(), files.hexdigest()]


def test_rendered_pixels_and_encoded_files_have_the_pinned_bytes():
    assert hashes() == [PIXELS, FILES]


def test_other_instruction_sets_give_the_same_bytes():
    code = "from test_shapes import hashes; print(*hashes())"
    plain = {
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
        "JSIMD_FORCENONE": "1",
        "PYTHONPATH": os.path.dirname(__file__),
    }
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env={**os.environ, **plain}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [PIXELS, FILES]


def test_a_scene_depends_on_seed_index_and_size_only():
    first = render(3, 4).image
    render(9, 9)
    assert np.array_equal(first, render(3, 4).image)
    assert not np.array_equal(first, render(3, 5).image)
    assert not np.array_equal(first, render(4, 4).image)


def test_all_classes_appear_about_equally_often_with_one_to_three_objects():
    scenes = [render(1, index) for index in range(120)]
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3}
    counts = np.bincount([item.label for scene in scenes for item in scene.objects], minlength=len(CLASSES))
    assert len(counts) == len(CLASSES) >= 8
    assert counts.min() > 0.5 * counts.mean()


def test_masks_are_disjoint_and_large_enough_and_boxes_are_tight():
    for index in range(30):
        objects = render(2, index).objects
        assert np.sum([item.mask for item in objects], axis=0).max() == 1
        for item in objects:
            left, top, right, bottom = item.box
            assert item.mask.sum() >= MIN_VISIBLE
            assert item.mask[top:bottom, left:right].sum() == item.mask.sum()
            assert all(edge.any() for edge in (item.mask[top], item.mask[bottom - 1]))
            assert all(edge.any() for edge in (item.mask[:, left], item.mask[:, right - 1]))


def test_some_objects_are_partly_hidden():
    boxes = [[item.box for item in render(1, index).objects] for index in range(40)]
    overlaps = sum(
        a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for x in boxes for a in x for b in x if a < b
    )
    assert overlaps > 8


def test_an_object_differs_from_what_surrounds_it():
    differences = []
    for index in range(40):
        scene = render(1, index)
        around = ~np.any([item.mask for item in scene.objects], axis=0)
        differences += [np.abs(scene.image[i.mask].mean(0) - scene.image[around].mean(0)).sum() for i in scene.objects]
    assert np.median(differences) > 100


def test_the_fill_is_exact_on_a_square_and_on_a_cut_one():
    corners = np.array([(1, 1), (3, 1), (3, 3), (1, 3)]) * PIXEL
    window, covered = fill([corners + PIXEL // 2], 8)
    assert window == (slice(1, 4), slice(1, 4))
    assert (covered * 4 // FULL).tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    window, covered = fill([corners - 2 * PIXEL], 8)
    assert window == (slice(0, 1), slice(0, 1))
    assert covered.tolist() == [[FULL]]


def test_a_ring_has_an_empty_middle_and_a_disc_its_area():
    for name, share in (("disc", np.pi), ("ring", np.pi * (1 - 0.55**2))):
        _, covered = fill(place(OUTLINES[name], (64 * PIXEL, 64 * PIXEL), 40 * PIXEL, 17), 128)
        assert covered.max() == FULL
        assert covered.sum() / FULL == pytest.approx(share * 40 * 40, rel=0.01)
        assert covered[covered.shape[0] // 2, covered.shape[1] // 2] == (FULL if name == "disc" else 0)


def test_something_outside_the_canvas_covers_nothing():
    _, covered = fill(place(OUTLINES["star"], (-90 * PIXEL, 20 * PIXEL), 10 * PIXEL, 0), 32)
    assert covered.sum() == 0


@pytest.mark.parametrize("name", TEXTURES)
def test_a_texture_stays_in_range_at_any_size(name):
    rng = np.random.default_rng(0)
    for height, width, period in ((1, 1, 4), (3, 200, 4), (128, 128, 24), (61, 17, 9)):
        field = TEXTURES[name](rng, height, width, period)
        assert np.broadcast_to(field, (height, width)).shape == field.shape
        assert 0 <= field.min() <= field.max() <= 255


def test_every_class_has_a_favourite_texture():
    assert len(FAVOURITES) == len(CLASSES)
    assert set(FAVOURITES) <= set(TEXTURES)


def test_too_small_an_image_is_refused_with_the_next_step():
    with pytest.raises(ValueError, match="ask for 32 or more"):
        render(0, 0, 16)
