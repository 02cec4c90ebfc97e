"""Gather what stands behind a report's numbers: curves from journals, pictures from runs, cost, environments."""

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfer.report.charts import Chart, line_chart, smoothed
from transfer.report.model import Cell, Column, Report, Row

CURVE_TRIALS = 3  # lines a cell; more cannot be told apart
WIDEST = 900  # pixels of an embedded picture
PICTURES = 4  # images a benchmark
BUDGET = 6_000_000  # bytes of embedded pictures, so that the page stays under 8 MB


@dataclass
class Pictures:
    """Embeds picture files as data URIs within a budget; files that are no pictures are left out and counted."""

    left: int = BUDGET
    bad: list[Path] = field(default_factory=list)
    over: int = 0

    def embed(self, path: Path) -> str | None:
        """Return a data URI, None when the file is damaged or the budget is used up."""
        from PIL import Image  # here: the other forms need no pictures

        try:
            with Image.open(path) as image:
                shown = image.convert("RGB")
            shown.thumbnail((WIDEST, WIDEST))
            buffer = io.BytesIO()
            shown.save(buffer, "WEBP", quality=85, method=4)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            self.bad.append(path)
            return None
        data = base64.b64encode(buffer.getvalue()).decode()
        if len(data) > self.left:
            self.over += 1
            return None
        self.left -= len(data)
        return f"data:image/webp;base64,{data}"


@dataclass(frozen=True)
class Cost:
    """What a checkpoint's pre-training took, as far as its summary says."""

    row: Row
    epochs: float | None
    forwards: str
    images_per_second: float | None
    seconds: float | None
    final_loss: float | None
    knn_top1: float | None


def styles(report: Report) -> dict[Row, int]:
    """Number the rows' colours, dashes and markers: 0 is the baseline's, 1 to 7 go round."""
    others = [row for row in report.rows if row != report.baseline]
    found = {row: 1 + index % 7 for index, row in enumerate(others)}
    return {row: found.get(row, 0) for row in report.rows}


def curves(report: Report) -> list[Chart]:
    """Chart the pre-training loss of every run, and the fine-tuning loss of every benchmark."""
    style_of = styles(report)
    found = [line_chart("Pre-training", "step", "loss", list(_pretraining(report)))]
    for column in report.columns:
        series = []
        for row in report.rows:
            for path, result in report.cell(row, column).trials[:CURVE_TRIALS]:
                points = _journal(path.parent / "run" / "journal.jsonl")
                series.append((f"{row.label}, trial {result.trial}", style_of[row], points))
        found.append(line_chart(f"{column.label}: fine-tuning", "step", "loss", series))
    return [chart for chart in found if chart is not None]


def _pretraining(report: Report) -> Iterator[tuple[str, int, list[tuple[float, float]]]]:
    for row, style in styles(report).items():
        if row.run is not None:
            yield row.label, style, _journal(row.run / "journal.jsonl")


def _journal(path: Path) -> list[tuple[float, float]]:
    """Read (step, loss) of every line that has both; a last line may be cut short."""
    points = []
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            entry = json.loads(line)
            points.append((float(entry["step"]), float(entry["loss"])))
        except (ValueError, KeyError, TypeError):
            continue
    return smoothed(points)


def views(report: Report, pictures: Pictures) -> list[tuple[Row, str]]:
    """Embed the mask and mix picture of every pre-training run that has one."""
    found = []
    for row in report.rows:
        path = row.run / "views.png" if row.run is not None else None
        if path is not None and path.is_file() and (data := pictures.embed(path)):
            found.append((row, data))
    return found


def predictions(report: Report, column: Column, pictures: Pictures) -> list[tuple[str, list[tuple[Row, str]]]]:
    """Embed the same images as every backbone's first trial saw them: (image name, [(row, picture), ...])."""
    files: dict[str, list[tuple[Row, Path]]] = {}
    for row in report.rows:
        for path, _ in report.cell(row, column).trials[:1]:
            for picture in sorted((path.parent / "run" / "predictions").glob("*.png")):
                files.setdefault(picture.name, []).append((row, picture))
    shared = sorted(files, key=lambda name: (-len(files[name]), name))[:PICTURES]
    found = []
    for name in sorted(shared):
        embedded = [(row, data) for row, path in files[name] if (data := pictures.embed(path))]
        if embedded:
            found.append((Path(name).stem, embedded))
    return found


def costs(report: Report) -> list[Cost]:
    """Read the summaries of the pre-training runs."""
    found = []
    for row in report.rows:
        values = _summary(row)
        epochs = _number(values.get("epochs", _pretrain(report, row).get("epochs")))
        rest = ("images_per_second", "seconds", "final_loss", "knn_top1")
        numbers = {name: _number(values.get(name)) for name in rest}
        found.append(Cost(row, epochs, _forwards(values.get("forwards_per_step")), **numbers))
    return found


def _summary(row: Row) -> dict[str, Any]:
    try:
        values = json.loads((row.run / "summary.json").read_text()) if row.run is not None else {}
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _forwards(value: Any) -> str:
    """Write a count, or counts by encoder: ``2 query + 1 key``."""
    if isinstance(value, dict):
        return " + ".join(f"{count} {encoder}" for encoder, count in value.items())
    return "" if value is None else str(value)


def _pretrain(report: Report, row: Row) -> dict[str, Any]:
    for column in report.columns:
        for _, result in report.cell(row, column).trials:
            return result.checkpoint.pretrain
    return {}


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def trial_cost(cell: Cell) -> tuple[float | None, float | None, str]:
    """Return mean seconds, largest peak memory in MiB, and the devices of a cell's trials."""
    seconds = [r.cost.seconds for _, r in cell.trials if r.cost.seconds is not None]
    memory = [r.cost.peak_memory_mib for _, r in cell.trials if r.cost.peak_memory_mib is not None]
    devices = ", ".join(sorted({r.cost.device for _, r in cell.trials if r.cost.device}))
    return (sum(seconds) / len(seconds) if seconds else None), (max(memory) if memory else None), devices


def environments(report: Report) -> list[tuple[dict[str, Any], int]]:
    """Return the distinct environments, flattened, with the number of trials made in each."""
    found: dict[str, tuple[dict[str, Any], int]] = {}
    for cell in report.cells.values():
        for _, result in cell.trials:
            flat: dict[str, Any] = {}
            for name, value in result.environment.items():
                if name != "command" and value is not None:
                    flat |= (
                        {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else {name: value}
                    )
            key = json.dumps(flat, sort_keys=True, default=str)
            found[key] = flat, found.get(key, (flat, 0))[1] + 1
    return [pair for pair in found.values() if pair[0]]
