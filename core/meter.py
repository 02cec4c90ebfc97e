"""Show how far a loop is: a bar on a terminal, a plain line every few seconds in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

PLAIN_EVERY = 5.0  # seconds between plain lines

T = TypeVar("T")


class Meter:
    """Show on stderr how much of ``total`` is done while the ``with`` block runs; ``first`` was done before it.

    With ``after`` seconds nothing is shown of what takes less, and no bar stays of what takes more.
    """

    def __init__(self, label: str, total: int, *, of_bytes: bool = False, first: int = 0, after: float = 0.0) -> None:
        self.label, self.total, self.of_bytes, self.first, self.done = label, total, of_bytes, first, first
        columns = (DownloadColumn(), TransferSpeedColumn()) if of_bytes else (MofNCompleteColumn(),)
        self.after = after
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            text, detail = TextColumn("{task.description}"), TextColumn("{task.fields[detail]}")
            console = Console(stderr=True)
            shown = (text, BarColumn(), *columns, TimeRemainingColumn(), detail)
            self._bar = Progress(*shown, console=console, transient=after > 0)

    def __enter__(self) -> Self:
        self._began = self._said = time.monotonic()
        if self._bar is not None:
            if not self.after:
                self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total or None, completed=self.first, detail="")
        return self

    def reach(self, done: int, detail: str = "") -> None:
        """Note that ``done`` of the total is done, and what else there is to say."""
        self.done = done
        now = time.monotonic()
        if self._bar is not None:
            if self.after and now - self._began >= self.after:
                self._bar.start()
            self._bar.update(self._task, completed=done, detail=detail)
            return
        if now - self._said >= PLAIN_EVERY and done > self.first:
            self._said = now
            left = duration((now - self._began) / (done - self.first) * (self.total - done))
            told = [f"{self.label}: {self._amount(done)}/{self._amount(self.total)}", detail]
            print("  ".join(filter(None, (*told, f"{left} left" * bool(self.total)))), file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.monotonic() - self._began
        if self._bar is not None:
            self._bar.stop()
        elif kind is None and seconds >= max(1, self.after):
            done = f"{self._amount(self.done)}/{self._amount(self.total or self.done)}"
            print(f"{self.label}: {done} in {seconds:.1f} s", file=sys.stderr, flush=True)

    def _amount(self, number: int) -> str:
        return f"{number / 2**20:.1f} MiB" if self.of_bytes else str(number)


def track(items: Iterable[T], label: str, total: int, after: float = 0.0) -> Iterator[T]:
    """Pass items through and show on stderr how many of ``total`` are done, once it took ``after`` seconds."""
    with Meter(label, total, after=after) as meter:
        for done, item in enumerate(items):
            meter.reach(done)
            yield item
        meter.reach(total)


def duration(seconds: float | None) -> str:
    """Write ``42 s``, ``3 min 05 s`` or ``2 h 10 min``; a dash for None."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
