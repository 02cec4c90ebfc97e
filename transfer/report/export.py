"""Hand results to other programs: tidy CSV and Parquet, one JSON of linked lists, COCO detections, tracking services.

``results.json`` follows the form of COCO's files: lists of objects with an ``id``, linked by ``*_id``. ``detections/``
holds each trial's predictions in COCO's results form, which ``pycocotools.coco.COCO.loadRes`` reads.
"""

import csv
import importlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core import bounds, tracking
from core.errors import InputError
from core.files import FileError, replacing, write_atomic, write_json
from transfer.report import published
from transfer.report.model import Cell, Column, Report, Row
from transfer.results import SCHEMA_VERSION, Result

FIELDS = (
    *("kind", "checkpoint", "method", "branches", "sha256", "benchmark", "protocol", "protocol_hash", "framework"),
    *("trial", "seed", "metric", "value", "seconds", "peak_memory_mib", "device", "data", "epochs", "source"),
)


def write(report: Report, path: Path) -> None:
    """Write ``report.csv``; an empty ``value`` is a metric without one, ``kind`` tells measured from published."""
    metric = FIELDS.index("metric")
    names: dict[str, str] = {}
    lines = [",".join(FIELDS)]
    for common, metrics in measured(report):  # a trial's own values once, since it can have hundreds of metrics
        before, after = (
            _line(common.get(name, "") for name in part) for part in (FIELDS[:metric], FIELDS[metric + 2 :])
        )
        for name, value in metrics.items():
            shown = names.get(name) or names.setdefault(name, _line([name]))
            lines.append(f"{before},{shown},{'' if value is None else value},{after}")
    lines += [_line(values.get(name, "") for name in FIELDS) for values in published_rows(report)]
    write_atomic(path, "\n".join(lines) + "\n")


def _line(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(map(_inert, values))
    return text.getvalue()


def measured(report: Report) -> Iterator[tuple[dict[str, Any], dict[str, float | None]]]:
    """Return every trial's own columns and its metrics."""
    for row in report.rows:
        for column in report.columns:
            for path, result in report.cell(row, column).trials:
                common = {
                    "kind": "measured",
                    "checkpoint": row.label,
                    "method": row.method,
                    "branches": "+".join(row.branches),
                    "sha256": result.checkpoint.sha256,
                    "benchmark": column.benchmark,
                    "protocol": result.protocol.name,
                    "protocol_hash": column.hash,
                    "framework": result.framework,
                    "trial": result.trial,
                    "seed": result.seed,
                    "seconds": result.cost.seconds,
                    "peak_memory_mib": result.cost.peak_memory_mib,
                    "device": result.cost.device,
                    "source": report.named(path),
                }
                yield common, result.metrics


def published_rows(report: Report) -> Iterator[dict[str, Any]]:
    """Return the published numbers of the report's benchmarks, one row a value."""
    for plugin in dict.fromkeys(column.plugin for column in report.columns):
        for group in published.of(plugin):
            for row in group.rows:
                for metric, value in zip(group.metrics, row.values, strict=True):
                    yield {
                        "kind": group.kind,
                        "checkpoint": row.name,
                        "method": row.method,
                        "branches": "+".join(row.branches),
                        "benchmark": plugin,
                        "protocol": group.protocol,
                        "metric": metric,
                        "value": value,
                        "data": row.data,
                        "epochs": row.epochs,
                        "source": row.source,
                    }


def _inert(value: Any) -> Any:
    """Keep a spreadsheet from running a user-given name as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


SERVICES = ("mlflow", "wandb")
DETECTIONS = Path("run") / "inference" / "coco_instances_results.json"


def everything(report: Report, folder: Path) -> list[Path]:
    """Write ``results.parquet``, ``results.csv``, ``results.json`` and ``detections/``; return the files."""
    if folder.is_file():
        raise InputError(f"{folder} is a file; give --export a folder")
    detections = list(_detections(report, folder / "detections"))
    paths = [folder / f"results.{kind}" for kind in ("parquet", "csv", "json")]
    _write_parquet(list(_rows(report)), paths[0])
    write(report, paths[1])
    write_json(paths[2], linked(report, {source: path.relative_to(folder) for source, path in detections}))
    return [*paths, *(path for _, path in detections)]


def _rows(report: Report) -> Iterator[dict[str, Any]]:
    for common, metrics in measured(report):
        for metric, value in metrics.items():
            yield common | {"metric": metric, "value": value}
    yield from published_rows(report)


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    pyarrow: Any = importlib.import_module("pyarrow")  # here: half a second that other forms need not wait for
    parquet: Any = importlib.import_module("pyarrow.parquet")
    text, whole, real = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
    types = {"trial": whole, "seed": whole, "epochs": whole, "value": real, "seconds": real, "peak_memory_mib": real}
    schema = pyarrow.schema([(name, types.get(name, text)) for name in FIELDS])
    with replacing(path) as file:
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema), file, compression="zstd")


def linked(report: Report, detections: dict[Path, Path]) -> dict[str, Any]:
    """Return the report as lists that refer to each other by ids; ``detections`` are files by the result they belong to."""
    rows, columns = _numbered(report.rows), _numbered(report.columns)
    trials: list[dict[str, Any]] = []
    metrics: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    for (row, column), cell in report.cells.items():
        place = {"checkpoint_id": rows[row], "benchmark_id": columns[column]}
        for path, result in cell.trials:
            identity = len(trials) + 1
            trials.append({"id": identity} | place | _trial(report.named(path), result, detections.get(path)))
            metrics += [{"trial_id": identity, "name": name, "value": v} for name, v in result.metrics.items()]
        if cell.difference is not None:
            differences.append(place | _difference(cell, column))
    return {
        "info": {
            "description": f"{report.title}: results of masktransfer",
            "version": str(SCHEMA_VERSION),
            "date_created": datetime.now(UTC).isoformat(timespec="seconds"),
            "baseline_id": rows[report.baseline] if report.baseline is not None else None,
            "notices": report.notices,
        },
        "checkpoints": [_checkpoint(row, identity) for row, identity in rows.items()],
        "benchmarks": [
            {"id": identity, "name": c.benchmark, "title": c.title, "protocol": c.plugin, "protocol_hash": c.hash}
            | {"headline": c.headline}
            for c, identity in columns.items()
        ],
        "trials": trials,
        "metrics": metrics,
        "differences": differences,
    }


def _numbered(things: list[Any]) -> dict[Any, int]:
    return {thing: number for number, thing in enumerate(things, start=1)}


def _checkpoint(row: Row, identity: int) -> dict[str, Any]:
    known = {"name": row.label, "method": row.method, "branches": list(row.branches), "sha256": list(row.files)}
    return {"id": identity} | known | {"notes": row.notes}


def _trial(file: str, result: Result, detections: Path | None) -> dict[str, Any]:
    own = result.model_dump(mode="json", include={"trial", "seed", "cost", "command", "finished"})
    return own | {"file": file, "detections": str(detections) if detections else None}


def _difference(cell: Cell, column: Column) -> dict[str, Any]:
    found = cell.difference
    assert found is not None
    names = ("mean", "low", "high", "p", "effect", "detectable", "corrected_low", "corrected_high", "corrected_p")
    values = {name: getattr(found, name) for name in names}
    return {"metric": column.headline, "test": "paired" if found.paired else "welch", "verdict": found.verdict} | values


def _detections(report: Report, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Copy every list of detections, checked, under a name that says whose it is; return (result, copy)."""
    taken: set[str] = set()
    for (row, column), cell in report.cells.items():
        for path, result in cell.trials:
            values = _read(path.parent / DETECTIONS)
            if values is None:
                continue
            name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", f"{row.label}--{column.label}--trial{result.trial}").strip("-.")
            name = f"{name[:150]}{f'-{len(taken)}' if name[:150] in taken else ''}"
            taken.add(name)
            write_atomic(folder / f"{name}.json", json.dumps(values))
            yield path, folder / f"{name}.json"


def _read(path: Path) -> list[Any] | None:
    try:
        values = bounds.json_value(path, "detections")
    except FileError:
        return None
    needed = {"image_id", "category_id", "score"}
    whole = isinstance(values, list) and all(isinstance(v, dict) and needed <= v.keys() for v in values)
    return values if whole else None


def log(report: Report, service: str, project: str = "") -> int:
    """Send every trial as one run to ``mlflow`` or ``wandb``, so that it averages and filters them; return how many."""
    if service not in SERVICES:
        raise InputError(f"no tracking service {service!r}; there are: {', '.join(SERVICES)}")
    tracking.check([service], "--log names")
    count = 0
    for name, result in _runs(report):
        group = f"{result.checkpoint.name} · {result.benchmark}"
        try:
            (run,) = tracking.start(
                [service], tracking.Run(name, _facts(result), project=project or report.title, group=group)
            )
            run.log(_numbers(result))
            run.close()
        except Exception as error:  # a service fails in its own ways: network, login, disk
            raise InputError(f"{service} failed after {count} of {report.trials} trials: {error}") from error
        count += 1
    return count


def _runs(report: Report) -> Iterator[tuple[str, Result]]:
    for row in report.rows:
        for column in report.columns:
            for _, result in report.cell(row, column).trials:
                yield f"{row.label} · {column.label} · trial {result.trial}", result


def _facts(result: Result) -> dict[str, Any]:
    """Return what tells trials apart, as plain values."""
    facts = {
        "checkpoint": result.checkpoint.name,
        "sha256": result.checkpoint.sha256,
        "method": result.checkpoint.method,
        "branches": "+".join(result.checkpoint.branches),
        "benchmark": result.benchmark,
        "protocol_hash": result.protocol.hash,
        "framework": result.framework,
        "trial": result.trial,
        "seed": result.seed,
        "command": result.command,
    }
    return {key: value for key, value in facts.items() if value is not None and value != ""}


def _numbers(result: Result) -> dict[str, float]:
    cost = {"cost/seconds": result.cost.seconds, "cost/peak_memory_mib": result.cost.peak_memory_mib}
    return {key: value for key, value in (result.metrics | cost).items() if value is not None}
