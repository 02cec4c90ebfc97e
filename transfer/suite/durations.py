"""How long items take, learned from those that are done, and seconds as a person would write them."""

import contextlib
import json
import time
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from transfer import results

if TYPE_CHECKING:
    from transfer.suite.execution import Statuses
    from transfer.suite.items import Item


class Durations:
    """The seconds that done items took, and what follows for the others."""

    def __init__(self, items: "Sequence[Item]", statuses: "Statuses") -> None:
        self.items = items
        self.known: dict[tuple[str, str], list[float]] = {}  # by sort and checkpoint; '' is any
        for item in items:
            if statuses[item.name].state == "done" and (seconds := _seconds(item)) is not None:
                self.add(item, seconds)

    def add(self, item: "Item", seconds: float) -> None:
        """Take note of how long an item took."""
        for place in ((item.sort, item.checkpoint), (item.sort, "")):
            self.known.setdefault(place, []).append(seconds)

    def estimate(self, item: "Item") -> float | None:
        """Return the mean seconds of the same sort of item, of the same checkpoint if there was one; None if unknown."""
        known = self.known.get((item.sort, item.checkpoint)) or self.known.get((item.sort, ""))
        return fmean(known) if known else None

    def remaining(self, statuses: "Statuses", width: int) -> tuple[float, int]:
        """Return the seconds that what is left takes, ``width`` at a time, and the number of items not counted."""
        parts: list[float] = []
        unknown = 0
        for item in self.items:
            status = statuses[item.name]
            if status.state not in ("waiting", "queued", "running"):
                continue
            if (estimate := self.estimate(item)) is None:
                unknown += 1
            else:
                spent = time.monotonic() - status.started if status.state == "running" else 0.0
                parts.append(max(estimate - spent, 0.0))
        return max(sum(parts) / width, max(parts, default=0.0)), unknown

    def left(self, statuses: "Statuses", width: int) -> str:
        """Say how much time is left, as far as known."""
        seconds, unknown = self.remaining(statuses, width)
        if not unknown:
            return f"about {duration(seconds)} left" if seconds else "0 s left"
        if not self.known:
            return "time left not known yet"
        return f"more than {duration(seconds)} left ({unknown} items of unknown duration)"


def _seconds(item: "Item") -> float | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        if item.kind == "benchmark":
            return results.read(item.folder / results.FILE).cost.seconds
        return float(json.loads((item.folder / "summary.json").read_text())["seconds"])
    return None


def duration(seconds: float | None) -> str:
    """Write ``42 s``, ``3 min 05 s`` or ``2 h 10 min``; a dash for None."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )
