"""Lay out average ranks as a critical-difference diagram that also fits a phone: one checkpoint a line, best first.

The bars beside the lines join checkpoints that the ranks do not tell apart (Demsar, JMLR 7, 2006, figure 1, turned).
"""

from dataclasses import dataclass

from transfer.report.model import Report, Row


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
