"""Time the report of a generated results folder of 2,000 trials: the first, and the next after one new trial.

    python benchmarks/report_scale.py [--trials 2000] [--repeats 3] [--keep DIR]

Wall seconds, processor seconds (what an idle machine needs), peak memory and the size of the page.
40 checkpoints, ten benchmarks (two with 80 classes), five trials; every trial has a journal of 150 lines, every first
trial two pictures.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import figures
from PIL import Image, ImageDraw

from transfer.report import curves

CHECKPOINTS, TRIALS = 40, 5
BENCHMARKS = {f"benchmark{index}": classes for index, classes in enumerate((80, 80, 20, 20, 20, 20, 21, 21, 0, 0))}


class Run(NamedTuple):
    """What one report took: wall and processor seconds, peak memory, size of the page."""

    seconds: float
    busy: float
    gigabytes: float
    megabytes: float


def main() -> int:
    """Generate, report, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, metavar="N", help="results to generate (default: 2000)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="generate here and keep it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="report-scale-") as scratch:
        folder = given.keep or Path(scratch)
        wanted = list(places(given.trials + given.repeats))
        for place in wanted[: given.trials]:
            make(folder, *place)
        firsts, nexts = [], []
        for place in wanted[given.trials :]:
            shutil.rmtree(folder / "report", ignore_errors=True)
            (folder / curves.FILE).unlink(missing_ok=True)
            firsts.append(report(folder))
            make(folder, *place)
            nexts.append(report(folder))
    return figures.finish("report_scale", summary(given.trials, firsts, nexts))


def summary(trials: int, firsts: Sequence[Run], nexts: Sequence[Run]) -> list[figures.Figure]:
    """Return the figures of the first report and of the one after a new trial."""
    first, after = (f"{what} of {trials:,} trials" for what in ("report", "report after one new trial, beside those"))
    return [
        figures.of(
            first, [run.seconds for run in firsts], unit="s", goal=10, sense="at most",
            detail=f"nothing read before; processor {min(run.busy for run in firsts):.1f} s, page {firsts[-1].megabytes:.1f} MB",
        ),
        figures.of(f"{first}, peak memory", [run.gigabytes for run in firsts], unit="GB", goal=1, sense="at most"),
        figures.of(
            after, [run.seconds for run in nexts], unit="s", goal=3, sense="at most",
            detail=f"processor {min(run.busy for run in nexts):.1f} s",
        ),
    ]  # fmt: skip


def places(count: int) -> Iterator[tuple[str, str, int]]:
    """Name ``count`` trials, whole cells first."""
    for index in range(count):
        cell, trial = divmod(index, TRIALS)
        yield f"method {cell // len(BENCHMARKS) % 1000:02d}", list(BENCHMARKS)[cell % len(BENCHMARKS)], trial


def make(folder: Path, name: str, benchmark: str, trial: int) -> None:
    """Write one trial: its result, its journal, and for the first one two pictures."""
    generator = random.Random(f"{name}/{benchmark}/{trial}")
    place = folder / f"{name.replace(' ', '-')}--{benchmark}--trial{trial}"
    (place / "run" / "predictions").mkdir(parents=True)
    (place / "result.json").write_text(json.dumps(result(name, benchmark, trial, generator), indent=2))
    lines = [{"step": step, "loss": 2 + generator.random(), "lr": 0.02} for step in range(150)]
    (place / "run" / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for index in range(2 if trial == 0 else 0):
        picture(generator).save(place / "run" / "predictions" / f"{index:03d}.png", compress_level=1)


def result(name: str, benchmark: str, trial: int, generator: random.Random) -> dict[str, Any]:
    """Return invented numbers with the keys of a real result."""
    classes = [f"bbox/AP-class {index}" for index in range(BENCHMARKS[benchmark])]
    known = ["bbox/AP", "bbox/AP50", "bbox/AP75", "bbox/APs", "bbox/APm", "bbox/APl"]
    level = 40 + int(name.split()[1]) / 20
    return {
        "schema_version": 1,
        "benchmark": benchmark,
        "protocol": {"name": benchmark, "hash": "a" * 64, "title": benchmark, "headline": known[0], "metrics": known},
        "framework": "generated",
        "checkpoint": {"name": name, "sha256": name.encode().hex().ljust(64, "0"), "method": "moco"},
        "trial": trial,
        "seed": 1000 * (trial + 1),
        "metrics": {metric: level + generator.gauss(0, 0.2) for metric in (*known, *classes)},
        "cost": {"seconds": 3600.0, "peak_memory_mib": 9000.0, "device": "generated"},
        "recipe": {"effective": {"batch": 16, "lr": 0.02}, "published": {"batch": 16, "lr": 0.02}},
        "environment": {"python": "3.11.7", "packages": {"torch": "2.14.1"}},
        "command": f"python tools/run_benchmark.py {name}.pth --benchmark {benchmark} --trial {trial} --out somewhere",
        "finished": "2026-11-23T10:01:00+00:00",
    }


def picture(generator: random.Random) -> Image.Image:
    """Draw a picture of a real one's size: noise compresses like nothing, flat colour like everything; this is between."""
    image = Image.new("RGB", (512, 256), "#8fa3ad")
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y, r = generator.randint(0, 512), generator.randint(0, 256), generator.randint(4, 60)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=f"#{generator.randint(0, 0xFFFFFF):06x}")
    return image


def report(folder: Path) -> Run:
    """Run the tool in its own process and return what it took."""
    tool = [sys.executable, str(figures.ROOT / "tools" / "write_report.py"), str(folder), "--baseline", "method 00"]
    began = time.perf_counter()
    process = subprocess.Popen(tool, stdout=subprocess.DEVNULL)
    _, code, used = os.wait4(process.pid, 0)  # of this child alone
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, tool)
    size = (folder / "report" / "report.html").stat().st_size / 1e6
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9, size)


if __name__ == "__main__":
    sys.exit(main())
