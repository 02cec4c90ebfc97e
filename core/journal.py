"""One JSON line per logged step, each with its checksum, and a meter of the steps."""

import json
import math
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from core import bounds
from core.files import unwritable, write_atomic
from core.meter import Meter
from core.tracking import Tracker


class Journal:
    """Append to ``folder/journal.jsonl`` and show progress.

    Lines after ``start`` are dropped, so a resumed run has each step once; so are damaged ones, which is said. ``trackers`` get
    every finite number too. Raises FileError where the journal cannot be written.
    """

    def __init__(
        self, folder: Path, total: int, *, start: int = 0, label: str = "training", trackers: Sequence[Tracker] = ()
    ) -> None:
        self.path = Path(folder) / "journal.jsonl"
        self._keep_until(start)
        try:
            self._file = open(self.path, "a", buffering=1)  # noqa: SIM115 - closed in close()
        except OSError as error:
            raise unwritable(self.path, error) from error
        self._trackers = list(trackers)
        self._meter = Meter(label, total, first=start)
        self._meter.__enter__()

    def log(self, step: int, **values: Any) -> None:
        """Write one line for ``step`` (1-based: steps done) and move the bar."""
        try:
            self._file.write(_sealed(json.dumps({"step": step, **values})) + "\n")
        except OSError as error:
            raise unwritable(self.path, error, "free some space, then start the same command again") from error
        numbers = {name: v for name, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}
        for tracker in self._trackers:
            tracker.log(numbers, step)
        self._meter.reach(step, f"loss {numbers['loss']:.3f}" if "loss" in numbers else "")

    def _keep_until(self, step: int) -> None:
        if not self.path.exists():
            return
        lines = _lines(self.path)
        whole = [(line, entry) for line in lines if (entry := entry_of(line)) is not None]
        if len(whole) < len(lines):
            print(
                f"{self.path}: {len(lines) - len(whole)} of {len(lines)} lines are damaged and left out",
                file=sys.stderr,
            )
        write_atomic(self.path, "".join(f"{line}\n" for line, entry in whole if entry["step"] <= step))

    def close(self) -> None:
        """Flush and stop the meter."""
        try:
            self._file.close()
        except OSError as error:  # what is left in the buffer finds no room either
            raise unwritable(self.path, error, "free some space, then start the same command again") from error
        self._meter.__exit__(None, None, None)
        for tracker in self._trackers:
            tracker.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


MOST = 2**30  # bytes of a journal
CHECKSUM = ', "crc32": "'  # the last entry of a line, over the bytes before it


def _sealed(line: str) -> str:
    return f'{line[:-1]}{CHECKSUM}{zlib.crc32(line[:-1].encode()):08x}"}}'


def read(path: Path) -> list[dict[str, Any]]:
    """Return a journal's lines; one that was cut off by a kill or is damaged is left out. Raises FileError."""
    return [entry for line in _lines(path) if (entry := entry_of(line)) is not None]


def entry_of(line: str) -> dict[str, Any] | None:
    """Return what a line of a journal says, or None where it is damaged; a line of other tools has no checksum."""
    content, sealed, told = line.rpartition(CHECKSUM)
    if sealed and told != f'{zlib.crc32(content.encode(errors="replace")):08x}"}}':
        return None
    try:
        entry = json.loads(f"{content}}}" if sealed else line)
        return entry if type(entry["step"]) in (int, float) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _lines(path: Path) -> list[str]:
    return bounds.regular(path, MOST, "a journal").decode(errors="replace").splitlines()
