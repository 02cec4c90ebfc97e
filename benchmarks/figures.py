"""What every script here ends with: figures with their goals, printed, written to ``results/NAME.json``, and an exit code.

A figure is met, or its limit is shown by a measurement of the same run (``limit`` says which), or it is missed: that is red
and the script exits 1. ``write_speed.py`` makes docs/speed.md of the written files.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from core.files import write_json  # noqa: E402
from core.provenance import environment  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
COLOURS = {"met": "32", "limit": "33", "missed": "31"}


@dataclass(frozen=True)
class Figure:
    """One measured value with the least and the most over the repeats, in ``unit`` (``x`` is a ratio).

    ``goal`` None: shown only. ``detail`` gives the absolute numbers behind it, ``limit`` the measurement that explains
    why a goal cannot be reached on this machine.
    """

    what: str
    value: float
    least: float
    most: float
    repeats: int
    unit: str = "x"
    goal: float | None = None
    sense: Literal["at least", "at most"] = "at least"
    detail: str = ""
    limit: str = ""

    @property
    def verdict(self) -> str:
        """Return met, limit, missed, or nothing where no goal is set."""
        if self.goal is None:
            return ""
        met = self.value >= self.goal if self.sense == "at least" else self.value <= self.goal
        return "met" if met else "limit" if self.limit else "missed"


def of(what: str, values: Sequence[float], **more: Any) -> Figure:
    """Make the figure of repeated measurements: the median, the least and the most."""
    return Figure(what, statistics.median(values), min(values), max(values), len(values), **more)


def interleaved(
    steps: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Call each step once to warm up, then all in turn ``repeats`` times; return seconds by name."""
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            began = clock()
            step()
            seconds[name].append(clock() - began)
    return seconds


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Return how many times ours is the faster one, repeat by repeat."""
    return [their / our for their, our in zip(theirs, ours, strict=True)]


def finish(name: str, figures: Sequence[Figure], **more: Any) -> int:
    """Print the figures, write ``results/NAME.json``, and return the exit code."""
    colour = sys.stdout.isatty()
    for figure in figures:
        goal = "" if figure.goal is None else f", {figure.sense} {figure.goal:g} {figure.unit}: {figure.verdict}"
        line = f"{figure.what}: {figure.value:.3g} {figure.unit} ({figure.least:.3g} to {figure.most:.3g}){goal}"
        if figure.verdict and (colour or figure.verdict == "missed"):
            line = f"\033[{COLOURS[figure.verdict]}m{line}\033[0m"
        print(line)
        for note in (figure.detail, figure.limit):
            if note:
                print(f"  {note}")
    written = [asdict(figure) | {"verdict": figure.verdict} for figure in figures]
    command = " ".join(["python", str(Path(sys.argv[0]).resolve().relative_to(ROOT)), *sys.argv[1:]])
    content = {"benchmark": name, "date": date.today().isoformat(), "command": command, "figures": written}
    write_json(RESULTS / f"{name}.json", {**content, **more, "environment": environment()})
    return int(any(figure.verdict == "missed" for figure in figures))
