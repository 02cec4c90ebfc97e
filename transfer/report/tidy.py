"""The report as tidy CSV: one line for every checkpoint, benchmark, trial and metric, and the published rows."""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from core.files import write_atomic
from transfer.report import published
from transfer.report.model import Report

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
                    "source": str(path),
                }
                yield common, result.metrics


def published_rows(report: Report) -> Iterator[dict[str, Any]]:
    """Return the published numbers of the report's benchmarks, one row a value."""
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
