"""Curves: losses and kNN accuracy from journals, whatever an evaluation wrote; and the cache that keeps them between reports."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import bounds
from core.errors import InputError
from core.files import FileError, write_atomic
from core.journal import entry_of
from transfer.report import cost
from transfer.report.charts import Chart, Series, line_chart, smoothed, thinned
from transfer.report.model import Column, Report, short

# In a trial's run folder: {"recall": [...], "bbox": {"50": [...], ...}, ...} as detection writes it, or any other
# curves as {"curves": [{"name", "x", "y", "points": [[x, y], ...]}, ...]}.
CURVES = "curves.json"
TRIALS = 3  # lines a cell; more cannot be told apart
LINES = 48  # a chart: with more backbones fewer trials of each
LARGEST = 64 * 2**20  # bytes of a journal or of curves
KEPT = 200  # points of a line
POINTS = 40_000  # of a whole page
SHORTEST = 16

Points = list[tuple[float, float]]
FILE = ".report-cache.json"
VERSION = 2  # of what is kept: other ones are thrown away


@dataclass(frozen=True)
class Curve:
    """One curve that an evaluation wrote; ``x`` and ``y`` name its axes."""

    name: str
    x: str
    y: str
    points: Points


class Cache:
    """Values of files; what was not asked for since it was opened is dropped when it is saved."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._root = str(folder) + "/"
        self._old, self._new = self._read(), {}  # type: dict[str, Any], dict[str, Any]

    def _read(self) -> dict[str, Any]:
        try:
            values = bounds.json_value(self._path, "a cache", LARGEST)
        except FileError:
            return {}
        usable = isinstance(values, dict) and values.get("version") == VERSION
        return values["values"] if usable and isinstance(values.get("values"), dict) else {}

    def get(self, kind: str, path: Path, make: Callable[[Path], Any], usable: Callable[[Any], bool]) -> Any:
        """Return what ``make(path)`` gives, kept or made now; None for a file that is not there.

        ``kind`` names what is made, with its settings; a kept value that is not ``usable`` is made again.
        """
        try:
            state = path.stat()
        except OSError:
            return None
        key = f"{kind} {str(path).removeprefix(self._root)} {state.st_mtime_ns} {state.st_size}"
        if key not in self._new:
            kept = self._old.get(key)
            self._new[key] = kept if kept is not None and usable(kept) else make(path)
        return self._new[key]

    def save(self) -> None:
        """Write what was used this time, if it changed; a folder that cannot be written keeps nothing."""
        if self._new.keys() != self._old.keys():
            try:
                write_atomic(self._path, json.dumps({"version": VERSION, "values": self._new}))
            except InputError:
                return


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
            for curve in _evaluation(path.parent / "run" / CURVES, cache):
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


def last(path: Path, value: str, lines: int = 10) -> float | None:
    """Return the mean of a value over the last lines of a journal that have it, None without any."""
    found = _points(path, value)[-lines:]
    return sum(y for _, y in found) / len(found) if found else None


def journal(path: Path, cache: Cache, value: str = "loss") -> Points:
    """Return a journal's smoothed (step, value) points, at most ``KEPT``."""
    return cache.get(f"journal {value} {KEPT}", path, lambda file: _journal(file, value), _are_points) or []


def _journal(path: Path, value: str) -> Points:
    return [(x, float(f"{y:.5g}")) for x, y in thinned(smoothed(_points(path, value)), KEPT)]


def _points(path: Path, value: str) -> Points:
    """Read (step, value) of every line that has both; a last line may be cut short."""
    points = []
    try:
        lines = bounds.regular(path, LARGEST, "a journal").decode(errors="replace").splitlines()
    except FileError:
        return []
    for line in lines:
        entry = entry_of(line)
        try:
            point = (0.0, math.nan) if entry is None else (float(entry["step"]), float(entry[value]))
        except (ValueError, KeyError, TypeError, OverflowError):
            continue
        if all(map(math.isfinite, point)):
            points.append(point)
    return points


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
        values = bounds.json_value(path, "curves", LARGEST)
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
