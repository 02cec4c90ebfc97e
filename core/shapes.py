"""Render the embedded set ``shapes``: textured objects of eight classes, partly hidden, over cluttered backgrounds.

An image is a function of (seed, index, size) and of nothing else: random integers come from PCG64, and every step from
the outline to the pixel is integer arithmetic (``core.contours``, ``core.textures``), so all machines render the same.

The class is decided by the outline. Texture and colour only hint at it: seven objects in ten wear their class's favourite
texture, seven in ten its favourite colour, the others any; clutter and background wear any too. So a small network learns
something in a minute, and nothing less than the outline is always right.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.contours import FULL, OUTLINES, PIXEL, UNIT, Points, cosine, fill, place, sine
from core.errors import InputError
from core.textures import TEXTURES, Colour, draw_colours, mix

CLASSES: tuple[str, ...] = tuple(OUTLINES)
FAVOURITES = ("gradient", "checks", "stripes", "noise", "marble", "dots", "flat", "stripes")  # in the order of CLASSES
COLOURS = (
    (200, 60, 60),
    (70, 170, 70),
    (60, 90, 200),
    (220, 200, 70),
    (170, 70, 190),
    (70, 190, 190),
    (235, 235, 225),
    (60, 50, 50),
)
HINTS = 7  # of ten objects wear the favourite texture, and as many, drawn apart, the favourite colour
BACKGROUNDS = 12  # of a series of centred images; many images share each
MIN_VISIBLE = 30  # pixels; an object that shows less is not drawn
FULL_BITS = FULL.bit_length() - 1  # FULL is a power of two
MIN_SHARE = 30  # percent; one that is hidden further cannot be recognised and is not drawn either

Canvas = NDArray[np.int32]  # [size, size, 3]


@dataclass(frozen=True)
class Object:
    """An object of a scene: class index, visible ``mask`` bool [H, W], and its tight box (left, top, right, bottom),
    right and bottom exclusive."""

    label: int
    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Scene:
    """A rendered ``image`` uint8 [H, W, 3] and its objects from back to front; their masks are disjoint."""

    image: NDArray[np.uint8]
    objects: tuple[Object, ...]


@dataclass(frozen=True)
class Part:
    """Something to draw: its contours, its window and coverage on the canvas, and its class (-1 for clutter)."""

    contours: list[Points]
    window: tuple[slice, slice]
    coverage: NDArray[np.int32]
    label: int


def render(seed: int, index: int, size: int = 128, centred: bool = False) -> Scene:
    """Render image ``index`` of the endless series ``seed`` at ``size`` x ``size`` pixels, with 1 to 3 objects.

    With ``centred``, one large object near the middle of one of a few backgrounds, as people photograph things: what tells
    such images apart is the object. Below about 64 pixels small objects may show too little to be kept.
    """
    if size < 32:
        raise InputError(f"size is {size}; shapes cannot be told apart below 32 pixels, ask for 32 or more")
    rng = np.random.Generator(np.random.PCG64([seed, index]))
    place_of_many = np.random.Generator(np.random.PCG64([seed, index % BACKGROUNDS])) if centred else rng
    canvas, tone = _background(place_of_many, size)
    behind = [_clutter(rng, size) for _ in range(int(rng.integers(2, 7)))]
    placed = [_centred_object(rng, size)] if centred else _place_objects(rng, size)
    bars = [_bar(rng, size) for _ in range(int(rng.integers(0, 3)) // 2)]
    kept, masks = _visible(placed, bars, size)
    light = int(rng.integers(0, 360))
    for part in behind + kept + bars:
        _paint(rng, canvas, part, tone, light)
    canvas += rng.integers(-7, 8, canvas.shape, dtype=np.int8)
    image = np.clip(canvas, 0, 255).astype(np.uint8)
    return Scene(image, tuple(Object(part.label, mask, _box(mask)) for part, mask in zip(kept, masks, strict=True)))


def _background(rng: np.random.Generator, size: int) -> tuple[Canvas, Colour]:
    """Paint a texture under a slow change of light; also return its mean colour."""
    first, second = draw_colours(rng, spread=85)
    names = ("noise", "noise", "marble", "marble", "stripes", "checks", "dots", "flat")
    texture = TEXTURES[names[int(rng.integers(0, len(names)))]]
    canvas = mix(texture(rng, size, size, _period(rng, size)), first, second)
    shade = TEXTURES["gradient"](rng, size, size, 1) - 128
    canvas += (shade * int(rng.integers(0, 60)) // 128)[..., None]
    return canvas, (first + second) // 2


def _period(rng: np.random.Generator, size: int) -> int:
    """Draw the length in pixels over which a texture repeats: 4 to 19 % of the image side."""
    return max(4, size * int(rng.integers(4, 20)) // 100)


def _place_objects(rng: np.random.Generator, size: int) -> list[Part]:
    """Place 1 to 3 objects of 20 to 60 % of the image side, back to front, preferring places that overlap little."""
    parts: list[Part] = []
    circles: list[tuple[int, int, int]] = []
    for _ in range(int(rng.integers(1, 4))):
        diameter = 20 + int(rng.integers(0, 41, 2).min() + rng.integers(0, 41)) // 2  # percent, small ones more often
        radius = size * PIXEL * diameter // 200
        margin = radius * 7 // 10  # so that the border cuts some objects
        for _ in range(4):
            x, y = (int(value) for value in rng.integers(margin, size * PIXEL - margin, 2))
            if all(100 * ((x - a) ** 2 + (y - b) ** 2) > 36 * (radius + r) ** 2 for a, b, r in circles):
                break
        circles.append((x, y, radius))
        label = int(rng.integers(0, len(CLASSES)))
        angle, stretch = int(rng.integers(0, 360)), int(rng.integers(80, 121))
        parts.append(_part(place(OUTLINES[CLASSES[label]], (x, y), radius, angle, stretch), size, label))
    return parts


def _centred_object(rng: np.random.Generator, size: int) -> Part:
    """Place one object of 45 to 85 % of the image side near the middle."""
    radius = size * PIXEL * int(rng.integers(45, 86)) // 200
    x, y = (size * PIXEL * int(value) // 100 for value in rng.integers(40, 61, 2))
    label = int(rng.integers(0, len(CLASSES)))
    angle, stretch = int(rng.integers(0, 360)), int(rng.integers(80, 121))
    return _part(place(OUTLINES[CLASSES[label]], (x, y), radius, angle, stretch), size, label)


def _part(contours: list[Points], size: int, label: int = -1) -> Part:
    return Part(contours, *fill(contours, size), label)


def _clutter(rng: np.random.Generator, size: int) -> Part:
    """Draw a bar or a blob of random corners, neither of which is a class."""
    if rng.integers(0, 3) == 0:
        return _bar(rng, size)
    corners = int(rng.integers(5, 9))
    angles = np.arange(corners) * 360 // corners
    reach = rng.integers(25, 101, corners)
    outline = np.stack([cosine(angles) * reach // 100, sine(angles) * reach // 100], axis=1)
    x, y = (int(value) for value in rng.integers(0, size * PIXEL, 2))
    radius = size * PIXEL * int(rng.integers(3, 14)) // 100
    return _part(place([outline], (x, y), radius, int(rng.integers(0, 360))), size)


def _bar(rng: np.random.Generator, size: int) -> Part:
    """Draw a thin bar across the image."""
    length, width = size * PIXEL, size * PIXEL * int(rng.integers(1, 4)) // 200
    outline = np.array([(-length, -width), (length, -width), (length, width), (-length, width)]) * UNIT // length
    x, y = (int(value) for value in rng.integers(0, length, 2))
    return _part(place([outline], (x, y), length, int(rng.integers(0, 360))), size)


def _visible(placed: list[Part], bars: list[Part], size: int) -> tuple[list[Part], list[NDArray[np.bool_]]]:
    """Keep the objects that show enough, and their visible masks, going from the front to the back."""
    taken = np.zeros((size, size), dtype=np.bool_)
    for bar in bars:
        taken[bar.window] |= 2 * bar.coverage >= FULL
    kept: list[Part] = []
    masks: list[NDArray[np.bool_]] = []
    for part in reversed(placed):
        whole = np.zeros_like(taken)
        whole[part.window] = 2 * part.coverage >= FULL
        mask = whole & ~taken
        shown = int(mask.sum())
        if shown >= MIN_VISIBLE and 100 * shown >= MIN_SHARE * int(whole.sum()):
            taken |= whole
            kept.insert(0, part)
            masks.insert(0, mask)
    return kept, masks


def _paint(rng: np.random.Generator, canvas: Canvas, part: Part, tone: Colour, light: int) -> None:
    """Blend a part and its shadow into the canvas; ``light`` is the direction in degrees in which shadows fall."""
    size = len(canvas)
    shift = np.array([int(cosine(light)), int(sine(light))]) * (size * PIXEL * 2 // 100) // UNIT
    window, coverage = fill([points + shift for points in part.contours], size)
    _blend(canvas[window], coverage * 2 // 5, np.int32(0))
    names = list(TEXTURES)
    name = names[int(rng.integers(0, len(names)))]
    if part.label >= 0 and rng.integers(0, 10) < HINTS:
        name = FAVOURITES[part.label]
    period = max(4, _period(rng, size) * 2 // 3)
    favourite = part.label >= 0 and rng.integers(0, 10) < HINTS
    near = np.array(COLOURS[part.label]) if favourite else None
    colours = draw_colours(rng, spread=90, away_from=tone, near=near)
    if part.coverage.any():
        height, width = part.coverage.shape
        field = TEXTURES[name](rng, height, width, period)
        _blend(canvas[part.window], part.coverage, mix(field[part.coverage > 0], *colours))


def _blend(area: Canvas, coverage: NDArray[np.int32], paint: NDArray[np.int32] | np.int32) -> None:
    """Lay ``paint`` (one colour per covered pixel) over an area of the canvas in place."""
    touched = coverage > 0
    behind = area[touched]
    area[touched] = behind + ((paint - behind) * coverage[touched][:, None] >> FULL_BITS)


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
