"""The report as tidy CSV: one line for every checkpoint, benchmark, trial and metric, and the published rows."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.files import write_atomic
from transfer import published
from transfer.report.model import Report

FIELDS = (
    *("kind", "checkpoint", "method", "branches", "sha256", "benchmark", "protocol", "protocol_hash", "framework"),
    *("trial", "seed", "metric", "value", "seconds", "peak_memory_mib", "device", "data", "epochs", "source"),
)


def write(report: Report, path: Path) -> None:
    """Write ``report.csv``; an empty ``value`` is a metric without one, ``kind`` tells measured from published."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, restval="", lineterminator="\n")
    writer.writeheader()
    for values in (*_measured(report), *_published(report)):
        writer.writerow({key: _inert(value) for key, value in values.items()})
    write_atomic(path, text.getvalue())


def _measured(report: Report) -> Iterator[dict[str, Any]]:
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
                    "source": str(path),
                }
                for metric, value in result.metrics.items():
                    yield common | {"metric": metric, "value": value}


def _published(report: Report) -> Iterator[dict[str, Any]]:
    for plugin in dict.fromkeys(column.plugin for column in report.columns):
        for group in published.of(plugin):
            for row in group.rows:
                for metric, value in zip(group.metrics, row.values, strict=True):
                    yield {
                        "kind": "published" if group.comparable else "published, other protocol",
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
