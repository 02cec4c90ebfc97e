"""Place numbers on small line charts; the page draws them as inline SVG so that colours follow dark and light."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 30
POINTS = 240  # a line keeps at most this many points: more cannot be seen at this size

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One line: an SVG path and the number of its colour, dash and marker."""

    path: str
    style: int
    label: str
    end: tuple[float, float]


@dataclass(frozen=True)
class Chart:
    """A line chart ready to draw; ticks are (position in pixels, text)."""

    title: str
    x_label: str
    y_label: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    box: tuple[int, int, int, int] = (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)


def line_chart(title: str, x_label: str, y_label: str, series: Sequence[tuple[str, int, Points]]) -> Chart | None:
    """Lay out ``(label, style, points)`` series; None when there is no finite point at all."""
    finite = [(label, style, [p for p in points if all(map(math.isfinite, p))]) for label, style, points in series]
    finite = [(label, style, points) for label, style, points in finite if points]
    if not finite:
        return None
    xs = [x for _, _, points in finite for x, _ in points]
    ys = _without_spikes([y for _, _, points in finite for _, y in points])
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    x_range, y_range = (min(xs[0], x_ticks[0], *xs), max(xs)), (min(y_ticks[0], *ys), max(y_ticks[-1], *ys))

    def across(x: float) -> float:
        return _scale(x, *x_range, LEFT, WIDTH - RIGHT)

    def up(y: float) -> float:
        return _scale(min(max(y, y_range[0]), y_range[1]), *y_range, HEIGHT - BOTTOM, TOP)

    lines = []
    for label, style, points in finite:
        placed = [(across(x), up(y)) for x, y in _thinned(points)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
        lines.append(Line(path, style, label, placed[-1]))
    return Chart(
        title,
        x_label,
        y_label,
        lines,
        [(across(x), text(x)) for x in x_ticks if x_range[0] <= x <= x_range[1]],
        [(up(y), text(y)) for y in y_ticks],
    )


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return round numbers covering ``low`` to ``high`` in about ``count`` steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        low, high = low - (abs(low) * 0.1 or 1.0), high + (abs(high) * 0.1 or 1.0)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * index, 12) for index in range(first, last + 1)]


def text(value: float) -> str:
    """Write a tick: ``20k`` for 20,000, no needless zeros."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}".replace("-", "−")


def smoothed(points: Points, share: float = 0.04) -> list[tuple[float, float]]:
    """Average each point with its neighbours within ``share`` of the line's length, so that trends can be compared."""
    half = int(len(points) * share / 2)
    if half == 0:
        return list(points)
    return [
        (x, math.fsum(y for _, y in window) / len(window))
        for index, (x, _) in enumerate(points)
        if (window := points[max(0, index - half) : index + half + 1])
    ]


def _scale(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (value - low) / (high - low) * (end - start) if high > low else (start + end) / 2


def _without_spikes(values: list[float]) -> list[float]:
    """Leave the highest and lowest percent out of the axis range, so that one spike does not flatten a chart."""
    ordered = sorted(values)
    cut = len(ordered) // 100
    return ordered[cut : len(ordered) - cut]


def _thinned(points: Points) -> Points:
    step = max(1, math.ceil(len(points) / POINTS))
    kept = list(points[::step])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]
