"""Build a report from a results folder: read, compare with the baseline, name what is missing."""

import json
from pathlib import Path

from pydantic import BaseModel, ValidationError

from transfer import results, statistics
from transfer.report.model import Cell, Column, Report, Row
from transfer.results import Result, Skipped
from transfer.statistics import Difference


def build(folder: Path, baseline: str | None = None) -> Report:
    """Read a results folder and compare; ``baseline`` is a checkpoint's name or suite label, or the suite's own."""
    collection = results.read_folder(folder)
    skipped = list(collection.skipped)
    suite = _suite(folder, skipped)
    found = _current(collection.results, suite, folder, skipped)
    wanted = baseline or suite.baseline
    wanted = next((c.name for c in suite.checkpoints if c.label == wanted), wanted)
    rows, columns = _rows(found, suite, folder, wanted), _columns(found, suite)
    cells = _cells(found, rows, columns)
    columns += _explain_missing(cells, rows, columns, suite, folder)
    chosen = [row for row in rows if row.baseline]
    report = Report(
        title=suite.name or folder.resolve().name,
        folder=folder,
        rows=rows,
        columns=columns,
        cells=cells,
        baseline=chosen[0] if len(chosen) == 1 else None,
        notices=[],
        skipped=skipped,
    )
    _compare(report)
    report.notices = _notices(report, wanted, len(chosen))
    return report


class _Checkpoint(BaseModel):
    label: str
    name: str
    method: str = ""
    branches: list[str] = []
    notes: str = ""
    run: str | None = None


class _Item(BaseModel):
    checkpoint: str
    benchmark: str
    trial: int
    folder: str


class _Suite(BaseModel):
    """What the report needs of ``suite.json``, which ``transfer.suite.manifest`` writes; hand-made results have none."""

    name: str = ""
    baseline: str | None = None
    checkpoints: list[_Checkpoint] = []
    benchmarks: dict[str, str] = {}
    items: list[_Item] = []


def _suite(folder: Path, skipped: list[Skipped]) -> _Suite:
    path = folder / "suite.json"
    if not path.exists():
        return _Suite()
    try:
        return _Suite.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        skipped.append(Skipped(path, f"not a suite's description, so missing cells are not known ({reason})"))
        return _Suite()


def _current(found: dict[Path, Result], suite: _Suite, folder: Path, skipped: list[Skipped]) -> dict[Path, Result]:
    """Leave out results of an earlier state of the suite: a changed checkpoint or protocol under the same names."""
    folders = {folder / item.folder for item in suite.items}
    asked = {(item.checkpoint, item.benchmark) for item in suite.items}
    kept = {}
    for path, result in found.items():
        if path.parent in folders or (result.checkpoint.name, result.benchmark) not in asked:
            kept[path] = result
        else:
            skipped.append(Skipped(path, "of an earlier state of the suite: checkpoint, protocol or trials changed"))
    return kept


def _rows(found: dict[Path, Result], suite: _Suite, folder: Path, baseline: str | None) -> list[Row]:
    said = {checkpoint.name: checkpoint for checkpoint in suite.checkpoints}
    keys = dict.fromkeys((r.checkpoint.name, r.checkpoint.sha256) for r in found.values())
    unseen = [(name, "") for name in said if not any(name == seen for seen, _ in keys)]
    names = [name for name, _ in (*keys, *unseen)]
    order = {name: index for index, name in enumerate(said)}
    rows = []
    for name, digest in sorted((*keys, *unseen), key=lambda key: (order.get(key[0], len(order)), key)):
        checkpoint = next((r.checkpoint for r in found.values() if _made_by(r, name, digest)), None)
        entry = said.get(name, _Checkpoint(label=name, name=name))
        rows.append(
            Row(
                label=name if names.count(name) == 1 else f"{name} @{digest[:8] or 'unknown file'}",
                name=name,
                sha256=digest,
                method=checkpoint.method if checkpoint else entry.method,
                branches=checkpoint.branches if checkpoint else tuple(entry.branches),
                notes=checkpoint.notes if checkpoint else entry.notes,
                run=folder / entry.run if entry.run else None,
                baseline=name == baseline,
            )
        )
    return rows


def _made_by(result: Result, name: str, digest: str) -> bool:
    return (result.checkpoint.name, result.checkpoint.sha256) == (name, digest)


def _columns(found: dict[Path, Result], suite: _Suite) -> list[Column]:
    order = {label: index for index, label in enumerate(suite.benchmarks)}
    keys = list(dict.fromkeys((r.benchmark, r.protocol.hash) for r in found.values()))
    keys.sort(key=lambda key: order.get(key[0], len(order)))
    names = [benchmark for benchmark, _ in keys]
    columns = []
    for benchmark, digest in keys:
        mine = [r for r in found.values() if (r.benchmark, r.protocol.hash) == (benchmark, digest)]
        measured = dict.fromkeys(name for result in mine for name in result.metrics)
        protocol = mine[0].protocol
        headline = protocol.headline if protocol.headline in measured else next(iter(measured))
        known = [name for name in protocol.metrics if name in measured and name != headline]
        rest = [name for name in measured if name not in protocol.metrics and name != headline]
        title = protocol.title or benchmark
        label = title if names.count(benchmark) == 1 else f"{title} @{digest[:8] or 'unstated protocol'}"
        metrics = (headline, *known, *rest)
        columns.append(Column(label, benchmark, digest, title, headline, metrics, protocol.name or benchmark))
    return columns


def _cells(found: dict[Path, Result], rows: list[Row], columns: list[Column]) -> dict[tuple[Row, Column], Cell]:
    row_of = {(row.name, row.sha256): row for row in rows}
    column_of = {(column.benchmark, column.hash): column for column in columns}
    cells: dict[tuple[Row, Column], Cell] = {}
    for path, result in sorted(found.items(), key=lambda pair: pair[1].trial):
        row = row_of[result.checkpoint.name, result.checkpoint.sha256]
        column = column_of[result.benchmark, result.protocol.hash]
        cells.setdefault((row, column), Cell()).trials.append((path, result))
    return cells


def _explain_missing(
    cells: dict[tuple[Row, Column], Cell], rows: list[Row], columns: list[Column], suite: _Suite, folder: Path
) -> list[Column]:
    """Add why items that the suite asked for have no result; return the columns without any result."""
    added: dict[str, Column] = {}
    for item in suite.items:
        place = folder / item.folder
        failure = _failure(place)
        if (place / results.FILE).exists() and not failure:
            continue
        name = item.benchmark
        column = next((c for c in (*columns, *added.values()) if c.benchmark == name), None)
        if column is None:
            title = suite.benchmarks.get(name, name)
            column = added[name] = Column(title, name, "", title, "", (), name)
        row = next((row for row in rows if row.name == item.checkpoint), None)
        if row is not None:
            reason = failure or "not run yet"
            cells.setdefault((row, column), Cell()).missing.append(f"trial {item.trial}: {reason}")
    return list(added.values())


def _failure(place: Path) -> str:
    try:
        return str(json.loads((place / "failure.json").read_text())["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _compare(report: Report) -> None:
    """Fill in the differences of the headline metrics, corrected together."""
    if report.baseline is None:
        return
    places: list[Cell] = []
    raw: list[Difference] = []
    for (row, column), cell in report.cells.items():
        ours = cell.values(column.headline)
        theirs = report.cell(report.baseline, column).values(column.headline)
        if row != report.baseline and ours and theirs:
            places.append(cell)
            raw.append(statistics.difference(ours, theirs))
    for cell, difference in zip(places, statistics.holm(raw), strict=True):
        cell.difference = difference


def _notices(report: Report, wanted: str | None, chosen: int) -> list[str]:
    notices = []
    names = ", ".join(row.label for row in report.rows) or "none"
    shown = "so no differences are shown"
    if not report.rows:
        notices.append(f"No results in {report.folder}.")
    elif wanted is None:
        notices.append(f"No baseline was named, {shown}; there are: {names}.")
    elif chosen == 0:
        notices.append(f"The baseline {wanted!r} is not among the results, {shown}; there are: {names}.")
    elif chosen > 1:
        notices.append(f"{chosen} checkpoint files are named {wanted!r}, {shown}.")
    cells = [cell for cell in report.cells.values() if cell.trials]
    if single := sum(len(cell.trials) == 1 for cell in cells):
        notices.append(f"{single} cell(s) rest on one trial: no spread, no interval, and never 'better'.")
    if missing := sum(bool(report.cell(row, column).missing) for row in report.rows for column in report.columns):
        notices.append(f"{missing} cell(s) are missing or incomplete; the reasons are listed below.")
    if changed := sum(not cell.same_protocol for cell in cells):
        notices.append(f"{changed} cell(s) ran a recipe that differs from the published one; see protocols.")
    if valueless := sum(bool(cell.valueless) for cell in cells):
        notices.append(f"{valueless} cell(s) have metrics without a value in some trial; means are over the others.")
    if report.skipped:
        notices.append(f"{len(report.skipped)} result file(s) were skipped; they are listed below with the reason.")
    return notices
