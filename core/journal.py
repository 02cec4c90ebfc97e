"""One JSON line per logged step, a progress bar on a terminal, plain lines with the time left in a log file."""

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.files import write_atomic
from core.tracking import Tracker

PLAIN_EVERY = 10.0  # seconds between plain lines when the output is not a terminal


class Journal:
    """Append to ``folder/journal.jsonl`` and show progress.

    Lines after ``start`` are dropped, so a resumed run has each step once. ``trackers`` get every finite number too.
    """

    def __init__(
        self, folder: Path, total: int, *, start: int = 0, label: str = "training", trackers: Sequence[Tracker] = ()
    ) -> None:
        self.path = Path(folder) / "journal.jsonl"
        self.total, self.start, self.label = total, start, label
        self._keep_until(start)
        self._file = open(self.path, "a", buffering=1)  # noqa: SIM115 - closed in close()
        self._began = self._said = time.monotonic()
        self._trackers = list(trackers)
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[detail]}"), console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(label, total=total, completed=start, detail="")

    def log(self, step: int, **values: Any) -> None:
        """Write one line for ``step`` (1-based: steps done) and move the bar."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        numbers = {name: v for name, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}
        for tracker in self._trackers:
            tracker.log(step, numbers)
        self._show(step, values)

    def _show(self, step: int, values: dict[str, Any]) -> None:
        loss = values.get("loss")
        detail = f"loss {loss:.3f}" if isinstance(loss, float) else ""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, detail=detail)
            return
        now = time.monotonic()
        if now - self._said >= PLAIN_EVERY or step >= self.total:
            self._said = now
            left = (now - self._began) / max(step - self.start, 1) * (self.total - step)
            print(f"{self.label}: {step}/{self.total}  {detail}  {left:.0f} s left", file=sys.stderr, flush=True)

    def _keep_until(self, step: int) -> None:
        if self.path.exists():
            lines = [line for line in self.path.read_text().splitlines() if _step(line) <= step]
            write_atomic(self.path, "".join(line + "\n" for line in lines))

    def close(self) -> None:
        """Flush and stop the bar."""
        self._file.close()
        if self._bar is not None:
            self._bar.stop()
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
