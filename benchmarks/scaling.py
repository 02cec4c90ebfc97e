"""Time two gloo processes on two cores against one process on one core: the data pipeline and the training step.

    python benchmarks/scaling.py [--repeats 5] [--batch 16]

Every process is pinned to its own core and has one thread; the batch a process is the same, so twice the images are done.
Two independent copies of the one process, which never speak to each other, show how much the second core can add: it shares
memory, caches and clock with the first. All take turns. Data: two MoCo v2 views at 224 px of 500x375 JPEGs, in the process
itself. Step: MoCo v2 with a slim ResNet-18, gradients averaged by DistributedDataParallel, keys gathered.
"""

import argparse
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import figures
import torch
from PIL import Image

GOALS = {"data": 1.6, "step": 1.4}
NAMES = {"data": "data pipeline", "step": "training step"}
CORES = 2
NEAR = 0.95  # of what two independent copies reach: what is left is noise
FILES, PICTURES = 4096, 64  # so many names, that nothing is kept decoded; links to so many pictures
BATCHES = {"data": 80, "step": 6}  # a measurement: more than a second


def write_data(folder: Path, batch: int, world: int) -> Path:
    """Write JPEGs of a photograph's size and the config for ``world`` processes; return the config."""
    images = folder / "images"
    if not images.exists():
        images.mkdir()
        coarse = torch.rand(PICTURES, 24, 32, 3, generator=torch.Generator().manual_seed(0)).mul(255).byte().numpy()
        for number, pixels in enumerate(coarse):
            Image.fromarray(pixels).resize((500, 375), Image.Resampling.BICUBIC).save(images / f"{number:04d}.jpg")
        for number in range(PICTURES, FILES):
            os.link(images / f"{number % PICTURES:04d}.jpg", images / f"{number:04d}.jpg")
    config = folder / f"{world}.yaml"
    config.write_text(
        "backbone: {name: resnet, depth: 18, width: 16, stem: imagenet}\n"
        f"data: {{name: imagefolder, root: {images}}}\nviews: {{size: 224}}\n"
        f"method: {{name: moco, queue: {64 * batch}, temperature: 0.2, key_momentum: 0.999}}\n"
        f"train: {{epochs: 100, batch_size: {batch * world}, workers: 0, log_every: 1000}}\n"
        "optimizer: {lr: 0.03}\nschedule: {name: constant}\nrun: {channels_last: true, threads: 1, device: cpu}\n"
    )
    return config


def serve(core: int, config: str, folder: str) -> None:
    """Be one process: time what stdin asks for, and print when it began and ended."""
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    from pretrain.loader import loader
    from pretrain.setup import make_trainer

    trainer = make_trainer(Path(config), [f"run.folder={folder}"])
    trainer._prepare()
    kept = list(itertools.islice(loader(trainer.pairs, trainer.order, 0, pin=False), 2))

    def data() -> None:
        trainer.order.epoch += 1
        batches = itertools.islice(loader(trainer.pairs, trainer.order, 0, pin=False), BATCHES["data"])
        assert sum(len(batch.crops[0]) for batch in batches) == BATCHES["data"] * len(kept[0].crops[0])

    def step() -> None:
        for number in range(BATCHES["step"]):
            outcome = trainer._step(kept[number % 2])
            trainer.step += 1
        assert torch.isfinite(outcome.values["loss"])

    parts: dict[str, Callable[[], None]] = {"data": data, "step": step}
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        parts[line.strip()]()
        print(json.dumps([began, time.perf_counter()]), flush=True)


def start(core: int, config: Path, folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Start one process."""
    command = [sys.executable, "-W", "ignore::FutureWarning", __file__, "--serve", str(core), str(config), str(folder)]
    told = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=told)


def seconds_of(group: Sequence[Any], part: str) -> float:
    """Let all processes of a group do a part at once; return the seconds from the first's begin to the last's end."""
    for process in group:
        process.stdin.write(part + "\n")
        process.stdin.flush()
    times = [json.loads(process.stdout.readline()) for process in group]
    return float(max(end for _, end in times) - min(begin for begin, _ in times))


def measure(batch: int, repeats: int) -> tuple[list[figures.Figure], dict[str, float]]:
    """Start all processes, let the groups take turns, stop them; return also one process's images a second."""
    with tempfile.TemporaryDirectory(prefix="scaling-") as scratch, socket.socket() as port:
        folder = Path(scratch)
        alone, together = (write_data(folder, batch, world) for world in (1, CORES))
        port.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port.getsockname()[1]), "WORLD_SIZE": str(CORES)}
        port.close()
        copies = [start(core, alone, folder / f"copy{core}") for core in range(CORES)]
        pair = [start(core, together, folder / "pair", RANK=str(core), **address) for core in range(CORES)]
        try:
            assert all(process.stdout and process.stdout.readline() == "ready\n" for process in [*copies, *pair])
            groups = {"one": [[copy] for copy in copies], "two": [pair], "copies": [copies]}
            timed = {part: in_turn(groups, part, repeats) for part in GOALS}
        finally:
            for process in [*copies, *pair]:
                process.kill()
                process.wait()
    rates = {
        part: round(BATCHES[part] * batch / statistics.median(seconds["one"]), 2) for part, seconds in timed.items()
    }
    return [figure_of(part, seconds, batch, rates[part]) for part, seconds in timed.items()], rates


def in_turn(groups: dict[str, list[list[Any]]], part: str, repeats: int) -> dict[str, list[float]]:
    """Return the seconds by name, after one round to warm up; groups of one name take turns, so that no core is preferred."""
    seconds: dict[str, list[float]] = {name: [] for name in groups}
    for number in range(repeats + 1):
        for name, turns in groups.items():
            taken = seconds_of(turns[number % len(turns)], part)
            if number:
                seconds[name].append(taken)
    return seconds


def figure_of(part: str, seconds: dict[str, list[float]], batch: int, rate: float) -> figures.Figure:
    """Return the speed-up, with that of the independent copies beside it."""
    gains = {
        name: figures.of("", [CORES * one / other for one, other in zip(seconds["one"], seconds[name], strict=True)])
        for name in ("two", "copies")
    }
    two, copies = gains["two"], gains["copies"]
    near = two.value >= NEAR * copies.value
    bound = (
        f"two independent copies of the one process reach {copies.value:.2f}x ({copies.least:.2f} to {copies.most:.2f})"
    )
    return figures.Figure(
        f"{NAMES[part]}, two gloo processes against one on one core", two.value, two.least, two.most, two.repeats,
        goal=GOALS[part], detail=f"one process {rate:.0f} images/s at a batch of {batch}; {bound}",
        limit=f"{bound}: the machine's second core adds no more" if two.value < GOALS[part] and near else "",
    )  # fmt: skip


def main() -> int:
    """Measure, print, write."""
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]), sys.argv[3], sys.argv[4])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16, help="images a process")
    given = parser.parse_args()
    if len(os.sched_getaffinity(0)) < CORES:
        print(f"fewer than {CORES} cores: nothing to measure", file=sys.stderr)
        return 1
    found, rates = measure(given.batch, given.repeats)
    return figures.finish("scaling", found, images_per_second=rates)


if __name__ == "__main__":
    sys.exit(main())
