"""Time how long the tools take to begin: ``--help`` of every one, a small report, and the list of a large image folder.

    python benchmarks/start_up.py [--repeats 7]

Wall seconds of whole processes, files already in the page cache, all tools in turn. The figure is that of the slowest tool.
The folder is a tenth of ImageNet in empty files; one process of a run lists it, and hands the list to the others.
"""

import argparse
import pickle
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import figures
import report_scale

from core.data.imagefolder import ImageFolder

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


def listed(root: Path, repeats: int) -> list[figures.Figure]:
    """Return what the list of 128,500 files costs the process that makes it and each that gets it."""
    for number in range(1000):
        folder = root / f"n{number:08d}"
        folder.mkdir(parents=True)
        for image in range(128 + number % 2):
            (folder / f"n{number:08d}_{10000 + image}.JPEG").touch()
    config = ImageFolder.Config(name="imagefolder", root=root)
    made = pickle.dumps(ImageFolder(config))
    seconds = figures.interleaved(
        {
            "path objects": lambda: sorted(path for path in root.rglob("*") if path.suffix == ".JPEG"),
            "made": lambda: ImageFolder(config),
            "taken": lambda: pickle.loads(made),  # noqa: S301 - made above
        },
        repeats,
    )
    what = "the list of 128,500 images in 1,000 folders"
    return [
        figures.of(f"{what}, in each process but the first", seconds["taken"], unit="s", goal=0.2, sense="at most",
                   detail=f"{len(made) / 1e6:.1f} MB in each, where 5 is the goal"),
        figures.of(f"{what}, in the first: times as fast as sorted path objects",
                   figures.ratios(seconds["path objects"], seconds["made"]), goal=1.0,
                   detail=f"{statistics.median(seconds['made']):.2f} s"),
    ]  # fmt: skip


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
    with tempfile.TemporaryDirectory(prefix="images-") as scratch:
        lists = listed(Path(scratch) / "train", min(repeats, 5))
    return figures.finish("start_up", [helped(seconds), small, *lists])


if __name__ == "__main__":
    sys.exit(main())
