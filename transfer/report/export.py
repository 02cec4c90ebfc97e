"""Hand results to other programs: a tidy table as Parquet and CSV, one JSON of linked lists, detections as COCO has them.

``results.json`` follows the form of COCO's files: lists of objects with an ``id``, linked by ``*_id``. ``detections/``
holds each trial's predictions in COCO's results form, which ``pycocotools.coco.COCO.loadRes`` reads.
"""

import importlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.files import replacing, write_atomic, write_json
from transfer.report import tidy
from transfer.report.model import Cell, Column, Report, Row
from transfer.results import SCHEMA_VERSION, Result

DETECTIONS = Path("run") / "inference" / "coco_instances_results.json"


def write(report: Report, folder: Path) -> list[Path]:
    """Write ``results.parquet``, ``results.csv``, ``results.json`` and ``detections/``; return the files."""
    if folder.is_file():
        raise InputError(f"{folder} is a file; give --export a folder")
    detections = list(_detections(report, folder / "detections"))
    paths = [folder / f"results.{kind}" for kind in ("parquet", "csv", "json")]
    _write_parquet(list(_rows(report)), paths[0])
    tidy.write(report, paths[1])
    write_json(paths[2], linked(report, {source: path.relative_to(folder) for source, path in detections}))
    return [*paths, *(path for _, path in detections)]


def _rows(report: Report) -> Iterator[dict[str, Any]]:
    for common, metrics in tidy.measured(report):
        for metric, value in metrics.items():
            yield common | {"metric": metric, "value": value}
    yield from tidy.published_rows(report)


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    pyarrow: Any = importlib.import_module("pyarrow")  # here: half a second that other forms need not wait for
    parquet: Any = importlib.import_module("pyarrow.parquet")
    text, whole, real = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
    types = {"trial": whole, "seed": whole, "epochs": whole, "value": real, "seconds": real, "peak_memory_mib": real}
    schema = pyarrow.schema([(name, types.get(name, text)) for name in tidy.FIELDS])
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
            trials.append({"id": identity} | place | _trial(path, result, detections.get(path)))
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


def _trial(path: Path, result: Result, detections: Path | None) -> dict[str, Any]:
    own = result.model_dump(mode="json", include={"trial", "seed", "cost", "command", "finished"})
    return own | {"file": str(path), "detections": str(detections) if detections else None}


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
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    needed = {"image_id", "category_id", "score"}
    whole = isinstance(values, list) and all(isinstance(v, dict) and needed <= v.keys() for v in values)
    return values if whole else None
