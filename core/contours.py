"""Outlines of the embedded set's classes, and an exact integer fill for them.

Whatever is drawn is a list of closed contours that do not cross themselves; a hole is a contour that runs the other
way round, so a ring is two circles. Points are integers and the fill divides integers only: no machine, compiler or
NumPy build rounds them differently.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.int64]  # [corner, (x, y)]

UNIT = 1024  # length 1 of an outline and of the sine table
TURN = 360  # steps of a full turn in the sine table
PIXEL = 256  # length of one pixel for placed contours
LINES = 4  # scan lines per pixel row of the fill
FULL = LINES * PIXEL  # coverage of a pixel that is wholly inside

# Rounded to 1/1024, so that the last bits of the local sine cannot matter.
SINE = np.array([round(math.sin(2 * math.pi * step / TURN) * UNIT) for step in range(TURN)], dtype=np.int64)


def sine(angle: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Look up ``UNIT * sin`` of an angle in degrees."""
    return SINE[np.asarray(angle) % TURN]


def cosine(angle: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Look up ``UNIT * cos`` of an angle in degrees."""
    return sine(np.asarray(angle) + TURN // 4)


def _arc(start: int, stop: int, step: int, width: int = UNIT, height: int = UNIT, x: int = 0) -> Points:
    """List points of an ellipse around (x, 0) from ``start`` to ``stop`` degrees, both included."""
    angles = np.arange(start, stop + (1 if step > 0 else -1), step)
    return np.stack([x + cosine(angles) * width // UNIT, sine(angles) * height // UNIT], axis=1)


def _star() -> Points:
    reach = np.where(np.arange(10) % 2 == 0, UNIT, UNIT * 42 // 100)
    angles = np.arange(10) * 36
    return np.stack([cosine(angles) * reach // UNIT, sine(angles) * reach // UNIT], axis=1)


def _corners(*percent: tuple[int, int]) -> Points:
    return np.array(percent, dtype=np.int64) * UNIT // 100


# The inner edge of the crescent is half an ellipse between the horns of the outer arc at +-50 degrees.
_HORN_X, _HORN_Y = int(cosine(50)), int(sine(50))

OUTLINES: dict[str, tuple[Points, ...]] = {
    "disc": (_arc(0, 352, 8),),
    "square": (_corners((-75, -75), (75, -75), (75, 75), (-75, 75)),),
    "triangle": (_arc(0, 240, 120),),
    "star": (_star(),),
    "cross": (
        _corners(
            (-30, -95), (30, -95), (30, -30), (95, -30), (95, 30), (30, 30),
            (30, 95), (-30, 95), (-30, 30), (-95, 30), (-95, -30), (-30, -30),
        ),
    ),
    "ring": (_arc(0, 352, 8), _arc(352, 0, -8, UNIT * 55 // 100, UNIT * 55 // 100)),
    "crescent": (np.concatenate([_arc(50, 310, 10), _arc(270, 90, -10, UNIT * 115 // 100, _HORN_Y, _HORN_X)[1:-1]]),),
    "arrow": (_corners((100, 0), (15, -80), (15, -32), (-90, -32), (-90, 32), (15, 32), (15, 80)),),
}  # fmt: skip


def place(
    outline: Sequence[Points], centre: tuple[int, int], radius: int, angle: int, stretch: int = 100
) -> list[Points]:
    """Scale, stretch along x (percent), turn (degrees) and move an outline; centre and radius are in 1/PIXEL pixels."""
    turn_x, turn_y = int(cosine(angle)), int(sine(angle))
    placed = []
    for points in outline:
        x, y = points[:, 0] * stretch // 100, points[:, 1]
        turned = np.stack([x * turn_x - y * turn_y, x * turn_y + y * turn_x], axis=1)
        placed.append(turned * radius // (UNIT * UNIT) + np.array(centre, dtype=np.int64))
    return placed


def fill(contours: Sequence[Points], size: int) -> tuple[tuple[slice, slice], NDArray[np.int32]]:
    """Cover a window of a ``size`` x ``size`` canvas: (rows, columns) and the covered share per pixel, 0 to ``FULL``.

    Each pixel row is cut by ``LINES`` scan lines. Every crossing of an edge adds (going down) or takes away (going
    up) all that lies to its right; the running sum along the row is what lies inside.
    """
    starts = np.concatenate(contours)
    stops = np.concatenate([np.roll(points, -1, axis=0) for points in contours])
    low = np.clip(starts.min(axis=0) // PIXEL, 0, size)
    high = np.clip(-(-starts.max(axis=0) // PIXEL), low, size)
    (left, top), (width, height) = (int(v) for v in low), (int(v) for v in high - low)
    pitch = PIXEL // LINES
    lines = (top * PIXEL + pitch // 2 + pitch * np.arange(height * LINES))[:, None]
    (x0, y0), (x1, y1) = starts.T, stops.T
    line, edge = np.nonzero((y0 <= lines) != (y1 <= lines))
    x0, y0, x1, y1 = x0[edge], y0[edge], x1[edge], y1[edge]
    at = x0 + (lines[line, 0] - y0) * (x1 - x0) // (y1 - y0)
    column, part = np.divmod(np.clip(at - left * PIXEL, 0, width * PIXEL), PIXEL)
    sign = np.where(y1 > y0, 1, -1)
    cell = line // LINES * (width + 2) + column
    changes = np.bincount(  # sums in float64, where integers of this size are exact
        np.concatenate([cell, cell + 1]), np.concatenate([sign * (PIXEL - part), sign * part]), height * (width + 2)
    )
    covered = np.abs(np.cumsum(changes.astype(np.int32).reshape(height, width + 2)[:, :width], axis=1, dtype=np.int32))
    return (slice(top, top + height), slice(left, left + width)), covered
