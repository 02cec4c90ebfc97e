"""Run a suite from its settings to its results folder, with a display."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from core import bounds, files, plugins, run_folder
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
    """Execute all items and return how many did not end well; SIGTERM and Ctrl-C stop the running ones first.

    With ``trials: auto`` that is done again and again, each time with the trials that undecided comparisons still need.
    """
    if settings.trials != "auto":
        return _execute(settings, folder, console)
    from transfer.report import assembly  # here: it imports SciPy

    every = [
        item for item in items.plan(settings, folder, _launcher(settings, folder).available) if item.trial is not None
    ]
    counts = dict.fromkeys(((item.checkpoint, item.benchmark) for item in every), settings.looks[0])
    for item in every:  # what an earlier sitting has done stays
        if item.trial is not None and items.finished(item):
            counts[item.checkpoint, item.benchmark] = max(counts[item.checkpoint, item.benchmark], item.trial + 1)
    while not (failed := _execute(settings, folder, console, counts)):
        more = assembly.wanted(assembly.build(folder))
        if all(counts[cell] >= count for cell, count in more.items()):
            break
        counts |= {cell: max(counts[cell], count) for cell, count in more.items()}
    return failed


def _execute(
    settings: Suite, folder: Path, console: Console, counts: Mapping[tuple[str, str], int] | None = None
) -> int:
    launcher, limits = _launcher(settings, folder), Limits(settings.retries, settings.memory_gib)
    wanted = items.plan(settings, folder, launcher.available)
    wanted = wanted if counts is None else items.begun(wanted, counts)
    statuses = execution.standing(wanted)
    _claim(settings, folder)
    launcher.check(limits)
    if found := list(check.problems(settings, wanted, statuses, folder)):
        raise (files.Unwritable if found == [check.no_room(folder)] else InputError)("\n".join(found))
    files.write_json(folder / items.FILE, items.manifest(settings, wanted, folder))
    progress = Progress(wanted, statuses, folder / "suite.log", console, launcher.width)
    with process.sigterm_ends_cleanly(), progress:
        launcher.run(Work(wanted, statuses, progress, limits))
    return sum(status.state != "done" for status in statuses.values())


def _claim(settings: Suite, folder: Path) -> None:
    """Refuse a results folder of another suite: its list of what was asked for would be replaced."""
    path = folder / items.FILE
    if path.exists():
        found = bounds.json_value(path, "a suite's description")
        kept = {"name": found.get("name")} if isinstance(found, dict) else {}
        run_folder.open_folder(folder, {"name": settings.name}, False, "--out", begun=True, kept=kept, can_resume=False)


def _launcher(settings: Suite, folder: Path) -> Launcher:
    launcher: Launcher = plugins.build(
        "transfer.suite.launchers", settings.launcher, threads=settings.threads, folder=folder
    )
    return launcher


def print_plan(settings: Suite, folder: Path, console: Console, refused: Callable[[Item], str] = lambda _: "") -> None:
    """Print each benchmark's recipe on the devices at hand, and every item: its state, its cost, what it needs, its folder.

    Raises InputError with all that would go wrong; ``refused`` tells why a pre-training could not start, which only it knows.
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
    if settings.trials == "auto":
        console.print(f"looks after {', '.join(map(str, settings.looks))} trials; what is decided gets no more")
    console.print(f"{len(wanted)} items, {done} done, {durations.left(statuses, launcher.width)}; in {folder}")
    found = list(check.problems(settings, wanted, statuses, folder))
    if settings.launcher.name == "local":
        made = [item for item in wanted if item.kind == "pretrain" and statuses[item.name].state != "done"]
        first = {item.checkpoint: item for item in reversed(made)}  # runs of other seeds are refused for the same
        asked = [item for item in made if item is first[item.checkpoint] or item.folder.exists()]
        found += [f"{item.name}: {reason}" for item in asked if (reason := refused(item))]
    if found:
        raise InputError("\n".join(["this would stop it:", *found]))


def print_power(settings: Suite, folder: Path, gap: float, spread: float | None, console: Console) -> None:
    """Print how many trials and device-hours a gap needs, from the results so far, or without any from ``spread`` alone."""
    from transfer.report import assembly, terminal  # here: they import SciPy

    if folder.is_dir() or spread is None:
        terminal.needs(assembly.build(folder), gap, spread, console)
        return
    with tempfile.TemporaryDirectory() as empty:
        place = Path(empty)
        files.write_json(place / items.FILE, items.manifest(settings, items.plan(settings, place), place))
        terminal.needs(assembly.build(place), gap, spread, console)


def _recipes(settings: Suite, wanted: Sequence[Item], available: int) -> Table:
    """Return a line a benchmark: the devices of an item and what is trained on them; without GPUs, as published."""
    lines = []
    for label, measure in settings.benchmarks.items():
        row = measure.benchmark
        devices = next(item.devices for item in wanted if item.benchmark == label)
        fit = (devices if available else None, measure.images_per_device, measure.scaling == "linear")
        facts = frameworks.of(row).summary(row.config_file, *fit)
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
