"""The report's headline table on the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from transfer.report import cost, wording
from transfer.report.model import Report

BENCHMARKS, LINES = 8, 12  # a terminal holds no more
STYLE = {"better": "green", "worse": "red", "undecided": "dim"}


def show(report: Report, paths: Sequence[Path], console: Console | None = None) -> None:
    """Print notices, the table, what it shows, and where the files are."""
    console = console or Console()
    for notice in report.notices:
        console.print(Text(f"! {notice}", "yellow"))
    console.print(_table(report))
    if tally := wording.tally(report):
        console.print(Text(tally, "bold"))
    for line in report.conclusions[:LINES]:
        console.print(Text(f"- {line}"))
    if (left := len(report.columns) - BENCHMARKS) > 0:
        console.print(Text(f"{left} more benchmark(s) are in the report"))
    for path in paths:
        console.print(Text(str(path)), soft_wrap=True)


def needs(report: Report, gap: float, spread: float | None = None, console: Console | None = None) -> None:
    """Print how many trials and device-hours a gap needs on each benchmark."""
    heads, rows = wording.needs(cost.needs(report, (gap,), spread), (gap,))
    table = Table(*heads, title=f"A gap of {gap:g}, found in 8 of 10 cases", title_justify="left", box=box.SIMPLE)
    for row in rows:
        table.add_row(*map(Text, row))
    (console or Console()).print(table if rows else Text("no benchmark has a spread yet; give one with --spread"))


def _table(report: Report) -> Table:
    """Return a block for each benchmark, so that any number of them fits the width of a terminal."""
    table = Table(title=f"{report.title}: mean ± std over trials, percent", title_justify="left", box=box.SIMPLE)
    table.add_column("checkpoint")
    table.add_column("measured", justify="right", no_wrap=True)
    if report.baseline is not None:
        table.add_column("difference", justify="right", no_wrap=True)
    for column in report.columns[:BENCHMARKS]:
        table.add_row(Text(wording.title_of(column), "bold"))
        for row in report.rows:
            cell = report.cell(row, column)
            texts = [
                Text(f" {row.label}"),
                Text(f"{wording.measured(cell.summary(column.headline))} ({wording.count(cell)})"),
            ]
            if report.baseline is not None:
                style = STYLE[cell.difference.verdict] if cell.difference else ""
                texts.append(Text("baseline" if row is report.baseline else wording.compared(cell.difference), style))
            table.add_row(*texts)
        table.add_section()
    return table
