"""What a report says, before it has a form: checkpoints x benchmarks, differences, and what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfer import published, statistics
from transfer.results import Result, Skipped
from transfer.statistics import Difference, Summary

MARKS = {"better": "▲", "worse": "▼", "undecided": "≈"}
_SAME_PROTOCOL = ("devices", "norm")  # may differ between effective and published recipe: the batch is what counts


@dataclass
class Cell:
    """One checkpoint on one benchmark: its trials in order, and the reasons why any of those asked for are missing."""

    trials: list[tuple[Path, Result]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    difference: Difference | None = None  # of the headline metric to the baseline, corrected over the whole table

    def values(self, metric: str) -> list[float]:
        """Return the trials' values of a metric, without those that had none."""
        found = (result.metrics.get(metric) for _, result in self.trials)
        return [value for value in found if value is not None]

    def summary(self, metric: str) -> Summary | None:
        """Summarise a metric, None when no trial has a value."""
        values = self.values(metric)
        return statistics.summarise(values) if values else None

    @property
    def valueless(self) -> set[str]:
        """Return the metrics that some trial reported as having no value."""
        return {name for _, result in self.trials for name, value in result.metrics.items() if value is None}

    @property
    def changed_recipe(self) -> dict[str, tuple[Any, Any]]:
        """Return what the effective recipe changed: name -> (effective, published)."""
        found: dict[str, tuple[Any, Any]] = {}
        for _, result in self.trials:
            effective, wanted = result.recipe.get("effective", {}), result.recipe.get("published", {})
            found |= {k: (effective.get(k), wanted[k]) for k in wanted if effective.get(k) != wanted[k]}
        return found

    @property
    def effective_recipe(self) -> set[tuple[str, str]]:
        """Return every setting that was in effect in any trial."""
        return {(key, str(value)) for _, r in self.trials for key, value in r.recipe.get("effective", {}).items()}

    @property
    def same_protocol(self) -> bool:
        """Tell whether published numbers may stand beside this cell: nothing changed but the number of devices."""
        options = any(result.protocol.options for _, result in self.trials)
        return not options and not set(self.changed_recipe) - set(_SAME_PROTOCOL)


@dataclass(frozen=True)
class Row:
    """A checkpoint; ``label`` is its name, with a piece of its sha256 where two files bear the same name."""

    label: str
    name: str
    sha256: str
    method: str = ""
    branches: tuple[str, ...] = ()
    notes: str = ""
    run: Path | None = None  # its pre-training run folder
    baseline: bool = False


@dataclass(frozen=True)
class Column:
    """A benchmark under one protocol; ``metrics`` in the order to show, the headline first."""

    label: str
    benchmark: str
    hash: str
    title: str
    headline: str
    metrics: tuple[str, ...]
    plugin: str


@dataclass
class Report:
    """Everything that the writers print."""

    title: str
    folder: Path
    rows: list[Row]
    columns: list[Column]
    cells: dict[tuple[Row, Column], Cell]
    baseline: Row | None
    notices: list[str]
    skipped: list[Skipped]

    def cell(self, row: Row, column: Column) -> Cell:
        """Return a cell, an empty one when nothing is known of it."""
        return self.cells.get((row, column)) or Cell(missing=["no result, and no suite asked for it"])

    def published(self, row: Row, column: Column) -> list[tuple[float, published.Row]]:
        """Return the published headline values that may stand beside a cell."""
        cell = self.cell(row, column)
        if not cell.trials or not cell.same_protocol:
            return []
        return published.matching(column.plugin, row.method, row.branches, column.headline)

    @property
    def conclusions(self) -> list[str]:
        """Say in words what each difference to the baseline does and does not show."""
        return [
            _conclusion(self, row, column)
            for column in self.columns
            for row in self.rows
            if self.baseline is not None and not row.baseline and self.cell(row, column).difference is not None
        ]


def _conclusion(report: Report, row: Row, column: Column) -> str:
    cell, baseline = report.cell(row, column), report.baseline
    found = cell.difference
    assert found is not None
    assert baseline is not None
    what = f"{row.label} against {baseline.label} on {column.label}: {signed(found.mean)} {short(column.headline)}"
    if found.corrected_low is None or found.corrected_high is None or found.detectable is None:
        return f"{what}; single trials, or trials without any spread, cannot tell this from chance."
    what += f", corrected 95 % interval {signed(found.corrected_low)} to {signed(found.corrected_high)}"
    verdict = found.verdict
    if verdict == "undecided":
        verdict += f"; trials of this number and spread would find a gap of about {found.detectable:.2g}"
    if cell.effective_recipe != report.cell(baseline, column).effective_recipe:
        verdict += ". Their recipes differ, so this is not the pre-training alone"
    return f"{what}: {verdict}."


def signed(value: float) -> str:
    """Write a difference with its sign, a true minus."""
    return f"{value:+.2f}".replace("-", "−")


def short(metric: str) -> str:
    """Return a metric's name as tables show it: ``bbox/AP50`` is ``box AP50``."""
    kind, _, name = metric.partition("/")
    return f"{ {'bbox': 'box', 'segm': 'mask'}.get(kind, '') } {name}".strip() if name else metric


def trials_text(cells: Sequence[Cell]) -> str:
    """Say how many trials stand behind cells: ``3`` or ``2 to 5``."""
    counts = sorted({len(cell.trials) for cell in cells if cell.trials})
    return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "0"
