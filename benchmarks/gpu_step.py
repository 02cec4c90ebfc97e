"""Count what a step asks of a GPU, and time the host's part of it, on a CUDA runtime that computes nothing (tests/nullcuda).

    python benchmarks/gpu_step.py [--quick]

ResNet-50 at 224 px, MoCo v2 + MixMask, fp16, 32 and 256 images a GPU, eager and with ``run.compile``; a launch takes 2.5 us, as a
driver's does. What the loader's workers draw is drawn outside the time, as it is in training. Nothing here says how fast a
GPU computes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import figures
import torch
from figures import ROOT, Figure

sys.path.append(str(ROOT / "tests" / "nullcuda"))
import nullcuda

LAUNCH_NS = 2500
WARM, STEPS = 6, 5
MIXMASK = "branches.filled={name: mixmask, mask: {name: block, cells: 8, ratio: 0.5}}"
MSCN = "branches.erased={name: mscn}"


class Case(NamedTuple):
    """One way to take a step."""

    images: int
    groups: int
    branch: str = MIXMASK
    compiled: bool = False
    graph: bool = False

    def __str__(self) -> str:
        return f"{self.images} images{f', split_bn={self.groups}' if self.groups > 1 else ''}{', compiled' * self.compiled}"


CASES = {
    "32": Case(32, 1),
    "32 compiled": Case(32, 1, compiled=True),
    "32 graph": Case(32, 1, graph=True),
    "256": Case(256, 8),
    "256 compiled": Case(256, 8, compiled=True),
    "mscn": Case(256, 8, MSCN),
}
# counted and timed at the commit before this work, on the same null runtime
BEFORE = {
    "launches": 640, "32": 32, "256": 149, "mask bytes": 12.8, "mscn bytes": 77, "drawn": 42,
}  # fmt: skip


def inside(case: Case) -> dict[str, Any]:
    """Measure one case, in a process on the null runtime."""
    from compared_steps import Shape, make

    from pretrain.loader import Batch

    shape = Shape(50, 224, case.images)
    with tempfile.TemporaryDirectory(prefix="gpu-step-") as scratch:
        options = [case.branch, f"method.split_bn={case.groups}", "run.precision=fp16", "run.channels_last=true"]
        options += [
            f"run.compile={str(case.compiled).lower()}",
            "run.device=cuda",
            f"run.graphs={str(case.graph).lower()}",
        ]
        trainer = make(shape, Path(scratch), 1, options)
        crops = torch.zeros(2, shape.batch, 3, 224, 224, dtype=torch.uint8).pin_memory()
        colours = trainer.pairs[(0, 0)][1][:, None].repeat(1, shape.batch, 1)

        def batch() -> Batch:
            return Batch(crops, colours, [], trainer._draw_ahead(trainer.step))

        def drawn() -> None:
            trainer.objective.draw_ahead(shape.batch, 224, trainer.step, 0)

        rows = [counted(lambda ready: trainer._step(ready), batch) for _ in range(WARM + STEPS)][WARM:]
        encoders = [counted(encoder_passes(trainer, shape.batch)) for _ in range(WARM)][-1]
        found: dict[str, Any] = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        began = time.process_time()
        drawn()
        ahead = time.process_time() - began
        views = crops.numel() + trainer_told(trainer, colours)
        return found | {
            "ms": [row["seconds"] * 1000 for row in rows],
            "encoders": encoders["launches"],
            "uploaded beside views": found["h2d_bytes"] - views,
            "drawn ahead ms": 1000 * ahead,
            "on the main thread ms": 1000 * mixing_on_the_host(trainer, batch(), shape.batch),
        }


def trainer_told(trainer: Any, colours: torch.Tensor) -> int:
    """Return the bytes that tell the device of colours."""
    from pretrain.views import recolouring

    told = recolouring(colours.flatten(0, 1).numpy())
    return told.numel() * told.element_size()


def counted(step: Callable[..., Any], prepare: Callable[[], Any] | None = None) -> dict[str, Any]:
    """Return what one call asks for, and its seconds."""
    given = [prepare()] if prepare else []
    nullcuda.reset()
    began = time.process_time()  # of all threads: nothing waits here but for another thread, and the machine is shared
    step(*given)
    seconds = time.process_time() - began
    return nullcuda.counted() | {"seconds": seconds}


def encoder_passes(trainer: Any, rows: int) -> Callable[[], None]:
    """Return two query passes forward and back, and one of the keys: what no such step can do without."""
    method, form = trainer.objective.method, trainer.form
    images = torch.empty(rows, 3, 224, 224, device="cuda").contiguous(memory_format=form.memory_format)

    def passes() -> None:
        with form.autocast(trainer.device):
            with torch.no_grad():
                method.key_encoder(images)
            queries = [method.query_encoder(images) for _ in range(2)]
        torch.autograd.backward(queries, [torch.empty_like(query) for query in queries])
        trainer.optimizer.zero_grad(set_to_none=True)

    return passes


def mixing_on_the_host(trainer: Any, batch: Any, rows: int) -> float:
    """Return the seconds that masks and partners take of the main thread, with what a worker drew, on no device at all."""
    views = [tuple(torch.empty(2, rows, 3, 224, 224, device="meta"))]
    spent = []
    for kept in (batch.drawn[0], None):
        best = 1e9
        for _ in range(STEPS):
            began = time.process_time()
            trainer.objective._terms(views, trainer.step, 0, kept, None)
            best = min(best, time.process_time() - began)
        spent.append(best)
    return spent[0]


def run(name: str) -> dict[str, Any]:
    """Measure a case in a process of its own."""
    environment = {
        **os.environ,
        **nullcuda.environment(),
        "NULLCUDA_LAUNCH_NS": str(LAUNCH_NS),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, str(Path(__file__).resolve()), "--inside", name]
    done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        sys.exit(f"{name} ended with {done.returncode}")
    return json.loads(lines[-1])


def table(found: dict[str, dict[str, Any]]) -> list[Figure]:
    """Return the figures, each with the one before this work."""
    small, large = found["32"], found["256"]
    rest = small["launches"] - small["encoders"]
    rows = [
        figures.of(
            "kernel launches of a step outside the encoders, 32 images", [rest], unit="launches", goal=60, sense="at most",
            detail=f"about {BEFORE['launches']} before; {small['launches']:.0f} in all, {small['encoders']:.0f} of the encoders",
        ),
        figures.of(
            "host time of a step, 32 images, 2.5 us a launch", small["ms"], unit="ms", goal=15, sense="at most",
            detail=f"{BEFORE['32']} ms before",
        ),
        figures.of(
            "host time of a step, 256 images, split_bn=8", large["ms"], unit="ms", goal=30, sense="at most",
            detail=f"{BEFORE['256']} ms before; {large['launches']:.0f} launches",
        ),
        figures.of(
            "masks and partners uploaded, 256 images", [large["uploaded beside views"] / 1e6], unit="MB", goal=0.1,
            sense="at most",
            detail=f"{BEFORE['mask bytes']} MB before",
        ),
        figures.of(
            "masks and partners on the main thread, 256 images", [large["on the main thread ms"]], unit="ms", goal=1,
            sense="at most",
            detail=f"{BEFORE['drawn']} ms before; a worker draws them ahead in {large['drawn ahead ms']:.1f} ms",
        ),
    ]  # fmt: skip
    for name in ("32 compiled", "256 compiled"):
        if name in found:
            goal = {"goal": 3, "sense": "at most"} if name.startswith("32") else {}
            detail = f"{found[name]['launches']:.0f} launches"
            rows.append(
                figures.of(f"host time of a step, {CASES[name]}", found[name]["ms"], unit="ms", detail=detail, **goal)
            )
    if "mscn" in found:
        rows.append(
            figures.of(
                "MSCN's masks uploaded, 256 images",
                [found["mscn"]["uploaded beside views"] / 1e6],
                unit="MB",
                goal=0.1,
                sense="at most",
                detail=f"{BEFORE['mscn bytes']} MB before",
            )
        )
    return rows


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the eager step of MixMask only")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        print(json.dumps(inside(CASES[asked.inside])), flush=True)
        os._exit(0)
    reason = nullcuda.why_not()
    if reason:
        sys.exit(reason)
    found = {name: run(name) for name in (("32", "256") if asked.quick else CASES)}
    return figures.finish("gpu_step", table(found), counted=found)


if __name__ == "__main__":
    sys.exit(main())
