"""Time the report of a generated results folder of 2,000 trials: the first, and the next after one new trial.

    python benchmarks/report_scale.py [--trials 2000] [--keep DIR]

Prints wall seconds, processor seconds (what an idle machine needs), peak memory and the size of the page, a row each.
40 checkpoints, ten benchmarks (two with 80 classes), five trials; every trial has a journal of 150 lines, every first
trial two pictures.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS, TRIALS = 40, 5
BENCHMARKS = {f"benchmark{index}": classes for index, classes in enumerate((80, 80, 20, 20, 20, 20, 21, 21, 0, 0))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, metavar="N", help="results to generate (default: 2000)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="generate here and keep it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="report-scale-") as scratch:
        folder = given.keep or Path(scratch)
        wanted = list(places(given.trials + 1))
        for name, benchmark, trial in wanted[:-1]:
            make(folder, name, benchmark, trial)
        print(
            f"{'report of ' + str(given.trials) + ' trials':<34} {'seconds':>8} {'busy':>8} {'MiB':>6} {'page MB':>8}"
        )
        report("nothing read before", folder)
        make(folder, *wanted[-1])
        report("after one new trial", folder)
        report("nothing new", folder)


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


def report(what: str, folder: Path) -> None:
    """Run the tool in its own process and print what it took."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    tool = [sys.executable, str(ROOT / "tools" / "write_report.py"), str(folder), "--baseline", "method 00"]
    subprocess.run(tool, stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    size = (folder / "report" / "report.html").stat().st_size / 1e6
    print(f"{what:<34} {seconds:8.2f} {busy:8.2f} {after.ru_maxrss / 1024:6.0f} {size:8.2f}")


if __name__ == "__main__":
    main()
