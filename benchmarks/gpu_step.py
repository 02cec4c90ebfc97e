"""Count what a step asks of a GPU, and time the host's part of it, on a CUDA runtime that computes nothing (tests/nullcuda).

    python benchmarks/gpu_step.py [--quick]

ResNet-50 at 224 px, MoCo v2 + MixMask, fp16, 32 and 256 images a GPU: launched kernel by kernel, and as a CUDA graph, which is
what one GPU does unless told otherwise. A launch takes 2.5 us, as a driver's does; a graph's too, which takes a driver more. What
the loader's workers draw is drawn outside the time, as it is in training. Nothing here says how fast a GPU computes.
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
    graph: bool = False

    def __str__(self) -> str:
        parts = f", split_bn={self.groups}" * (self.groups > 1)
        return f"{self.images} images{parts}, {'one CUDA graph' if self.graph else 'kernel by kernel'}"


CASES = {
    "32": Case(32, 1), "32 graph": Case(32, 1, graph=True),
    "256": Case(256, 8), "256 graph": Case(256, 8, graph=True), "mscn": Case(256, 8, MSCN, graph=True),
}  # fmt: skip
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
        plain = [counted(passes) for passes in [torchvisions_passes(shape.batch)] * (WARM + STEPS)][WARM:]
        return found | {
            "ms": [row["seconds"] * 1000 for row in rows],
            "encoders": encoders["launches"],
            "torchvision": {"ms": [row["seconds"] * 1000 for row in plain], "launches": plain[-1]["launches"]},
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


def torchvisions_passes(rows: int) -> Callable[[], None]:
    """Return the same passes of torchvision's network, and the optimizer's step: a plain loop in torch, nothing of ours in it."""
    from torchvision.models import resnet50

    query, key = (resnet50().cuda().to(memory_format=torch.channels_last) for _ in range(2))
    optimizer = torch.optim.SGD(query.parameters(), 0.1, momentum=0.9, weight_decay=1e-4, fused=True)
    images = torch.empty(rows, 3, 224, 224, device="cuda").contiguous(memory_format=torch.channels_last)

    def passes() -> None:
        with torch.autocast("cuda", torch.float16):
            with torch.no_grad():
                key(images)
            queries = [query(images) for _ in range(2)]
        torch.autograd.backward(queries, [torch.empty_like(one) for one in queries])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

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
    small = found["32"]
    rest = small["launches"] - small["encoders"]
    rows = [
        figures.of(
            "kernel launches of a step outside the encoders, 32 images", [rest], unit="launches", goal=60, sense="at most",
            detail=f"about {BEFORE['launches']} before; {small['launches']:.0f} in all, {small['encoders']:.0f} of the encoders",
        ),
    ]  # fmt: skip
    goals = {"32": 15, "32 graph": 3, "256": None, "256 graph": 30}
    for name in [name for name in goals if name in found]:
        one, bare = found[name], found[name]["torchvision"]
        detail = (
            f"{BEFORE[name.split()[0]]} ms before; {one['launches']:.0f} launches, {one['graphs']:.0f} of a graph; "
            f"{one['h2d']:.0f} uploads, {one['malloc']:.0f} allocations, {one['sync'] + one['d2h']:.0f} waits, "
            f"{one['d2d']:.0f} copies on the device"
        )
        limit = (
            "two passes of torchvision's own ResNet-50 forward and back, one forward, and its optimizer's step take "
            f"{statistics.median(bare['ms']):.3g} ms ({min(bare['ms']):.3g} to {max(bare['ms']):.3g}) and "
            f"{bare['launches']:.0f} launches in the same process: what an operation costs torch, and a graph does not"
        )
        rows.append(
            figures.of(
                f"host time of a step, {CASES[name]}", one["ms"], unit="ms", goal=goals[name], sense="at most",
                detail=detail, limit="" if name != "32" else limit,
            )
        )  # fmt: skip
    for what, name, before in (("masks and partners", "256", "mask bytes"), ("MSCN's masks", "mscn", "mscn bytes")):
        if name in found:
            rows.append(
                figures.of(
                    f"{what} uploaded, 256 images", [found[name]["uploaded beside views"] / 1e6], unit="MB", goal=0.1,
                    sense="at most", detail=f"{BEFORE[before]} MB before",
                )
            )  # fmt: skip
    large = found["256"]
    return [
        *rows,
        figures.of(
            "masks and partners on the main thread, 256 images", [large["on the main thread ms"]], unit="ms", goal=1,
            sense="at most",
            detail=f"{BEFORE['drawn']} ms before; a worker draws them ahead in {large['drawn ahead ms']:.1f} ms",
        ),
    ]  # fmt: skip


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three cases only")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        print(json.dumps(inside(CASES[asked.inside])), flush=True)
        os._exit(0)
    reason = nullcuda.why_not()
    if reason:
        sys.exit(reason)
    found = {name: run(name) for name in (("32", "32 graph", "256") if asked.quick else CASES)}
    return figures.finish("gpu_step", table(found), counted=found)


if __name__ == "__main__":
    sys.exit(main())
