"""Textures and colours painted with integer arithmetic, so that every machine paints the same bytes.

A texture is a field of 0 to 255 per pixel that mixes two colours. Adding one: write a function of (rng, height, width,
period) and list it in ``TEXTURES``; the period is in pixels.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from core.contours import UNIT, cosine, sine

CONTRAST = 110  # least sum of channel differences between the mean colours of a thing and of the background

Field = NDArray[np.int32]  # [height, width], 0 to 255
Colour = NDArray[np.int32]  # red, green, blue, 0 to 255


def _axes(rng: np.random.Generator, height: int, width: int) -> tuple[Field, Field]:
    """Draw a direction and return the coordinates along and across it, in 1/UNIT pixels."""
    angle = int(rng.integers(0, 360))
    right, down = int(cosine(angle)), int(sine(angle))
    y, x = np.ogrid[:height, :width]
    x, y = x.astype(np.int32), y.astype(np.int32)
    return x * right + y * down, y * right - x * down


def _wave(position: Field, period: int) -> Field:
    """Turn a coordinate into bands from -127 to 127 with edges about two pixels soft; period in 1/UNIT pixels."""
    triangle = np.abs(2 * (position % period) - period)
    return np.clip((2 * triangle - period) * 127 // (4 * UNIT), -127, 127)


def _smooth(rng: np.random.Generator, height: int, width: int, cell: int) -> Field:
    """Interpolate a random lattice with ``cell`` pixels between its points; 0 to 255."""
    lattice = rng.integers(0, 256, (height // cell + 2, width // cell + 2)).astype(np.int32)
    row, down = np.divmod(np.arange(height, dtype=np.int32), cell)
    column, right = np.divmod(np.arange(width, dtype=np.int32), cell)
    rows = lattice[row] * (cell - down)[:, None] + lattice[row + 1] * down[:, None]
    return (rows[:, column] * (cell - right) + rows[:, column + 1] * right) // (cell * cell)


def gradient(rng: np.random.Generator, height: int, width: int, period: int) -> Field:
    """Go from one colour to the other across the whole area."""
    along, _ = _axes(rng, height, width)
    low, high = int(along.min()), int(along.max())
    return (along - low) // ((high - low) // 255 + 1)


def stripes(rng: np.random.Generator, height: int, width: int, period: int) -> Field:
    """Alternate straight bands of equal width."""
    along, _ = _axes(rng, height, width)
    return 128 + _wave(along + int(rng.integers(0, period * UNIT)), period * UNIT)


def checks(rng: np.random.Generator, height: int, width: int, period: int) -> Field:
    """Alternate the fields of a turned board."""
    along, across = _axes(rng, height, width)
    start = rng.integers(0, period * UNIT, 2)
    return 128 + _wave(along + int(start[0]), period * UNIT) * _wave(across + int(start[1]), period * UNIT) // 127


def dots(rng: np.random.Generator, height: int, width: int, period: int) -> Field:
    """Set round dots on a turned square lattice."""
    along, across = _axes(rng, height, width)
    shift, pitch = rng.integers(0, period * 16, 2), period * 16  # 1/16 pixel: squares stay below 2**31
    u = (along // 64 + int(shift[0])) % pitch - pitch // 2
    v = (across // 64 + int(shift[1])) % pitch - pitch // 2
    radius = pitch * 36 // 100
    return np.clip(128 + (radius * radius - u * u - v * v) * 4 // radius, 0, 255)


def noise(rng: np.random.Generator, height: int, width: int, period: int) -> Field:
    """Sum three octaves of smooth noise."""
    cells = period, max(2, period // 2), max(1, period // 4)
    coarse, middle, fine = (_smooth(rng, height, width, cell) for cell in cells)
    return np.clip((4 * coarse + 2 * middle + fine) * 3 // 16 - 40, 0, 255)


def marble(rng: np.random.Generator, height: int, width: int, period: int) -> Field:
    """Bend stripes with smooth noise."""
    along, _ = _axes(rng, height, width)
    bend = _smooth(rng, height, width, max(2, period)) + _smooth(rng, height, width, max(2, period // 2)) // 2
    position = along + bend * (period * UNIT // 192)
    return np.abs(2 * (position % (period * UNIT)) - period * UNIT) // (period * UNIT // 255 + 1)


def flat(rng: np.random.Generator, height: int, width: int, period: int) -> Field:
    """Keep one colour with faint blotches."""
    return _smooth(rng, height, width, 2 * period) // 4


TEXTURES: dict[str, Callable[[np.random.Generator, int, int, int], Field]] = {
    "flat": flat, "gradient": gradient, "stripes": stripes, "checks": checks, "dots": dots, "noise": noise,
    "marble": marble,
}  # fmt: skip


def mix(field: Field, first: Colour, second: Colour) -> NDArray[np.int32]:
    """Mix two colours by a field, 0 for the first and 255 for (almost) the second: [..., 3], 0 to 255."""
    return first + (field[..., None] * (second - first) >> 8)


def draw_colours(
    rng: np.random.Generator, spread: int, away_from: Colour | None = None, near: Colour | None = None
) -> tuple[Colour, Colour]:
    """Draw two colours at most ``spread`` apart per channel, in the mean well away from one colour, the first near another."""
    for _ in range(12):
        if near is None:
            first = rng.integers(10, 246, 3).astype(np.int32)
        else:
            first = np.clip(near + rng.integers(-30, 31, 3), 0, 255).astype(np.int32)
        second = np.clip(first + rng.integers(-spread, spread + 1, 3), 0, 255).astype(np.int32)
        if away_from is None or int(np.abs((first + second) // 2 - away_from).sum()) >= CONTRAST:
            break
    return first, second
