"""What a report says, before it has a form: checkpoints x benchmarks, differences, and what is missing."""

import functools
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfer.report import published, statistics
from transfer.report.statistics import Difference, Ranking, Summary
from transfer.results import Result, Skipped

_KINDS = {"bbox": "box", "segm": "mask", "seg": "", "bbox_11point": "box (11 points)", "bbox_area": "box (area)"}
MARKS = {"better": "▲", "worse": "▼", "undecided": "≈"}
PLACE = ("devices", "accumulate", "images_per_device")  # how a recipe is carried out; its numbers do not depend on it


@dataclass
class Cell:
    """One checkpoint on one benchmark: its trials in order, and the reasons why any of those asked for are missing."""

    trials: list[tuple[Path, Result]] = field(default_factory=list)
    missing: list[tuple[int | None, str]] = field(default_factory=list)
    difference: Difference | None = None  # of the headline metric to the baseline, corrected over the whole table
    _summaries: dict[str, Summary | None] = field(default_factory=dict, repr=False)

    def values(self, metric: str) -> list[float]:
        """Return the trials' values of a metric, without those that had none."""
        found = (result.metrics.get(metric) for _, result in self.trials)
        return [value for value in found if value is not None]

    def by_seed(self, metric: str) -> dict[int, float] | None:
        """Return the trials' values by seed, in order of seed; None where seeds are unknown, double or without a value."""
        found = {r.seed: r.metrics.get(metric) for _, r in self.trials if r.seed is not None}
        if len(found) < len(self.trials):
            return None
        values = {seed: value for seed, value in sorted(found.items()) if value is not None}
        return values if len(values) == len(found) else None

    def summary(self, metric: str) -> Summary | None:
        """Summarise a metric once all trials are in, None when no trial has a value."""
        if metric not in self._summaries:
            values = self.values(metric)
            self._summaries[metric] = statistics.summarise(values) if values else None
        return self._summaries[metric]

    @functools.cached_property
    def valueless(self) -> set[str]:
        """Return the metrics that some trial reported as having no value."""
        return {name for _, result in self.trials for name, value in result.metrics.items() if value is None}

    @functools.cached_property
    def changed_recipe(self) -> dict[str, tuple[Any, Any]]:
        """Return what the effective recipe changed: name -> (effective, published)."""
        found: dict[str, tuple[Any, Any]] = {}
        for _, result in self.trials:
            effective, wanted = result.recipe.get("effective", {}), result.recipe.get("published", {})
            found |= {k: (effective.get(k), wanted[k]) for k in wanted if effective.get(k) != wanted[k]}
        return found

    @functools.cached_property
    def effective_recipe(self) -> set[tuple[str, str]]:
        """Return every setting that was in effect in any trial, and its data."""
        return {pair for _, result in self.trials for pair in conditions(result).items()}

    @functools.cached_property
    def data(self) -> set[str]:
        """Return the data of its trials, as far as they say."""
        return {conditions(result)["data"] for _, result in self.trials if result.data}

    @functools.cached_property
    def same_protocol(self) -> bool:
        """Tell whether published numbers may stand beside this cell: nothing changed but how it is carried out.

        Another norm over as many images is the published one, as batch norm of a single device that has them all is.
        """
        options = [
            o for _, r in self.trials for o in r.protocol.options if not (self.swept and o.startswith("--lr-sweep"))
        ]
        recipes = [result.recipe.get("effective", {}) for _, result in self.trials]
        whole = all("norm_group" in recipe or recipe.get("devices") == 1 for recipe in recipes)
        return not options and not set(self.changed_recipe) - {
            *PLACE,
            *(("norm",) if whole else ()),
            *(("lr",) if self.swept else ()),
        }

    @property
    def swept(self) -> bool:
        """Tell whether its learning rates were chosen from several."""
        return bool(self.trials) and all("lr_sweep" in result.recipe for _, result in self.trials)


def conditions(result: Result) -> dict[str, str]:
    """Return what a trial's numbers depend on besides checkpoint, protocol and seed; a rate that a sweep chose is a result."""
    swept = ("lr",) if "lr_sweep" in result.recipe else ()
    found = {k: str(v) for k, v in result.recipe.get("effective", {}).items() if k not in (*PLACE, *swept)}
    if result.data:
        text = json.dumps(result.data, sort_keys=True, default=str)
        found["data"] = hashlib.sha256(text.encode()).hexdigest()[:8]
    return found


@dataclass(frozen=True, eq=False)
class Row:
    """A checkpoint; ``label`` is its name, with a piece of its sha256 where two files bear the same name.

    ``variant`` names what differs where some of a cell's trials ran under other conditions than the rest. ``files`` are the
    sha256 of its files: several where a suite pre-trains once a trial, each with its run folder.
    """

    label: str
    name: str
    files: tuple[str, ...]
    method: str = ""
    branches: tuple[str, ...] = ()
    notes: str = ""
    conversion: tuple[str, ...] = ()
    runs: tuple[Path, ...] = ()
    baseline: bool = False
    variant: str = ""

    @property
    def said(self) -> str:
        """Return the label as sentences have it: in quotes where a comma or a word of theirs would break it."""
        return f"“{self.label}”" if re.search(r"[,;]|\b(on|and|against)\b", self.label) else self.label


@dataclass(frozen=True, eq=False)
class Column:
    """A benchmark under one protocol; ``metrics`` in the order to show, the headline first."""

    label: str
    benchmark: str
    hash: str
    title: str
    headline: str
    metrics: tuple[str, ...]
    plugin: str
    classes: frozenset[str] = frozenset()  # those metrics that are one class's own

    @property
    def overall(self) -> list[str]:
        """Return the metrics that are about all classes."""
        return [metric for metric in self.metrics if metric not in self.classes]


@dataclass(frozen=True)
class Ranks:
    """Average ranks of the checkpoints that were measured on all of some benchmarks; indices are of ``rows``."""

    rows: list[Row]
    columns: list[Column]
    found: Ranking


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
    source: Path = Path()  # what the user named: the folder, or the packed file that was unpacked there
    looks: tuple[int, ...] = ()  # of a suite that decides as it goes: the numbers of trials at which it tests
    ranks: Ranks | None = None

    def named(self, path: Path | str) -> str:
        """Write a path, or a text that names one, as it lies in what the user named."""
        return str(path).replace(str(self.folder), str(self.source))

    @functools.cached_property
    def styles(self) -> dict[Row, int]:
        """Number the rows' colours, dashes and markers: 0 is the baseline's, 1 to 28 go round.

        Seven colours with four markers: the page gives every seventh number the same colour, every fourth the same marker.
        """
        others = [row for row in self.rows if row is not self.baseline]
        found = {row: 1 + index % 28 for index, row in enumerate(others)}
        return {row: found.get(row, 0) for row in self.rows}

    @functools.cached_property
    def ordered(self) -> list[Row]:
        """Return the rows, the best average rank first; those without a rank follow as they are."""
        ranks = self.ranks
        known = dict(zip(ranks.rows, ranks.found.ranks, strict=True)) if ranks is not None else {}
        return sorted(self.rows, key=lambda row: known.get(row, math.inf))

    def rank(self, row: Row) -> float | None:
        """Return a row's average rank over benchmarks, None where it has none."""
        if self.ranks is None or row not in self.ranks.rows:
            return None
        return self.ranks.found.ranks[self.ranks.rows.index(row)]

    def verdicts(self, row: Row) -> Counter[str]:
        """Count the verdicts of a row's headline differences."""
        found = (self.cell(row, column).difference for column in self.columns)
        return Counter(difference.verdict for difference in found if difference is not None)

    @property
    def trials(self) -> int:
        """Count the results."""
        return sum(len(cell.trials) for cell in self.cells.values())

    @property
    def tests(self) -> set[str]:
        """Return which tests made the differences: ``paired``, ``Welch``, both, or none."""
        found = (cell.difference for cell in self.cells.values() if cell.difference is not None)
        return {"paired" if d.paired else "Welch" for d in found if d.p is not None}

    def pretrained(self, row: Row) -> dict[str, Any]:
        """Return what the weights files say of how a backbone was made."""
        trials = (trial for column in self.columns for trial in self.cell(row, column).trials)
        return next((result.checkpoint.pretrain for _, result in trials if result.checkpoint.pretrain), {})

    def ran(self, column: Column) -> list[Row]:
        """Return the rows that have a trial of a benchmark."""
        return [row for row in self.rows if self.cell(row, column).trials]

    def cell(self, row: Row, column: Column) -> Cell:
        """Return a cell, an empty one when nothing is known of it."""
        return self.cells.get((row, column)) or _NEVER_ASKED

    def published(self, row: Row, column: Column) -> list[tuple[float, published.Row]]:
        """Return the published headline values that may stand beside a cell."""
        cell = self.cell(row, column)
        if not cell.trials or not cell.same_protocol:
            return []
        known = cell.trials[0][1].checkpoint.pretrain
        return published.matching(
            column.plugin, row.method, row.branches, column.headline, known, row.name, swept=cell.swept
        )

    @functools.cached_property
    def with_published(self) -> set[Column]:
        """Return the columns where any cell has a published value beside it."""
        return {column for column in self.columns if any(self.published(row, column) for row in self.rows)}

    @functools.cached_property
    def conclusions(self) -> list[str]:
        """Say in words what each difference to the baseline does and does not show."""
        return [
            _conclusion(self, row, column)
            for column in self.columns
            for row in self.rows
            if self.baseline is not None and not row.baseline and self.cell(row, column).difference is not None
        ]


_NEVER_ASKED = Cell(missing=[(None, "no result, and no suite asked for it")])


def _conclusion(report: Report, row: Row, column: Column) -> str:
    cell, baseline = report.cell(row, column), report.baseline
    found = cell.difference
    assert found is not None
    assert baseline is not None
    what = f"{row.said} against {baseline.said} on {column.label}: {signed(found.mean)} {short(column.headline)}"
    if found.corrected_low is None or found.corrected_high is None or found.detectable is None:
        return f"{what}; single trials, or trials without any spread, cannot tell this from chance."
    test = "pairs of equal seeds, " if found.paired else f"look after {found.look} trials, " if found.look else ""
    what += f", {test}corrected 95 % interval {signed(found.corrected_low)} to {signed(found.corrected_high)}"
    verdict = found.verdict
    if verdict == "undecided":
        verdict += f"; trials of this number and spread find a gap of {at_least(found.detectable)} in 8 of 10 cases"
    if cell.effective_recipe != report.cell(baseline, column).effective_recipe:
        verdict += ". Their recipes differ, so this is not the pre-training alone"
    return f"{what}: {verdict}."


def signed(value: float) -> str:
    """Write a difference with its sign, a true minus; what is not zero is never written as zero."""
    return (f"{value:+.2f}" if abs(value) >= 0.005 or value == 0 else f"{value:+.1g}").replace("-", "−")


def at_least(value: float) -> str:
    """Write a number rounded up, so that what is below it is so in writing, too."""
    return f"{math.ceil(value * 100 - 1e-9) / 100:.2f}"


def is_class(metric: str) -> bool:
    """Tell whether a metric's name is one class's own: ``bbox/AP-cat``, but not ``linear/top-1``."""
    _, dash, name = metric.rpartition("/")[2].partition("-")
    return bool(dash) and re.search(r"[^\W\d]", name) is not None


def short(metric: str) -> str:
    """Return a metric's name as tables show it: ``bbox/AP50`` is ``box AP50``, ``knn20/top1`` is ``knn20 top1``."""
    kind, _, name = metric.partition("/")
    return f"{_KINDS.get(kind, kind)} {name}".strip() if name else metric


def trials_text(cells: Sequence[Cell]) -> str:
    """Say how many trials stand behind cells: ``3`` or ``2 to 5``."""
    counts = sorted({len(cell.trials) for cell in cells if cell.trials})
    return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "0"
