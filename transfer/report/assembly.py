"""Build a report from a results folder: read, compare with the baseline, name what is missing."""

from collections import Counter
from pathlib import Path

from pydantic import BaseModel, ValidationError

from core import bounds
from core.files import FileError
from transfer import results
from transfer.report import cost, statistics
from transfer.report.model import Cell, Column, Ranks, Report, Row, conditions, is_class
from transfer.results import Result, Skipped


def build(folder: Path, baseline: str | None = None, source: Path | None = None) -> Report:
    """Read a results folder and compare; ``baseline`` is a checkpoint's name or suite label, or the suite's own.

    ``source`` is what the user named, where the folder was unpacked from a file.
    """
    source = source or folder
    collection = results.read_folder(folder)
    skipped = list(collection.skipped)
    suite = _suite(folder, skipped)
    found = _current(collection.results, suite, folder, skipped)
    wanted = baseline or suite.baseline
    wanted = next((c.name for c in suite.checkpoints if c.label == wanted), wanted)
    keys = _keys(found, suite, folder)
    row_of, columns = _rows(found, keys, suite, folder, wanted), _columns(found, suite)
    rows = list(row_of.values())
    cells = _cells(found, keys, row_of, columns)
    columns += _explain_missing(cells, rows, columns, suite, folder)
    chosen = [row for row in rows if row.baseline]
    report = Report(
        title=suite.name or source.resolve().name.partition(".")[0],
        folder=folder,
        rows=rows,
        columns=columns,
        cells=cells,
        baseline=chosen[0] if len(chosen) == 1 else None,
        notices=[],
        skipped=skipped,
        source=source,
    )
    report.looks = tuple(sorted({count for count in suite.looks if count > 1}))
    _compare(report)
    report.ranks = _rank(report)
    report.notices = _notices(report, wanted, len(chosen))
    return report


class _Checkpoint(BaseModel):
    label: str
    name: str
    method: str = ""
    branches: list[str] = []
    notes: str = ""
    run: str | None = None
    runs: list[str] = []  # where a suite pre-trains once a trial


class _Item(BaseModel):
    checkpoint: str
    benchmark: str
    trial: int
    folder: str


class _Suite(BaseModel):
    """What the report needs of ``suite.json``, which ``transfer.suite.settings.manifest`` writes; hand-made results have none."""

    name: str = ""
    baseline: str | None = None
    checkpoints: list[_Checkpoint] = []
    benchmarks: dict[str, str] = {}
    items: list[_Item] = []
    looks: list[int] = []  # of ``trials: auto``: the numbers of trials after which comparisons are tested


def _suite(folder: Path, skipped: list[Skipped]) -> _Suite:
    path = folder / "suite.json"
    if not path.exists():
        return _Suite()
    try:
        return _Suite.model_validate(bounds.json_value(path, "a suite's description"))
    except (FileError, ValidationError) as error:
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


# A checkpoint's name and file (empty for those that a suite made under one name), and what differs from the other trials.
Key = tuple[str, str, str]


def _keys(found: dict[Path, Result], suite: _Suite, folder: Path) -> dict[Path, Key]:
    """Tell which row each result belongs to: a suite may pre-train, and anyone may draw random weights, once a trial.

    A cell holds one thing: of its trials only those under the conditions that most of the benchmark's have stay in it.
    """
    folders = {folder / item.folder for item in suite.items}
    made = {_of(r) for path, r in found.items() if path.parent in folders or r.checkpoint.method == "random"}
    made -= _told_apart([r for r in found.values() if _of(r) in made])
    ways = {path: tuple(conditions(r).items()) for path, r in found.items()}
    cells: dict[tuple[str, str, str, str], list[Path]] = {}
    ran: dict[tuple[str, str], Counter[tuple[tuple[str, str], ...]]] = {}
    for path, r in found.items():
        column = r.benchmark, r.protocol.hash
        file = "" if _of(r) in made else r.checkpoint.sha256
        cells.setdefault((r.checkpoint.name, file, *column), []).append(path)
        ran.setdefault(column, Counter())[ways[path]] += 1
    keys: dict[Path, Key] = {}
    for (name, file, benchmark, rules), paths in cells.items():
        usual = max(dict.fromkeys(ways[path] for path in paths), key=ran[benchmark, rules].__getitem__)
        keys |= {path: (name, file, _variant(dict(ways[path]), dict(usual))) for path in paths}
    return keys


def _told_apart(made: list[Result]) -> set[tuple[str, str]]:
    """Return files of one name that are no trials of one cell: one was measured in the trial of another."""
    files: dict[tuple[str, str, str, int], set[tuple[str, str]]] = {}
    for r in made:
        files.setdefault((r.checkpoint.name, r.benchmark, r.protocol.hash, r.trial), set()).add(_of(r))
    names = {name for (name, *_), mine in files.items() if len(mine) > 1}
    return {_of(r) for r in made if r.checkpoint.name in names}


def _variant(way: dict[str, str], usual: dict[str, str]) -> str:
    differing = [name for name in way | usual if way.get(name) != usual.get(name)]
    return ", ".join(f"{name} {way.get(name, 'not stated')}" for name in differing)


def _of(result: Result) -> tuple[str, str]:
    return result.checkpoint.name, result.checkpoint.sha256


def _rows(
    found: dict[Path, Result], keys: dict[Path, Key], suite: _Suite, folder: Path, baseline: str | None
) -> dict[Key, Row]:
    said = {checkpoint.name: checkpoint for checkpoint in suite.checkpoints}
    results_of: dict[Key, list[Result]] = {}
    for path, result in found.items():
        results_of.setdefault(keys[path], []).append(result)
    unseen = [(name, "", "") for name in said if not any(name == key[0] for key in results_of)]
    every = [*results_of, *unseen]
    names = [name for name, _ in dict.fromkeys((name, digest) for name, digest, _ in every)]
    order = {name: index for index, name in enumerate(said)}
    rows = {}
    for key in sorted(every, key=lambda key: (order.get(key[0], len(order)), key)):
        name, digest, variant = key
        mine = results_of.get(key, [])
        checkpoint = mine[0].checkpoint if mine else None
        entry = said.get(name, _Checkpoint(label=name, name=name))
        files = tuple(dict.fromkeys(result.checkpoint.sha256 for result in mine))
        piece = digest[:8] or ("the suite's" if name in said else "drawn anew" if len(mine) > 1 else "unknown file")
        label = name if names.count(name) == 1 else f"{name} @{piece}"
        rows[key] = Row(
            label=f"{label}, {variant}" if variant else label,
            name=name,
            files=files,
            method=checkpoint.method if checkpoint else entry.method,
            branches=checkpoint.branches if checkpoint else tuple(entry.branches),
            notes=checkpoint.notes if checkpoint else entry.notes,
            conversion=checkpoint.conversion if checkpoint else (),
            runs=tuple(folder / run for run in entry.runs or ([entry.run] if entry.run else [])),
            baseline=name == baseline and not variant,
            variant=variant,
        )
    return rows


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
        classes = frozenset(name for name in rest if is_class(name))
        columns.append(Column(label, benchmark, digest, title, headline, metrics, protocol.name or benchmark, classes))
    return columns


def _cells(
    found: dict[Path, Result], keys: dict[Path, Key], rows: dict[Key, Row], columns: list[Column]
) -> dict[tuple[Row, Column], Cell]:
    column_of = {(column.benchmark, column.hash): column for column in columns}
    cells: dict[tuple[Row, Column], Cell] = {}
    for path, result in sorted(found.items(), key=lambda pair: pair[1].trial):
        column = column_of[result.benchmark, result.protocol.hash]
        cells.setdefault((rows[keys[path]], column), Cell()).trials.append((path, result))
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
            cells.setdefault((row, column), Cell()).missing.append((item.trial, failure or "not run yet"))
    return list(added.values())


def _failure(place: Path) -> str:
    try:
        return str(bounds.json_value(place / "failure.json", "a failure", 2**20)["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _compare(report: Report) -> None:
    """Fill in the differences of the headline metrics, corrected together, or look by look where a suite decides so."""
    if report.baseline is None:
        return
    places = [
        (row, column, cell)
        for (row, column), cell in report.cells.items()
        if row is not report.baseline and cell.values(column.headline)
    ]
    against = {column: report.cell(report.baseline, column) for column in report.columns}
    places = [
        (row, column, cell)
        for row, column, cell in places
        if against[column].values(column.headline) and not _other_data(cell, against[column])
    ]
    samples = [(cell.values(c.headline), against[c].values(c.headline)) for _, c, cell in places]
    if report.looks:
        found = statistics.sequential(samples, report.looks)
    else:
        testable = sum(min(map(len, sides)) > 1 for sides in samples)
        pairs = {column: _pairs(report, column, testable) for column in report.columns}
        raw = [
            statistics.difference(pairs[c][row], pairs[c][report.baseline], paired=True)
            if row in pairs[c]
            else statistics.difference(*sides)
            for (row, c, _), sides in zip(places, samples, strict=True)
        ]
        found = statistics.holm(raw)
    for (_, _, cell), difference in zip(places, found, strict=True):
        cell.difference = difference


def wanted(report: Report) -> dict[tuple[str, str], int]:
    """Return how many trials each cell (checkpoint's name, benchmark) needs at its next look; nothing for decided ones."""
    found: dict[tuple[str, str], int] = {}
    for column in report.columns:
        for row in report.rows:
            if report.baseline is None or row is report.baseline:
                continue
            cell, baseline = report.cell(row, column), report.cell(report.baseline, column)
            have = min(len(one.values(column.headline)) for one in (cell, baseline))
            look = next((count for count in report.looks if count > have), None)
            if look is not None and (cell.difference is None or cell.difference.verdict == "undecided"):
                found[row.name, column.benchmark] = look
                name = report.baseline.name, column.benchmark
                found[name] = max(look, found.get(name, 0))
    return found


def _other_data(cell: Cell, baseline: Cell) -> bool:
    return bool(cell.data and baseline.data and cell.data != baseline.data)


def _pairs(report: Report, column: Column, comparisons: int) -> dict[Row, list[float]]:
    """Return the values in order of seed of the rows to compare in pairs; none where pairs do not pay (``pairs_pay``).

    Those have the baseline's seeds, once each, under its recipe, and so saw the same data in the same order.
    """
    assert report.baseline is not None
    baseline = report.cell(report.baseline, column)
    seeds = baseline.by_seed(column.headline)
    if not seeds or not comparisons:
        return {}
    found = {}
    for row in report.ran(column):
        mine = report.cell(row, column)
        values = mine.by_seed(column.headline)
        if values and set(values) == set(seeds) and mine.effective_recipe == baseline.effective_recipe:
            found[row] = list(values.values())
    pay = statistics.pairs_pay(list(found.values()), (1 - statistics.LEVEL) / comparisons)
    return found if pay else {}


def _rank(report: Report) -> Ranks | None:
    """Rank the checkpoints that have a value on every benchmark that most of them have."""
    means = {
        (row, column): summary.mean
        for row in report.rows
        for column in report.columns
        if (summary := report.cell(row, column).summary(column.headline)) is not None
    }
    enough = max(2, len(report.rows) / 2)
    columns = [column for column in report.columns if sum((row, column) in means for row in report.rows) > enough]
    rows = [row for row in report.rows if all((row, column) in means for column in columns)]
    table = [[means[row, column] for row in rows] for column in columns]
    found = statistics.ranking(table)
    return None if found is None else Ranks(rows, columns, found)


def _about_baseline(report: Report, wanted: str | None, chosen: int) -> list[str]:
    notices = []
    names = ", ".join(row.said for row in report.rows) or "none"
    shown = "so no differences are shown"
    if not report.rows:
        notices.append(f"No results in {report.source}.")
    elif wanted is None:
        notices.append(f"No baseline was named, {shown}; there are: {names}.")
    elif chosen == 0:
        notices.append(f"The baseline {wanted!r} is not among the results, {shown}; there are: {names}.")
    elif chosen > 1:
        notices.append(f"{chosen} checkpoint files are named {wanted!r}, {shown}.")
    base = report.baseline
    if base is not None and (
        other := sum(_other_data(cell, report.cell(base, column)) for (_, column), cell in report.cells.items())
    ):
        notices.append(f"{other} cell(s) were trained or measured on other data than the baseline's: not compared.")
    return notices


def _notices(report: Report, wanted: str | None, chosen: int) -> list[str]:
    notices = _about_baseline(report, wanted, chosen)
    cells = [cell for cell in report.cells.values() if cell.trials]
    if single := sum(len(cell.trials) == 1 for cell in cells):
        notices.append(f"{single} cell(s) rest on one trial: no spread, no interval, and never 'better'.")
    if missing := sum(bool(report.cell(row, column).missing) for row in report.rows for column in report.columns):
        notices.append(f"{missing} cell(s) are missing or incomplete; the reasons are listed below.")
    if changed := sum(not cell.same_protocol for cell in cells):
        notices.append(f"{changed} cell(s) ran a recipe that differs from the published one; see protocols.")
    if valueless := sum(column.headline in cell.valueless for (_, column), cell in report.cells.items()):
        notices.append(f"{valueless} cell(s) have no value in some trial; their means are over the others.")
    if apart := [row.said for row in report.rows if row.variant]:
        notices.append(
            f"Trials under other conditions than the rest of their cell were kept apart: {', '.join(apart)}."
        )
    if warned := [row.said for row in report.rows if cost.warnings(row)]:
        notices.append(
            f"Warned about while pre-training: {', '.join(warned)}; the warnings stand below the table of costs."
        )
    for note in dict.fromkeys(note for row in report.rows for note in row.conversion):
        notices.append(f"Read so: {', '.join(row.said for row in report.rows if note in row.conversion)}: {note}.")
    if report.skipped:
        notices.append(f"{len(report.skipped)} file(s) were skipped; they are listed below with the reason.")
    return notices
