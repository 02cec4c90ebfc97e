"""Show a suite's progress: a live table on a terminal, plain lines in a log."""

import json
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

from transfer import process, results
from transfer.durations import duration
from transfer.execution import State, Statuses
from transfer.suite import Item
from transfer.trial import LOG

MAKING = "pre-training"
STYLE = {"running": "bold cyan", "failed": "bold red", "blocked": "red", "done": "green", "waiting": "dim"}
_LOG = logging.getLogger("transfer.suite")


class Progress:
    """Observe the execution of ``items`` until the ``with`` block ends; ``log`` gets one line per change."""

    def __init__(self, items: Sequence[Item], statuses: Statuses, log: Path, console: Console) -> None:
        self.items, self.statuses, self.console, self.log = items, statuses, console, log
        self.begin = time.monotonic()
        self.durations = _past_durations(items, statuses)
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
        self._say(f"{'stopped' if kind else 'ended'} after {duration(time.monotonic() - self.begin)}: {summary}")
        _LOG.removeHandler(self.handler)
        self.handler.close()

    def __call__(self, item: Item | None) -> None:
        """Take note that an item's status changed; the live table redraws itself."""
        if item is None:
            return
        status = self.statuses[item.name]
        if status.state == "done" and status.seconds is not None:
            self.durations.setdefault(item.sort, []).append(status.seconds)
        took = f" in {duration(status.seconds)}" if status.seconds is not None else ""
        log = f"; log {item.folder / LOG}" if status.state == "failed" else ""
        reason = f": {status.reason}{log}" if status.reason else ""
        left = self.left() if status.state == "running" else None
        self._say(f"{status.state:<8}{item.name}{took}{reason}{f' · about {duration(left)} left' if left else ''}")

    def _say(self, line: str) -> None:
        _LOG.info(line)
        if not self.console.is_terminal:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def left(self) -> float | None:
        """Estimate the seconds left from how long similar items took; None when one of a kind has not been seen."""
        total = 0.0
        for item in self.items:
            status = self.statuses[item.name]
            if status.state not in ("waiting", "running"):
                continue
            if item.sort not in self.durations:
                return None
            spent = time.monotonic() - status.started if status.state == "running" else 0.0
            total += max(fmean(self.durations[item.sort]) - spent, 0.0)
        return total

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
        lines: list[Text] = []
        for item in self.items:
            status = self.statuses[item.name]
            if status.state == "running":
                spent = duration(time.monotonic() - status.started)
                lines.append(Text(f"▶ {item.name} · {spent} {journal_line(item)}", STYLE["running"]))
            elif status.state == "failed":
                lines.append(Text(f"✗ {item.name}: {status.reason}", STYLE["failed"]))
        left = self.left()
        spent = duration(time.monotonic() - self.begin)
        lines.append(
            Text(f"{spent} spent · {'time left not known yet' if left is None else f'about {duration(left)} left'}")
        )
        return Group(table, *lines)

    def _cell(self, items: Sequence[Item]) -> Text:
        if not items:
            return Text("–", "dim")
        states = Counter(self.statuses[item.name].state for item in items)
        marks: dict[State, str] = {
            "running": " ▶",
            "failed": f" {states['failed']}✗",
            "blocked": f" {states['blocked']} blocked",
        }
        shown = [state for state in marks if states[state]]
        style = shown[0] if shown else "waiting" if states["waiting"] else "done"
        return Text(f"{states['done']}/{len(items)}{''.join(marks[state] for state in shown)}", STYLE[style])


def journal_line(item: Item) -> str:
    """Return the last step and loss that the running command noted."""
    folder = item.folder / "run" if item.kind == "benchmark" else item.folder
    for line in reversed(process.tail(folder / "journal.jsonl", 4096)):
        try:
            entry = json.loads(line)
            return f"· step {int(entry['step'])} · loss {float(entry['loss']):.3f}"
        except (ValueError, KeyError, TypeError):
            continue
    return ""


def _past_durations(items: Sequence[Item], statuses: Statuses) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for item in items:
        if item.kind == "benchmark" and statuses[item.name].state == "done":
            seconds = results.read(item.folder / results.FILE).cost.seconds
            if seconds is not None:
                found.setdefault(item.sort, []).append(seconds)
    return found
