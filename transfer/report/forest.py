"""Place differences and their intervals on strips, one scale a benchmark, in percent of the strip's width."""

from dataclasses import dataclass

from transfer.report import charts, wording
from transfer.report.model import Column, Report, Row
from transfer.report.statistics import Difference

Span = tuple[float, float]


@dataclass(frozen=True)
class Strip:
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
    strips: list[Strip]
    ticks: list[tuple[float, str]]


def forests(report: Report) -> list[Forest]:
    """Lay out every benchmark that has a difference to the baseline."""
    found = [_forest(report, column) for column in report.columns]
    return [forest for forest in found if forest.strips]


def _forest(report: Report, column: Column) -> Forest:
    shown = [(row, d) for row in report.rows if (d := report.cell(row, column).difference) is not None]
    edges = [max(abs(v) for v in (d.mean, d.low, d.high) if v is not None) for _, d in shown]
    edge = charts.without_outliers(edges)[-1] if edges else 1.0
    ticks = charts.ticks(-edge * 1.04, edge * 1.04, 6)
    low, high = ticks[0], ticks[-1]

    def place(value: float) -> float:
        return round(100 * (min(max(value, low), high) - low) / (high - low), 2)

    def span(start: float | None, end: float | None) -> Span | None:
        return None if start is None or end is None else (place(start), place(end))

    strips = [
        Strip(
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
    return Forest(column, place(0.0), strips, [(place(tick), charts.text(tick)) for tick in ticks])
