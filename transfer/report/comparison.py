"""Compare two reports cell by cell: what is new, gone, measured again, and whether numbers changed beyond chance."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.files import write_atomic
from transfer.report import markdown, statistics, wording
from transfer.report.model import MARKS, Cell, Column, Report, conditions
from transfer.report.statistics import Difference


@dataclass
class Change:
    """A cell in both reports or in one; ``found`` is the second's mean minus the first's, corrected over all cells."""

    checkpoint: str
    benchmark: str
    metric: str
    before: Cell
    after: Cell
    why: list[str]
    found: Difference | None = None


def changes(before: Report, after: Report) -> list[Change]:
    """Return every cell that either report has, in the second's order; trials that are the same files' are no change."""
    cells: dict[tuple[str, str], list[tuple[Cell, Column] | None]] = {}
    for index, report in ((1, after), (0, before)):
        for row in report.rows:
            for column in report.columns:
                if report.cell(row, column).trials:
                    place = cells.setdefault((row.label, column.benchmark), [None, None])
                    place[index] = report.cell(row, column), column
    found = [_change(*names, *pair) for names, pair in cells.items()]
    tested = [change for change in found if change.found is not None]
    for change, corrected in zip(tested, statistics.holm([c.found for c in tested if c.found]), strict=True):
        change.found = corrected
    return found


def _change(name: str, benchmark: str, old: tuple[Cell, Column] | None, new: tuple[Cell, Column] | None) -> Change:
    column = (new or old or (Cell(), None))[1]
    assert column is not None
    before, after = (pair[0] if pair else Cell() for pair in (old, new))
    change = Change(name, column.label, column.headline, before, after, [])
    values, others = after.values(column.headline), before.values(column.headline)
    if not before.trials or not after.trials:
        change.why.append("only in the first" if before.trials else "only in the second")
    elif sorted(values) != sorted(others):
        change.why += _why(before, after)
        if values and others:
            change.found = statistics.difference(values, others)
    return change


def _why(before: Cell, after: Cell) -> list[str]:
    """Name what else changed: the checkpoint's file, protocol, recipe, data and versions."""
    pair = [cell.trials[0][1] for cell in (before, after)]
    said = []
    for name, values in (
        ("another checkpoint file", [one.checkpoint.sha256 for one in pair]),
        ("another protocol", [one.protocol.hash for one in pair]),
    ):
        said += [name] if values[0] != values[1] else []
    old, new = map(conditions, pair)
    said += [f"{k} {old.get(k, '–')} → {new.get(k, '–')}" for k in old | new if old.get(k) != new.get(k)]
    first, second = (one.environment.get("packages") for one in pair)
    if isinstance(first, dict) and isinstance(second, dict):
        said += [f"{k} {first.get(k)} → {second.get(k)}" for k in first | second if first.get(k) != second.get(k)]
    return said


def lines(before: Report, after: Report) -> Iterator[str]:
    """Write the comparison as Markdown."""
    found = changes(before, after)
    decided = [change for change in found if change.found is not None and change.found.verdict != "undecided"]
    yield f"# {markdown.escape(f'{after.source} against {before.source}')}"
    yield ""
    yield (
        f"{len(found)} cells, {sum(change.found is not None or bool(change.why) for change in found)} of them changed, "
        f"{len(decided)} beyond chance (Welch's test, Holm's correction over all that were measured again)."
    )
    yield ""
    heads = ["checkpoint", "benchmark", "before", "after", "change", "what else differs"]
    rows = []
    for change in found:
        sides = [
            f"{wording.measured(c.summary(change.metric))} ({wording.count(c)})" for c in (change.before, change.after)
        ]
        same = "the same" if change.before.trials and change.after.trials else ""
        told = wording.compared(change.found) if change.found is not None else same
        rows.append([change.checkpoint, change.benchmark, *sides, told, "; ".join(change.why)])
    yield from markdown.table(heads, rows)
    yield ""
    yield f"{MARKS['better']} higher, {MARKS['worse']} lower than before, {MARKS['undecided']} not beyond chance."


def write(before: Report, after: Report, folder: Path) -> Path:
    """Write ``comparison.md`` into ``folder``."""
    write_atomic(folder / "comparison.md", "\n".join(lines(before, after)) + "\n")
    return folder / "comparison.md"
