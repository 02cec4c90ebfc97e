"""Run a suite from its settings to its results folder, with a display."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from core import files, plugins, run_folder
from core.errors import InputError
from core.meter import duration
from transfer import frameworks
from transfer.suite import check, execution, items, process
from transfer.suite.execution import Limits, Work
from transfer.suite.items import Item
from transfer.suite.launchers import Launcher
from transfer.suite.progress import Durations, Progress
from transfer.suite.settings import Suite

UNLIMITED = 10_000  # columns


def run(settings: Suite, folder: Path, console: Console) -> int:
    """Execute all items and return how many did not end well; SIGTERM and Ctrl-C stop the running ones first."""
    launcher, limits = _launcher(settings, folder), Limits(settings.retries, settings.memory_gib)
    wanted = items.plan(settings, folder, launcher.available)
    statuses = execution.standing(wanted)
    _claim(settings, folder)
    launcher.check(limits)
    if found := list(check.problems(settings, wanted, statuses, folder)):
        raise InputError("\n".join(found))
    files.write_json(folder / items.FILE, items.manifest(settings, wanted, folder))
    progress = Progress(wanted, statuses, folder / "suite.log", console, launcher.width)
    with process.sigterm_ends_cleanly(), progress:
        launcher.run(Work(wanted, statuses, progress, limits))
    return sum(status.state != "done" for status in statuses.values())


def _claim(settings: Suite, folder: Path) -> None:
    """Refuse a results folder of another suite: its list of what was asked for would be replaced."""
    path = folder / items.FILE
    if path.exists():
        found = files.read_json(path)
        kept = {"name": found.get("name")} if isinstance(found, dict) else {}
        run_folder.open_folder(folder, {"name": settings.name}, False, "--out", begun=True, kept=kept, can_resume=False)


def _launcher(settings: Suite, folder: Path) -> Launcher:
    launcher: Launcher = plugins.build(
        "transfer.suite.launchers", settings.launcher, threads=settings.threads, folder=folder
    )
    return launcher


def print_plan(settings: Suite, folder: Path, console: Console) -> None:
    """Print each benchmark's recipe on the devices at hand, and every item: its state, its cost, what it needs, its folder.

    Raises InputError with all that would go wrong.
    """
    launcher = _launcher(settings, folder)
    wanted = items.plan(settings, folder, launcher.available)
    statuses = execution.standing(wanted)
    durations = Durations(wanted, statuses)
    console.print(_recipes(settings, wanted, launcher.available))
    lines = []
    for item in wanted:
        about = durations.estimate(item)
        state = statuses[item.name].state
        if state == "waiting" and (item.folder / execution.FAILURE).exists():
            state = "failed"
        lines.append((item.name, state, "?" if about is None else duration(about), item.after, str(item.folder)))
    for shown in (5, 4, 3):
        table = _table(("item", "state", "about", "after", "folder")[:shown], [line[:shown] for line in lines])
        if console.measure(table, options=console.options.update(width=UNLIMITED)).maximum <= console.width:
            break
    console.print(table)
    done = sum(status.state == "done" for status in statuses.values())
    console.print(f"{len(wanted)} items, {done} done, {durations.left(statuses, launcher.width)}; in {folder}")
    if found := list(check.problems(settings, wanted, statuses, folder)):
        raise InputError("\n".join(["this would stop it:", *found]))


def _recipes(settings: Suite, wanted: Sequence[Item], available: int) -> Table:
    """Return a line a benchmark: the devices of an item and what is trained on them; without GPUs, as published."""
    lines = []
    for label, measure in settings.benchmarks.items():
        row = measure.benchmark
        devices = next(item.devices for item in wanted if item.benchmark == label)
        facts = frameworks.of(row).summary(row.config_file, devices if available else None)
        batch = f"{facts['batch']} ({facts['devices']} × {facts['batch'] // facts['devices']})" if facts else "–"
        of = "" if devices == row.devices else f" of {row.devices}"
        recipe = (f"{facts['iterations']:,}", f"{facts['lr']:g}", facts["norm"]) if facts else ("–", "–", "–")
        lines.append((label, f"{devices}{of}", batch, *recipe))
    return _table(("benchmark", "devices", "images", "iterations", "lr", "norm"), lines)


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table
