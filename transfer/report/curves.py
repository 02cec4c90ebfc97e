"""Curves: losses and kNN accuracy from the journals of runs, and whatever curves a benchmark's evaluation wrote."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.report import cost
from transfer.report.cache import Cache
from transfer.report.charts import Chart, Series, line_chart, smoothed, thinned
from transfer.report.model import Column, Report, short

# In a trial's run folder: {"recall": [...], "bbox": {"50": [...], ...}, ...} as detection writes it, or any other
# curves as {"curves": [{"name", "x", "y", "points": [[x, y], ...]}, ...]}.
FILE = "curves.json"
TRIALS = 3  # lines a cell; more cannot be told apart
LINES = 48  # a chart: with more backbones fewer trials of each
KEPT = 200  # points of a line
POINTS = 40_000  # of a whole page
SHORTEST = 16

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """One curve that an evaluation wrote; ``x`` and ``y`` name its axes."""

    name: str
    x: str
    y: str
    points: Points


def losses(report: Report, cache: Cache) -> list[Chart]:
    """Chart the pre-training loss of every run, and the fine-tuning loss of every benchmark."""
    charts: list[tuple[str, Column | None, list[Series]]]
    charts = [("Pre-training", None, list(_pretraining(report, cache, "loss")))]
    charts += [(f"{c.label}: fine-tuning", c, list(_finetuning(report, c, cache))) for c in report.columns]
    share = _share(sum(len(series) for _, _, series in charts))
    found = [line_chart(title, "step", "loss", _cut(s, share), column=column) for title, column, s in charts]
    return [chart for chart in found if chart is not None]


def monitored(report: Report, cache: Cache) -> Chart | None:
    """Chart the kNN accuracy that pre-trainings watched, against their compute; None where none was watched."""
    series = list(_pretraining(report, cache, "knn_top1"))
    return line_chart("Pre-training: kNN", "image forwards", "top-1 %", _cut(series, _share(len(series))))


def evaluations(report: Report, cache: Cache) -> list[Chart]:
    """Chart the curves of every backbone's first trial, one chart for each benchmark and name."""
    groups: dict[tuple[Column, str, str, str], list[Series]] = {}
    for column in report.columns:
        for row in report.ran(column):
            path, _ = report.cell(row, column).trials[0]
            for curve in _evaluation(path.parent / "run" / FILE, cache):
                series = groups.setdefault((column, curve.name, curve.x, curve.y), [])
                series.append(Series(row.label, report.styles[row], curve.points, row))
    share = _share(sum(map(len, groups.values())))
    found = [
        line_chart(f"{column.label}: {name}", x, y, _cut(series, share), column=column)
        for (column, name, x, y), series in groups.items()
    ]
    return [chart for chart in found if chart is not None]


def _share(lines: int) -> int:
    return max(SHORTEST, min(KEPT, POINTS // max(1, lines)))


def _cut(series: list[Series], share: int) -> list[Series]:
    return [Series(s.label, s.style, thinned(s.points, share), s.row) for s in series]


def _pretraining(report: Report, cache: Cache, value: str) -> Iterator[Series]:
    """Give a value of every run by step, or kNN accuracy by image forwards, where those of a step are known."""
    for row in report.rows:
        for index, run in enumerate(row.runs[:TRIALS]):
            label = row.label if len(row.runs) == 1 else f"{row.label}, run {index}"
            points = journal(run / "journal.jsonl", cache, value)
            if points and value == "knn_top1":
                each = cost.forwards_per_step(cost.of_run(run))
                points = [(step * each, top1) for step, top1 in points] if each else []
            yield Series(label, report.styles[row], points, row)


def _finetuning(report: Report, column: Column, cache: Cache) -> Iterator[Series]:
    rows = report.ran(column)
    trials = max(1, min(TRIALS, LINES // max(1, len(rows))))
    for row in rows:
        for path, result in report.cell(row, column).trials[:trials]:
            points = journal(path.parent / "run" / "journal.jsonl", cache)
            yield Series(f"{row.label}, trial {result.trial}", report.styles[row], points, row)


def journal(path: Path, cache: Cache, value: str = "loss") -> Points:
    """Return a journal's smoothed (step, value) points, at most ``KEPT``."""
    return cache.get(f"journal {value} {KEPT}", path, lambda file: _journal(file, value), _are_points) or []


def _journal(path: Path, value: str) -> Points:
    """Read (step, value) of every line that has both; a last line may be cut short."""
    points = []
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            entry = json.loads(line)
            point = float(entry["step"]), float(entry[value])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if all(map(math.isfinite, point)):
            points.append(point)
    return [(x, float(f"{y:.5g}")) for x, y in thinned(smoothed(points), KEPT)]


def _are_points(kept: Any) -> bool:
    return isinstance(kept, list) and all(
        isinstance(point, list) and len(point) == 2 and all(isinstance(v, float | int) for v in point) for point in kept
    )


def _evaluation(path: Path, cache: Cache) -> list[Curve]:
    kept = cache.get(f"curves {KEPT}", path, _read_curves, lambda values: isinstance(values, list)) or []
    return [curve for curve in map(_curve, kept) if curve is not None]


def _read_curves(path: Path) -> list[Any]:
    """Read the curves of one evaluation as plain values, thinned; what is not a curve is left out."""
    try:
        values = json.loads(path.read_bytes())
        entries = values["curves"] if "curves" in values else list(_of_detection(values))
        found = [curve for curve in map(_curve, entries) if curve is not None]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return [{"name": c.name, "x": c.x, "y": c.y, "points": thinned(c.points, KEPT)} for c in found]


def _of_detection(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Turn precision by task and IoU into curves of their own."""
    recall = values["recall"]
    for task, levels in values.items():
        for level, precision in levels.items() if isinstance(levels, dict) else ():
            points = list(zip(recall, precision, strict=False))
            yield {"name": short(f"{task}/AP{level}"), "x": "recall", "y": "precision", "points": points}


def _curve(values: Any) -> Curve | None:
    try:
        name, x_axis, y_axis = (values[key] for key in ("name", "x", "y"))
        points = [(float(x), float(y)) for x, y in values["points"]]
    except (KeyError, TypeError, ValueError):
        return None
    points = [point for point in points if all(map(math.isfinite, point))]
    usable = points and all(isinstance(text, str) for text in (name, x_axis, y_axis))
    return Curve(name, x_axis, y_axis, points) if usable else None
