"""Time how long the tools take to begin: ``--help`` of every one, and a small report.

    python benchmarks/start_up.py [--repeats 7]

Wall seconds of whole processes, files already in the page cache, all tools in turn. The figure is that of the slowest tool.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import figures
import report_scale

GOAL = 1.0  # seconds
TRIALS = 20
SCRIPTS = [*sorted((figures.ROOT / "tools").glob("*.py")), figures.ROOT / "pretrain" / "run.py"]


def started(*command: str | Path) -> Callable[[], object]:
    """Return a call that runs a script to its end, refusing any exit code but 0."""
    line = [sys.executable, *map(str, command)]
    return lambda: subprocess.run(line, cwd=figures.ROOT, stdout=subprocess.DEVNULL, check=True)


def helped(seconds: Mapping[str, Sequence[float]]) -> figures.Figure:
    """Return the figure of the slowest tool, and every tool's median beside it."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ranked = sorted(medians, key=lambda name: -medians[name])
    every = ", ".join(f"{name} {medians[name]:.2f}" for name in ranked)
    return figures.of(
        f"--help of the slowest of {len(ranked)} tools ({ranked[0]})", seconds[ranked[0]], unit="s", goal=GOAL,
        sense="at most", detail=f"medians in seconds: {every}",
    )  # fmt: skip


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    seconds = figures.interleaved({path.name: started(path, "--help") for path in SCRIPTS}, repeats)
    with tempfile.TemporaryDirectory(prefix="start-up-") as scratch:
        for place in report_scale.places(TRIALS):
            report_scale.make(Path(scratch), *place)
        report = started(figures.ROOT / "tools" / "write_report.py", scratch, "--baseline", "method 00")
        written = figures.interleaved({"report": report}, min(repeats, 3))["report"]
    small = figures.of(f"write_report.py on {TRIALS} trials, without torch", written, unit="s")
    return figures.finish("start_up", [helped(seconds), small])


if __name__ == "__main__":
    sys.exit(main())
