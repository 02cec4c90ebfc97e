"""The few phrases that all forms of a report share."""

import shlex
from pathlib import Path
from typing import Any

from transfer.report.model import MARKS, Cell, Column, Report, Row, short, signed
from transfer.results import Result
from transfer.statistics import Difference, Summary

METHOD = (
    "Mean ± sample standard deviation over trials, in percent. Differences are to the baseline by Welch's t-test; "
    "brackets hold 95 % intervals after Holm's correction over all headline differences of this report. "
    f"{MARKS['better']} better and {MARKS['worse']} worse are written only where the corrected interval excludes zero; "
    f"{MARKS['undecided']} means that these trials do not decide."
)


def measured(summary: Summary | None) -> str:
    """Write ``57.08 ± 0.19``; a single trial has no spread, and no value is a dash."""
    if summary is None:
        return "–"
    return f"{summary.mean:.2f}" if summary.std is None else f"{summary.mean:.2f} ± {summary.std:.2f}"


def interval(low: float | None, high: float | None) -> str:
    """Write ``[−0.10, +0.94]``, nothing where there is no interval."""
    return "" if low is None or high is None else f"[{signed(low)}, {signed(high)}]"


def compared(found: Difference | None) -> str:
    """Write ``+0.42 [−0.10, +0.94] ≈``."""
    if found is None:
        return ""
    parts = (signed(found.mean), interval(found.corrected_low, found.corrected_high), MARKS[found.verdict])
    return " ".join(filter(None, parts))


def p_value(p: float | None) -> str:
    """Write a p-value with three digits, never as zero."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(cell: Cell) -> str:
    """Write how many trials there are, and of how many: ``2 trials``, ``1 of 2 trials``."""
    wanted = len(cell.trials) + len(cell.missing)
    of = f" of {wanted}" if cell.missing and cell.trials else ""
    return f"{len(cell.trials)}{of} trial{'' if wanted == 1 else 's'}" if cell.trials else "missing"


def published(report: Report, row: Row, column: Column) -> str:
    """Write the published values that may stand beside a cell, each with data, epochs and source."""
    return "; ".join(f"{value:g} ({found.origin})" for value, found in report.published(row, column))


def has_published(report: Report, column: Column) -> bool:
    """Tell whether any cell of a column has a published value beside it."""
    return any(report.published(row, column) for row in report.rows)


def title_of(column: Column) -> str:
    """Write a column's heading: ``Shapes detection, box AP``."""
    return f"{column.label}, {short(column.headline)}" if column.headline else column.label


def made_of(row: Row) -> str:
    """Write ``moco + mscn``."""
    return " + ".join(filter(None, (row.method, *row.branches)))


def plain(value: Any) -> str:
    """Write a setting: lists without brackets, numbers without needless digits."""
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def command(path: Path, result: Result) -> str:
    """Return the command that makes a trial again, as recorded; hand-made results may have none."""
    return result.command or f"not recorded in {shlex.quote(str(path))}"
