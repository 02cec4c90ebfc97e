"""Show a suite's progress: a live table on a terminal, plain lines in a log, and how long what is left takes."""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from core import bounds
from core.meter import duration
from transfer import results
from transfer.suite import process
from transfer.suite.execution import State, Statuses
from transfer.suite.items import Item
from transfer.suite.trial import LOG

MAKING = "pre-training"
SURE_AFTER = 20.0  # seconds after which an item's own progress says how long it takes
SHOWN = 12  # lines of running and failed items on a terminal; the log has all
STYLE: dict[State, str] = {
    "running": "bold cyan",
    "queued": "cyan",
    "failed": "bold red",
    "blocked": "red",
    "done": "green",
    "waiting": "dim",
}
_LOG = logging.getLogger("transfer.suite.settings")


class Progress:
    """Observe the execution of ``items`` until the ``with`` block ends; ``log`` gets one line per change.

    ``width`` is how many are executed at a time, for the time left.
    """

    def __init__(self, items: Sequence[Item], statuses: Statuses, log: Path, console: Console, width: int = 1) -> None:
        self.items, self.statuses, self.console, self.log, self.width = items, statuses, console, log, width
        self.begin = time.monotonic()
        self.durations = Durations(items, statuses)
        self.live = Live(console=console, get_renderable=self.table, refresh_per_second=2, transient=False)

    def __enter__(self) -> Self:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.handler = logging.FileHandler(self.log)
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        _LOG.addHandler(self.handler)
        _LOG.setLevel(logging.INFO)
        _LOG.propagate = False
        counts = Counter(status.state for status in self.statuses.values())
        self._say(f"{len(self.items)} items, {counts['done']} already done")
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()
        counts = Counter(status.state for status in self.statuses.values())
        summary = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        spent = time.monotonic() - self.begin
        self._say(
            f"{'stopped' if kind else 'ended'} after {duration(spent)}: {summary}{self._work(spent * self.width)}"
        )
        _LOG.removeHandler(self.handler)
        self.handler.close()

    def _work(self, spent: float) -> str:
        """Say what share of ``spent`` seconds of slots went into training and tests, not into starts, conversion and waiting."""
        now = [(item, self.statuses[item.name].seconds or 0.0) for item in self.items]
        worked = sum(min(_seconds(item) or 0.0, seconds) for item, seconds in now if seconds)
        return f"; training and tests took {worked / spent:.0%} of the time of {self.width} at a time" if worked else ""

    def __call__(self, item: Item | None) -> None:
        """Take note that an item's status changed; the live table redraws itself."""
        if item is None:
            return
        status = self.statuses[item.name]
        if status.state == "done" and status.seconds is not None:
            self.durations.add(item, status.seconds)
        took = f" in {duration(status.seconds)}" if status.seconds is not None and status.state != "running" else ""
        log = f"; log {item.folder / LOG}" if status.reason and status.state in ("failed", "waiting") else ""
        reason = f": {status.reason}{log}" if status.reason else ""
        left = f" · {self.left()}" if status.state == "running" and self.durations.known else ""
        self._say(f"{status.state:<8}{item.name}{took}{reason}{left}")
        for warning in warnings(item) if status.state == "done" else ():
            self._say(f"warning {item.name}: {warning}")

    def _say(self, line: str) -> None:
        _LOG.info(line)
        if not self.console.is_terminal:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def left(self) -> str:
        """Say how much time is left, as far as known."""
        return self.durations.left(self.statuses, self.width)

    def table(self) -> Group:
        """Draw checkpoints against benchmarks, the running item, failures, and the time left."""
        columns = list(dict.fromkeys(item.benchmark or MAKING for item in self.items))
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("checkpoint", *columns):
            table.add_column(column)
        for checkpoint in dict.fromkeys(item.checkpoint for item in self.items):
            mine = [item for item in self.items if item.checkpoint == checkpoint]
            cells = [self._cell([item for item in mine if (item.benchmark or MAKING) == column]) for column in columns]
            table.add_row(Text(checkpoint), *cells)
        spent = duration(time.monotonic() - self.begin)
        counts = Counter(status.state for status in self.statuses.values())
        summary = ", ".join(f"{counts[state]} {state}" for state in STYLE if counts[state])
        return Group(table, *self._lines(), Text(f"{spent} spent · {summary} · {self.left()}"))

    def _lines(self) -> list[Text]:
        """Say what runs and what failed, a line each."""
        lines: list[Text] = []
        for item in self.items:
            status = self.statuses[item.name]
            if status.state == "running":
                spent = duration(time.monotonic() - status.started)
                lines.append(
                    Text(f"▶ {item.name} · {spent} {process.progress(item.folder / LOG)[0]}", STYLE["running"])
                )
            elif status.state == "failed":
                lines.append(Text(f"✗ {item.name}: {status.reason}", STYLE["failed"]))
        more = [Text(f"and {len(lines) - SHOWN} more", "dim")] if len(lines) > SHOWN else []
        return [*lines[:SHOWN], *more]

    def _cell(self, items: Sequence[Item]) -> Text:
        if not items:
            return Text("–", "dim")
        states = Counter(self.statuses[item.name].state for item in items)
        marks: dict[State, str] = {
            "running": f" {states['running']}▶",
            "queued": f" {states['queued']} queued",
            "failed": f" {states['failed']}✗",
            "blocked": f" {states['blocked']} blocked",
        }
        shown = [state for state in marks if states[state]]
        style = shown[0] if shown else "waiting" if states["waiting"] else "done"
        return Text(f"{states['done']}/{len(items)}{''.join(marks[state] for state in shown)}", STYLE[style])


def warnings(item: Item) -> list[str]:
    """Return what the monitor warned about in a pre-training that has ended."""
    try:
        found = (bounds.mapping(item.folder / "summary.json") or {})["warnings"] if item.kind == "pretrain" else []
    except KeyError:
        return []
    return list(map(str, found)) if isinstance(found, list) else []


class Durations:
    """The seconds that done items took, and what follows for the others."""

    def __init__(self, items: Sequence[Item], statuses: Statuses) -> None:
        self.items = items
        self.known: dict[tuple[str, str], list[float]] = {}  # by sort and checkpoint; '' is any
        for item in items:
            if statuses[item.name].state == "done" and (seconds := _seconds(item)) is not None:
                self.add(item, seconds)

    def add(self, item: Item, seconds: float) -> None:
        """Take note of how long an item took."""
        for place in ((item.sort, item.checkpoint), (item.sort, "")):
            self.known.setdefault(place, []).append(seconds)

    def estimate(self, item: Item) -> float | None:
        """Return the mean seconds of the same sort of item, of the same checkpoint if there was one.

        Before that: what the published run took; None if unknown.
        """
        known = self.known.get((item.sort, item.checkpoint)) or self.known.get((item.sort, ""))
        return fmean(known) if known else item.expected

    def remaining(self, statuses: Statuses, width: int) -> tuple[float, int]:
        """Return the seconds that what is left takes, ``width`` at a time, and the number of items not counted."""
        parts: list[float] = []
        unknown = 0
        for item in self.items:
            status = statuses[item.name]
            if status.state not in ("waiting", "queued", "running"):
                continue
            spent = time.monotonic() - status.started if status.state == "running" else 0.0
            share = process.progress(item.folder / LOG)[1] if spent > SURE_AFTER else 0.0
            if share:  # what it has done itself says more than others did
                parts.append(spent / share - spent)
            elif (estimate := self.estimate(item)) is not None:
                parts.append(max(estimate - spent, 0.0))
            else:
                unknown += 1
        return max(sum(parts) / width, max(parts, default=0.0)), unknown

    def left(self, statuses: Statuses, width: int) -> str:
        """Say how much time is left, as far as known."""
        seconds, unknown = self.remaining(statuses, width)
        if not unknown:
            return f"about {duration(seconds)} left" if seconds else "0 s left"
        if not seconds:
            return "time left not known yet"
        return f"more than {duration(seconds)} left ({unknown} items of unknown duration)"


def _seconds(item: Item) -> float | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        if item.kind == "benchmark":
            return results.read(item.folder / results.FILE).cost.seconds
        return float((bounds.mapping(item.folder / "summary.json") or {})["seconds"])
    return None
