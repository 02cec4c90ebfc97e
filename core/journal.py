"""One JSON line per logged step, and a meter of the steps."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from core.files import write_atomic
from core.meter import Meter
from core.tracking import Tracker


class Journal:
    """Append to ``folder/journal.jsonl`` and show progress.

    Lines after ``start`` are dropped, so a resumed run has each step once. ``trackers`` get every finite number too.
    """

    def __init__(
        self, folder: Path, total: int, *, start: int = 0, label: str = "training", trackers: Sequence[Tracker] = ()
    ) -> None:
        self.path = Path(folder) / "journal.jsonl"
        self._keep_until(start)
        self._file = open(self.path, "a", buffering=1)  # noqa: SIM115 - closed in close()
        self._trackers = list(trackers)
        self._meter = Meter(label, total, first=start)
        self._meter.__enter__()

    def log(self, step: int, **values: Any) -> None:
        """Write one line for ``step`` (1-based: steps done) and move the bar."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        numbers = {name: v for name, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}
        for tracker in self._trackers:
            tracker.log(numbers, step)
        self._meter.reach(step, f"loss {numbers['loss']:.3f}" if "loss" in numbers else "")

    def _keep_until(self, step: int) -> None:
        if self.path.exists():
            lines = [line for line in self.path.read_text().splitlines() if _step(line) <= step]
            write_atomic(self.path, "".join(line + "\n" for line in lines))

    def close(self) -> None:
        """Flush and stop the meter."""
        self._file.close()
        self._meter.__exit__(None, None, None)
        for tracker in self._trackers:
            tracker.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(path: Path) -> list[dict[str, Any]]:
    """Return a journal's lines; a line cut off by a kill is left out."""
    return [json.loads(line) for line in path.read_text().splitlines() if _step(line) < float("inf")]


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")
