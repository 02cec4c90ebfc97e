"""Break results down by object size and by class, as far as a benchmark has metrics for them."""

import re
from dataclasses import dataclass

from transfer.report import charts
from transfer.report.model import Column, Report, Row, short

SIZES = {"s": "small", "m": "medium", "l": "large"}
MOST = 12_000  # cells of class tables in one page; beyond it they are in the CSV form only


@dataclass(frozen=True)
class Dot:
    """A backbone's mean on a strip, in percent of its width."""

    row: Row
    style: int
    at: float
    text: str


@dataclass(frozen=True)
class Strip:
    """One object size of one metric."""

    name: str
    dots: list[Dot]


@dataclass(frozen=True)
class Sizes:
    """Strips of one benchmark on a common scale; ticks are (position, text)."""

    column: Column
    strips: list[Strip]
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
            found.append(_sizes(report, column, means, charts.ticks(min(values), max(values), 6)))
    return found


def _sizes(report: Report, column: Column, means: dict[str, list[tuple[Row, float]]], ticks: list[float]) -> Sizes:
    low, high = ticks[0], ticks[-1]

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    strips = [
        Strip(
            f"{short(name[:-1])}, {SIZES[name[-1]]}",
            [Dot(row, report.styles[row], place(value), f"{row.label}: {value:.2f}") for row, value in pairs],
        )
        for name, pairs in means.items()
        if pairs
    ]
    return Sizes(column, strips, [(place(tick), charts.text(tick)) for tick in ticks])


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
