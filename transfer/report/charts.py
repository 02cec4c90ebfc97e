"""Lay out what the page draws as inline SVG (so that colours follow dark and light): lines, dots, differences, ranks, classes."""

import itertools
import math
import re
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from transfer.report import wording
from transfer.report.model import Column, Report, Row, short
from transfer.report.statistics import Difference

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 10, 32
BOX = (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)

Point = tuple[float, float]
Points = Sequence[Point]
Span = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points of one line, the number of its colour, dash and marker, and the checkpoint it is about."""

    label: str
    style: int
    points: Points
    row: Row | None = None


@dataclass(frozen=True)
class Line:
    """One line: an SVG path and the number of its colour, dash and marker."""

    path: str
    style: int
    label: str
    end: Point
    row: Row | None


@dataclass(frozen=True)
class Dot:
    """One point of a scatter plot with its interval upwards; dots of one ``kind`` are joined."""

    label: str
    style: int
    x: float
    y: float
    low: float
    high: float
    kind: Hashable
    row: Row | None = None


@dataclass(frozen=True)
class Chart:
    """A chart of lines or dots, ready to draw in pixels; ticks are (position in pixels, text)."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]
    column: Column | None = None
    dots: tuple[Dot, ...] = ()
    joined: tuple[str, ...] = ()  # paths between the dots of one kind
    width: int = WIDTH
    height: int = HEIGHT
    box: tuple[int, int, int, int] = BOX
    note: str = ""


def line_chart(
    title: str, x_label: str, y_label: str, series: Sequence[Series], column: Column | None = None
) -> Chart | None:
    """Lay out lines; None when there is no finite point at all. Axes of recall and precision go from 0 to 1."""
    finite = [(s, [p for p in s.points if all(map(math.isfinite, p))]) for s in series]
    finite = [(s, points) for s, points in finite if points]
    if not finite:
        return None
    xs = [x for _, points in finite for x, _ in points]
    ys = _without_spikes([y for _, points in finite for _, y in points])
    if x_label == "recall":
        x_ticks = y_ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        x_range: Span = (0.0, max(1.0, *xs))
        y_range: Span = (0.0, max(1.0, *ys))
    else:
        x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
        x_range, y_range = (min(x_ticks[0], *xs), max(xs)), (min(y_ticks[0], *ys), max(y_ticks[-1], *ys))
    lines = []
    for s, points in finite:
        placed = [(across(x, x_range), up(y, y_range)) for x, y in points]
        lines.append(Line(_path(placed), s.style, s.label, placed[-1], s.row))
    return Chart(
        title,
        x_label,
        y_label,
        [(across(x, x_range), text(x)) for x in x_ticks if x_range[0] <= x <= x_range[1]],
        [(up(y, y_range), text(y)) for y in y_ticks],
        lines,
        column,
    )


def scatter(title: str, x_label: str, y_label: str, dots: Sequence[Dot], column: Column | None = None) -> Chart:
    """Lay out at least one dot; the x axis starts at zero, so that half as far is half the cost."""
    x_end = max(dot.x for dot in dots) * 1.04
    middle = statistics.median(dot.y for dot in dots)
    reach = without_outliers([max(abs(dot.low - middle), abs(dot.high - middle)) for dot in dots])[-1]
    near = [dot for dot in dots if max(abs(dot.low - middle), abs(dot.high - middle)) <= reach]
    y_ticks = ticks(min(dot.low for dot in near), max(dot.high for dot in near))
    x_range, y_range = (0.0, x_end), (y_ticks[0], y_ticks[-1])
    placed = tuple(
        replace(d, x=across(d.x, x_range), y=up(d.y, y_range), low=up(d.low, y_range), high=up(d.high, y_range))
        for d in dots
    )
    off = [dot.label for dot in dots if not y_range[0] <= dot.y <= y_range[1]]
    placed = tuple(dot for dot, given in zip(placed, dots, strict=True) if given.label not in off)
    kinds: dict[Hashable, list[Point]] = {}
    for dot in sorted(placed, key=lambda dot: dot.x):
        kinds.setdefault(dot.kind, []).append((dot.x, dot.y))
    return Chart(
        title,
        x_label,
        y_label,
        [(across(x, x_range), text(x)) for x in ticks(0.0, x_end) if x <= x_end],
        [(up(y, y_range), text(y)) for y in y_ticks],
        [],
        column,
        dots=placed,
        joined=tuple(_path(points) for points in kinds.values() if len(points) > 1),
        note="; ".join(f"{dot.label}: {dot.y:.2f}, off the axis" for dot in dots if dot.label in off),
    )


def without_outliers(values: Sequence[float], factor: float = 5.0) -> list[float]:
    """Sort positive values and leave out the largest while they are ``factor`` times the next: they would hide the rest."""
    kept = sorted(values)
    while len(kept) > 1:
        wanted = factor if len(kept) > 2 else 2 * factor  # of two it is less clear which one is the outlier
        if not any(b > wanted * max(a, 1e-9) for a, b in itertools.pairwise(kept[(len(kept) - 1) // 2 :])):
            break
        kept.pop()
    return kept


def across(x: float, span: Span) -> float:
    """Place ``x`` in pixels from the left."""
    return round(_scale(x, *span, BOX[0], BOX[2]), 1)


def up(y: float, span: Span) -> float:
    """Place ``y`` in pixels from the top; what lies outside the axis is drawn at its end."""
    return round(_scale(min(max(y, span[0]), span[1]), *span, BOX[3], BOX[1]), 1)


def _path(points: Points) -> str:
    """Write an SVG path in whole steps of a tenth of a pixel, each relative to the last: half as long as absolute ones."""
    tenths = [(round(10 * x), round(10 * y)) for x, y in points]
    steps = [f"l{(x - a) / 10:g} {(y - b) / 10:g}" for (a, b), (x, y) in itertools.pairwise(tenths)]
    return f"M{tenths[0][0] / 10:g} {tenths[0][1] / 10:g}" + "".join(steps)


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
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if name == 'k' else size):.4g}{name}".replace("-", "−")
    return f"{value:g}".replace("-", "−")


def smoothed(points: Points, share: float = 0.04) -> list[tuple[float, float]]:
    """Average each point with its neighbours within ``share`` of the line's length, so that trends can be compared."""
    half = int(len(points) * share / 2)
    if half == 0:
        return list(points)
    sums = [0.0, *itertools.accumulate(y for _, y in points)]
    return [
        (x, (sums[min(len(points), index + half + 1)] - sums[low]) / (min(len(points), index + half + 1) - low))
        for index, (x, _) in enumerate(points)
        for low in [max(0, index - half)]
    ]


def _scale(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (value - low) / (high - low) * (end - start) if high > low else (start + end) / 2


def _without_spikes(values: list[float]) -> list[float]:
    """Leave the highest and lowest percent out of the axis range, so that one spike does not flatten a chart."""
    ordered = sorted(values)
    cut = len(ordered) // 100
    return ordered[cut : len(ordered) - cut]


T = TypeVar("T")


def thinned(points: Sequence[T], most: int) -> list[T]:
    """Leave out points evenly until at most ``most`` are left, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    last = len(points) - 1
    return [points[round(index * last / (most - 1))] for index in range(most)]


@dataclass(frozen=True)
class GapStrip:
    """One difference: positions of the point, of the plain and of the corrected interval, and where they are cut off.

    A point that the scale leaves out has no position, only the arrow of its side.
    """

    row: Row
    style: int
    found: Difference
    point: float | None
    plain: Span | None
    corrected: Span | None
    cut: tuple[bool, bool]
    text: str
    detail: str


@dataclass(frozen=True)
class Forest:
    """The strips of one benchmark and its scale; ticks are (position, text)."""

    column: Column
    zero: float
    strips: list[GapStrip]
    ticks: list[tuple[float, str]]


def forests(report: Report) -> list[Forest]:
    """Lay out every benchmark that has a difference to the baseline."""
    found = [_forest(report, column) for column in report.columns]
    return [forest for forest in found if forest.strips]


def _forest(report: Report, column: Column) -> Forest:
    shown = [(row, d) for row in report.rows if (d := report.cell(row, column).difference) is not None]
    edges = [max(abs(v) for v in (d.mean, d.low, d.high) if v is not None) for _, d in shown]
    edge = without_outliers(edges)[-1] if edges else 1.0
    marks = ticks(-edge * 1.04, edge * 1.04, 6)
    low, high = marks[0], marks[-1]

    def place(value: float) -> float:
        return round(100 * (min(max(value, low), high) - low) / (high - low), 2)

    def span(start: float | None, end: float | None) -> Span | None:
        return None if start is None or end is None else (place(start), place(end))

    strips = [
        GapStrip(
            row=row,
            style=report.styles[row],
            found=d,
            point=place(d.mean) if low <= d.mean <= high else None,
            plain=span(d.low, d.high),
            corrected=span(d.corrected_low, d.corrected_high),
            cut=(min(d.corrected_low or 0, d.mean) < low, max(d.corrected_high or 0, d.mean) > high),
            text=wording.compared(d),
            detail=wording.detail(d),
        )
        for row, d in shown
    ]
    return Forest(column, place(0.0), strips, [(place(tick), text(tick)) for tick in marks])


@dataclass(frozen=True)
class Place:
    """A checkpoint's line: its average rank, and where that lies in percent of the strip's width."""

    row: Row
    rank: float
    at: float


@dataclass(frozen=True)
class Diagram:
    """The lines in order; bars are (first line, last line), counted from 1; the ruler is one critical difference wide.

    The axis goes on beyond the last rank where the critical difference is wider than the ranks.
    """

    places: list[Place]
    bars: list[tuple[int, int]]
    ruler: float
    ticks: list[tuple[float, str]]


def diagram(report: Report) -> Diagram | None:
    """Lay out the report's ranks, None without any."""
    if report.ranks is None:
        return None
    found, rows = report.ranks.found, report.ranks.rows
    last = len(rows) - 1
    width = max(last, found.critical)
    order = sorted(range(len(rows)), key=lambda index: found.ranks[index])
    line = {index: number for number, index in enumerate(order, start=1)}
    every = max(1, round(last / 8))

    def at(rank: float) -> float:
        return round(100 * (rank - 1) / width, 2)

    return Diagram(
        places=[Place(rows[index], found.ranks[index], at(found.ranks[index])) for index in order],
        bars=[(min(lines), max(lines)) for group in found.groups if (lines := [line[index] for index in group])],
        ruler=round(100 * found.critical / width, 2),
        ticks=[(at(rank), str(rank)) for rank in range(1, len(rows) + 1, every)],
    )


SIZES = {"s": "small", "m": "medium", "l": "large"}
MOST = 12_000  # cells of class tables in one page; beyond it they are in the CSV form only


@dataclass(frozen=True)
class SizeDot:
    """A backbone's mean on a strip, in percent of its width."""

    row: Row
    style: int
    at: float
    text: str


@dataclass(frozen=True)
class SizeStrip:
    """One object size of one metric."""

    name: str
    dots: list[SizeDot]


@dataclass(frozen=True)
class Sizes:
    """Strips of one benchmark on a common scale; ticks are (position, text)."""

    column: Column
    strips: list[SizeStrip]
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class ClassCell:
    """A backbone's mean on one class; ``gap`` is to the baseline, ``shade`` from -1 to 1 is how large that is here."""

    row: Row
    mean: float | None
    gap: str = ""
    shade: float = 0.0


@dataclass(frozen=True)
class Classes:
    """One metric of one benchmark for every class; ``left_out`` where the page would become too large."""

    column: Column
    metric: str
    rows: list[Row]
    lines: list[tuple[str, list[ClassCell]]]
    left_out: bool = False


def sizes(report: Report) -> list[Sizes]:
    """Lay out the metrics that end in the s, m and l of COCO's areas."""
    found = []
    for column in report.columns:
        names = [m for m in column.overall if m[-1] in SIZES and m[:-1] in column.metrics]
        means = {
            name: [(row, s.mean) for row in report.ran(column) if (s := report.cell(row, column).summary(name))]
            for name in names
        }
        values = [value for pairs in means.values() for _, value in pairs]
        if values:
            found.append(_sizes(report, column, means, ticks(min(values), max(values), 6)))
    return found


def _sizes(report: Report, column: Column, means: dict[str, list[tuple[Row, float]]], marks: list[float]) -> Sizes:
    low, high = marks[0], marks[-1]

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    strips = [
        SizeStrip(
            f"{short(name[:-1])}, {SIZES[name[-1]]}",
            [SizeDot(row, report.styles[row], place(value), f"{row.label}: {value:.2f}") for row, value in pairs],
        )
        for name, pairs in means.items()
        if pairs
    ]
    return Sizes(column, strips, [(place(tick), text(tick)) for tick in marks])


def classes(report: Report) -> list[Classes]:
    """Tabulate every class of every benchmark that has them, with the gap to the baseline."""
    found, left = [], MOST
    for column in report.columns:
        groups: dict[str, list[str]] = {}
        for metric in column.metrics:
            if metric in column.classes:
                groups.setdefault(metric[: -len(class_of(metric)) - 1], []).append(metric)
        rows = report.ran(column)
        for name, metrics in groups.items():
            left -= len(rows) * len(metrics)
            lines = [(class_of(m), _line(report, column, m, rows)) for m in metrics] if left >= 0 else []
            found.append(Classes(column, name, rows, [line for line in lines if line[1]], left_out=left < 0))
    return [table for table in found if table.lines or table.left_out]


def class_of(metric: str) -> str:
    """Return ``traffic light`` of ``bbox/AP-traffic light``."""
    return re.sub(r"^[^-]*-", "", metric.rpartition("/")[2])


def _line(report: Report, column: Column, metric: str, rows: list[Row]) -> list[ClassCell]:
    means = {row: s.mean if (s := report.cell(row, column).summary(metric)) else None for row in rows}
    if all(mean is None for mean in means.values()):
        return []  # a class that the test images lack
    base = means.get(report.baseline) if report.baseline is not None else None
    found = []
    for row, mean in means.items():
        if mean is None or base is None or row is report.baseline:
            found.append(ClassCell(row, mean))
        else:
            found.append(
                ClassCell(row, mean, f"{mean - base:+.1f}".replace("-", "−"), max(-1.0, min(1.0, (mean - base) / 10)))
            )
    return found
