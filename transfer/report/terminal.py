"""The report's headline table on the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from transfer.report import wording
from transfer.report.model import Report

COLUMNS, LINES = 6, 12  # a terminal holds no more
STYLE = {"better": "green", "worse": "red", "undecided": "dim"}


def show(report: Report, paths: Sequence[Path], console: Console | None = None) -> None:
    """Print notices, the table, what it shows, and where the files are."""
    console = console or Console()
    for notice in report.notices:
        console.print(Text(f"! {notice}", "yellow"))
    table = Table(title=f"{report.title}: mean ± std over trials, percent", title_justify="left", header_style="bold")
    table.add_column("checkpoint")
    columns = report.columns[:COLUMNS]
    for column in columns:
        table.add_column(Text(wording.title_of(column)), justify="right")
        if report.baseline is not None:
            table.add_column(Text(f"difference to {report.baseline.label}"), justify="right")
    for row in report.rows:
        texts = [Text(row.label + (" (baseline)" if row is report.baseline else ""))]
        for column in columns:
            cell = report.cell(row, column)
            texts.append(Text(f"{wording.measured(cell.summary(column.headline))} ({wording.count(cell)})"))
            if report.baseline is not None:
                style = STYLE[cell.difference.verdict] if cell.difference else ""
                texts.append(Text(wording.compared(cell.difference), style))
        table.add_row(*texts)
    console.print(table)
    if tally := wording.tally(report):
        console.print(Text(tally, "bold"))
    for line in report.conclusions[:LINES]:
        console.print(Text(f"- {line}"))
    if (left := len(report.columns) - COLUMNS) > 0:
        console.print(Text(f"{left} more benchmark(s) are in the report"))
    for path in paths:
        console.print(Text(str(path)), soft_wrap=True)
