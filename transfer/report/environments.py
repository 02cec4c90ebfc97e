"""The machines and versions behind a report."""

import json
from typing import Any

from transfer.report.model import Report


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
