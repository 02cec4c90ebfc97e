"""Run a suite from its settings to its results folder, with a display."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from core import files
from core.provenance import ROOT
from transfer import execution, process, suite
from transfer.durations import duration
from transfer.progress import Progress
from transfer.suite import Suite


@contextlib.contextmanager
def partners(count: int, suite_file: Path, overrides: Sequence[str], folder: Path) -> Iterator[None]:
    """Start ``count`` more runners on ``folder``; they share its items through the items' locks, and end with us."""
    command = [sys.executable, str(ROOT / "tools" / "run_suite.py"), str(suite_file), *overrides, "--out", str(folder)]
    started = [process.start(command, folder / f"runner-{number + 2}.log") for number in range(count)]
    try:
        yield
    finally:
        for runner in started:
            process.stop(runner)


def run(settings: Suite, folder: Path, console: Console) -> int:
    """Execute all items and return how many did not end well; SIGTERM and Ctrl-C stop the running one first."""
    items = suite.plan(settings, folder)
    statuses = execution.standing(items)
    with process.sigterm_ends_cleanly(), Progress(items, statuses, folder / "suite.log", console) as progress:
        files.write_json(folder / suite.FILE, suite.manifest(settings, items, folder))
        execution.execute(items, statuses, process.threads(settings.threads), progress)
    return sum(status.state != "done" for status in statuses.values())


def print_plan(settings: Suite, folder: Path, console: Console) -> None:
    """Print every item, what it needs, how long similar ones took, and whether it is done."""
    items = suite.plan(settings, folder)
    statuses = execution.standing(items)
    progress = Progress(items, statuses, folder / "suite.log", console)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("item", "state", "about", "folder"):
        table.add_column(column, overflow="fold")
    for item in items:
        known = progress.durations.get(item.sort)
        about = duration(sum(known) / len(known)) if known else "?"
        table.add_row(item.name, statuses[item.name].state, about, str(item.folder))
    console.print(table)
    done = sum(status.state == "done" for status in statuses.values())
    left = progress.left()
    console.print(
        f"{len(items)} items, {done} done, {'time left not known' if left is None else duration(left) + ' left'}"
    )
