"""What pre-training and trials took, and accuracy against it."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from core import bounds
from transfer.report import statistics, wording
from transfer.report.charts import Chart, Dot, scatter
from transfer.report.model import Cell, Column, Report, Row, short

LENGTH = (
    "epochs",
    "workers",
    "log_every",
    "checkpoint_every",
    "keep_every",
)  # may differ between runs of the same settings
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, eight times as fast
BACKWARD = 2  # forwards that a backward pass costs; only the query encoder has one


@dataclass(frozen=True)
class Cost:
    """What a checkpoint's pre-training took, as far as its summary, its config or its weights file say.

    ``image_forwards`` counts images through one encoder, a backward pass as two, which makes methods comparable on any
    machine as long as their backbones are the same.
    """

    row: Row
    epochs: float | None
    forwards: str
    image_forwards: float | None
    relative: float | None  # to the baseline's
    images_per_second: float | None
    seconds: float | None
    final_loss: float | None
    knn_top1: float | None
    warnings: tuple[str, ...] = ()  # of any of its runs


def costs(report: Report) -> list[Cost]:
    """Read the cost of every checkpoint; the first run's where a suite pre-trains once a trial."""
    known = {row: _known(report, row) for row in report.rows}
    images = {row: image_forwards(row, values) for row, values in known.items()}
    base = images[report.baseline] if report.baseline is not None else None
    found = []
    for row, values in known.items():
        rest = ("images_per_second", "seconds", "final_loss", "knn_top1")
        numbers = {name: _number(values.get(name)) for name in rest}
        made = images[row]
        relative = made / base if made and base else None
        said = wording.plain(values.get("forwards_per_step") or "")
        found.append(Cost(row, _number(values.get("epochs")), said, made, relative, **numbers, warnings=warnings(row)))
    return found


def warnings(row: Row) -> tuple[str, ...]:
    """Return what the monitor warned about while a checkpoint was pre-trained, and in which of its runs."""
    found = []
    for number, run in enumerate(row.runs):
        name = f"pre-training {number}" if len(row.runs) > 1 else "pre-training"
        lines = of_run(run).get("warnings")
        found += [f"{name}: {line}" for line in lines] if isinstance(lines, list) else []
    return tuple(found)


def image_forwards(row: Row, values: dict[str, Any]) -> float | None:
    """Return steps x batch x (3 x query forwards + key forwards); 0 for what was never trained, None when unknown."""
    if row.method == "random":
        return 0.0
    steps, each = _number(values.get("steps")), forwards_per_step(values)
    return steps * each if steps and each else None


def forwards_per_step(values: dict[str, Any]) -> float | None:
    """Return batch x (3 x query forwards + key forwards) of a run's values, None when unknown."""
    forwards, batch = values.get("forwards_per_step"), _number(values.get("batch"))
    if not isinstance(forwards, dict) or not batch:
        return None
    query, key = (_number(forwards.get(encoder, 0)) for encoder in ("query", "key"))
    if query is None or key is None or query + key <= 0:
        return None
    return batch * ((1 + BACKWARD) * query + key)


def an_image(report: Report, row: Row) -> dict[str, float | None]:
    """Return a checkpoint's epochs, forwards an image (a backward pass is two), and their product; 0 untrained."""
    if row.method == "random":
        return {"epochs": 0, "forwards": None, "cost": 0}
    values = _known(report, row)
    epochs, batch, step = _number(values.get("epochs")), _number(values.get("batch")), forwards_per_step(values)
    each = step / batch if step and batch else None
    return {"epochs": epochs, "forwards": each, "cost": each * epochs if each and epochs else None}


def _known(report: Report, row: Row) -> dict[str, Any]:
    """Return what the weights file, the run's config and its summary say; the later ones win."""
    values: dict[str, Any] = {}
    for column in report.columns:
        if trials := report.cell(row, column).trials:
            values = dict(trials[0][1].checkpoint.pretrain)
            break
    values.setdefault("batch", values.get("batch_size"))
    if row.runs:
        values |= {key: value for key, value in of_run(row.runs[0]).items() if value is not None}
    return values


def of_run(folder: Path) -> dict[str, Any]:
    """Return what a run folder says of its cost: its summary, and the batch of its config; empty without a summary."""
    try:
        summary = bounds.json_value(folder / "summary.json", "a summary", 2**20)
    except (OSError, ValueError, RecursionError):
        return {}
    batch = _section(_config(folder), "train").get("batch_size")
    return {"batch": batch} | summary if isinstance(summary, dict) else {}


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = yaml.load(bounds.yaml_text(folder / "config.yaml"), Loader=LOADER)  # noqa: S506 - a safe loader
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def trial_cost(cell: Cell) -> tuple[float | None, float | None, str]:
    """Return mean seconds, largest peak memory in MiB, and the devices of a cell's trials."""
    seconds = [r.cost.seconds for _, r in cell.trials if r.cost.seconds is not None]
    memory = [r.cost.peak_memory_mib for _, r in cell.trials if r.cost.peak_memory_mib is not None]
    devices = ", ".join(sorted({r.cost.device for _, r in cell.trials if r.cost.device}))
    return (sum(seconds) / len(seconds) if seconds else None), (max(memory) if memory else None), devices


@dataclass(frozen=True)
class Need:
    """How many trials a gap needs on a benchmark: (gap, trials a cell, device-hours of all checkpoints) for each gap.

    ``spread`` is the standard deviation of trials, pooled over the checkpoints, or that of pairs where those decide;
    ``found`` the gap that ``trials`` a cell find now. All are with 80 % power, and at the first step of Holm's correction
    over all comparisons of the report.
    """

    column: Column
    spread: float
    trials: int
    found: float | None
    gaps: list[tuple[float, int | None, float | None]]


def needs(report: Report, gaps: Sequence[float], spread: float | None = None) -> list[Need]:
    """Say what it takes to find each of some gaps, from the spread seen or the one given, benchmark by benchmark."""
    comparisons = max(1, (len(report.rows) - 1) * len(report.columns))
    found = []
    for column in report.columns:
        cells = [report.cell(row, column) for row in report.ran(column)]
        summaries = [s for cell in cells if (s := cell.summary(column.headline)) and s.std is not None]
        freedom = sum(s.count - 1 for s in summaries)
        squares = sum((s.count - 1) * s.std**2 for s in summaries if s.std is not None)
        pairs = [d.error**2 * (d.freedom + 1) for cell in cells if (d := cell.difference) is not None and d.paired]
        paired = bool(pairs) and spread is None
        pooled = spread or math.sqrt(sum(pairs) / len(pairs) if paired else squares / freedom if freedom else 0.0)
        if not pooled:
            continue
        taken = [
            r.cost.seconds * (_number(r.recipe.get("effective", {}).get("devices")) or 1)
            for cell in cells
            for _, r in cell.trials
            if r.cost.seconds is not None
        ]
        hours = len(report.rows) * sum(taken) / len(taken) / 3600 if taken else None
        lines = []
        for gap in gaps:
            count = statistics.trials_needed(gap, pooled, comparisons, paired)
            lines.append((gap, count, count * hours if count and hours is not None else None))
        trials = min((len(cell.trials) for cell in cells), default=0)
        now = statistics.gap_found(pooled, trials, comparisons, paired) if trials > 1 else None
        found.append(Need(column, pooled, trials, now, lines))
    return found


def matched(report: Report, costs: Sequence[Cost]) -> list[Chart]:
    """Chart each benchmark's headline metric against image forwards; rows of the same settings at several lengths are joined."""
    known = {cost.row: cost.image_forwards for cost in costs if cost.image_forwards is not None}
    kinds = {row: settings_but_length(row) for row in known}
    found = []
    for column in report.columns:
        dots = []
        for row, cost in known.items():
            summary = report.cell(row, column).summary(column.headline)
            if summary is not None:
                low = summary.mean if summary.low is None else summary.low
                high = summary.mean if summary.high is None else summary.high
                dots.append(Dot(row.label, report.styles[row], cost, summary.mean, low, high, kinds[row], row))
        if len({dot.x for dot in dots}) > 1:
            found.append(scatter(column.label, "image forwards", short(column.headline), dots, column))
    return found


def settings_but_length(row: Row) -> str:
    """Return what a checkpoint was trained with, the same text for runs that differ in length or place only.

    Without the run's config it is the method and the branches' names, or the row's own name.
    """
    config = _config(row.runs[0]) if row.runs else {}
    if not config:
        return "+".join((row.method, *sorted(row.branches))) if row.method else row.name
    train = {key: value for key, value in _section(config, "train").items() if key not in LENGTH}
    rest = {key: value for key, value in config.items() if key not in ("run", "schedule", "monitor")}
    return json.dumps(rest | {"train": train}, sort_keys=True, default=str)


def environments(report: Report) -> list[tuple[dict[str, Any], int]]:
    """Return the distinct environments, flattened, with the number of trials made in each."""
    found: dict[str, tuple[dict[str, Any], int]] = {}
    for cell in report.cells.values():
        for _, result in cell.trials:
            flat: dict[str, Any] = {}
            for name, value in result.environment.items():
                if name == "command" or value is None:
                    continue
                parts = value if isinstance(value, dict) else {name: value}
                flat |= {key: part for key, part in parts.items() if part is not None}
            key = json.dumps(flat, sort_keys=True, default=str)
            found[key] = flat, found.get(key, (flat, 0))[1] + 1
    return [pair for pair in found.values() if pair[0]]
