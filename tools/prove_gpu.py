"""Prove on a machine with NVIDIA GPUs, in ten minutes and without a data set, that pre-training is right and fast there.

    python tools/prove_gpu.py [--out gpu-proof.json] [--short]

Prints a table, writes one JSON, and exits 1 when something is missed. What this machine cannot show is "not proven".
"""

import argparse
import contextlib
import copy
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import checkout

from core.errors import cli

PRECISIONS = {"fp32": 2e-3, "bf16": 6e-2, "fp16": 2e-2}  # relative tolerance of losses and gradients against float64
METHODS: dict[str, str] = {
    "moco": "{name: moco, queue: 64, dim: 8, split_bn: 2}", "simclr": "{name: simclr, dim: 8}",
    "byol": "{name: byol, dim: 8, hidden: 16}", "simsiam": "{name: simsiam, dim: 16, hidden: 16, bottleneck: 8}",
}  # fmt: skip
GRID = "cells: 4, ratio: 0.5"
BRANCHES: dict[str, str] = {  # no noise: GPUs draw other numbers than CPUs
    "mixmask": f"{{name: mixmask, mask: {{name: block, {GRID}}}}}", "unmix": "{name: unmix}", "mixsiam": "{name: mixsiam}",
    "mscn": "{name: mscn, cell: 8, ratio: [0.0625, 0.25], fill: {name: zero}}",
    "saliency": "{name: saliency, cells: 4, ratio: [0.0625, 0.25], saliency: {stage: 2}, fill: {name: mean}, "
    "hard_negatives: false}",
    "masked": f"{{name: masked, mask: {{name: discrete, {GRID}}}, fill: {{name: blur}}, sides: both}}",
}  # fmt: skip
SPEEDS = {
    "MoCo v2": [],
    "MixMask": ["branches.b={name: mixmask, mask: {name: block, cells: 8, ratio: 0.5}}"],
    "MSCN": ["branches.b={name: mscn}"],
}
OF_SUPERVISED, BUSY, OVER_RELEASE, WAIT, GRAPH, ALIKE = 0.9, 0.9, 1.5, 0.03, 0.05, 1e-3  # figures to reach
MODES = {
    "kernel by kernel": ["run.graphs=false"],
    "one CUDA graph": [],
    "compiled, one CUDA graph": ["run.compile=true"],
}


class Check(NamedTuple):
    """One line of the table; ``goal`` None: shown only."""

    what: str
    verdict: str  # met, missed, not proven, shown
    value: Any = None
    goal: Any = None
    detail: str = ""


class Proof:
    """Collects checks; on a device that computes nothing, everything runs and nothing is proven."""

    def __init__(self, short: bool, folder: Path) -> None:
        import torch

        self.short, self.folder, self.checks = short, folder, list[Check]()
        self.there = torch.cuda.is_available()
        self.computes = self.there and not torch.cuda.get_device_name().startswith("NULL")
        self.device = torch.device("cuda", 0)

    def add(self, what: str, value: Any, met: bool | None = None, goal: Any = None, detail: str = "") -> None:
        """Note a figure: met, missed, or shown where nothing is asked of it."""
        verdict = "shown" if met is None else "not proven" if not self.computes else "met" if met else "missed"
        self.checks.append(Check(what, verdict, value, goal, detail))
        print(f"{verdict:>10}  {what}: {value}", flush=True)

    def missing(self, what: str, why: str) -> None:
        """Note what this machine cannot show."""
        self.checks.append(Check(what, "not proven", detail=why))
        print(f"not proven  {what}: {why}", flush=True)

    @contextlib.contextmanager
    def part(self, what: str) -> Iterator[None]:
        """Let one part fail without ending the others."""
        try:
            yield
        except Exception:
            text = traceback.format_exc()
            print(text, file=sys.stderr)
            self.checks.append(Check(what, "missed", detail=text))

    def trainer(self, name: str, options: Sequence[str], data: str = "{name: shapes, count: 64, size: 32}") -> Any:
        """Make a trainer in a run folder of its own."""
        from pretrain.setup import make_trainer

        config = self.folder / "proof.yaml"
        config.write_text(
            f"data: {data}\nviews: {{size: 32}}\nmethod: {{name: moco}}\noptimizer: {{lr: 0.01}}\n"
            "backbone: {name: resnet, depth: 18, width: 8, stem: small}\n"
            "train: {epochs: 1, batch_size: 8, workers: 0, log_every: 1000}\n"
        )
        return make_trainer(
            config, [f"run.folder={self.folder / name}", "run.overwrite=true", "run.device=cuda", *options]
        )


def facts(proof: Proof) -> dict[str, Any]:
    """Return what the machine is."""
    import torch

    from core.provenance import accelerators, environment, shared_memory

    memory = shared_memory()
    found = (
        environment()
        | accelerators(proof.device)
        | {"gpus": torch.cuda.device_count(), "dev_shm_gib": round(memory, 1)}
    )
    found["tf32"] = {
        "matmul": torch.backends.cuda.matmul.fp32_precision,
        "cudnn": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
    }
    proof.add("shared memory", f"{memory:.1f} GiB", met=memory >= 1.2, goal="1.2 GiB: eight workers' batches")
    return found


def right(proof: Proof) -> None:
    """Every method, branch and precision: steps that wait for nothing, losses and gradients near CPU float64's, resume."""
    import torch

    pairs = [(m, b) for m in METHODS for b in BRANCHES]
    for method, branch in pairs[:: 7 if proof.short else 1]:
        for precision, tolerance in PRECISIONS.items():
            what = f"{method} + {branch}, {precision}"
            with proof.part(what):
                options = [f"method={METHODS[method]}", f"branches.b={BRANCHES[branch]}", f"run.precision={precision}"]
                made = proof.trainer("right", [*options, "run.graphs=false"])
                made._prepare()
                batches = [
                    made.pairs.__getitems__([(0, (step * 8 + row) % 64) for row in range(8)]) for step in range(6)
                ]
                off = _against_float64(made, batches[0])
                made._step(batches[0])  # compiles
                torch.cuda.set_sync_debug_mode("error")
                try:
                    for batch in batches[1:]:
                        outcome = made._step(_pinned(batch))
                finally:
                    torch.cuda.set_sync_debug_mode("default")
                finite = all(bool(value.isfinite()) for value in outcome.values.values())
                proof.add(what, f"{off:.2g} off", met=off <= tolerance and finite, goal=tolerance)
                if precision == "fp16":
                    captured, off = _as_graphs(proof, options, batches)
                    proof.add(f"{what}: steps as one CUDA graph", f"{off:.2g} apart", captured and off <= GRAPH, GRAPH)
    with proof.part("stop and resume"):
        ends: list[dict[str, Any]] = []
        for name, stops in (("whole", ()), ("parts", (3,))):
            options = [f"method={METHODS['moco']}", f"branches.b={BRANCHES['mixmask']}", "run.deterministic=true"]
            for stop in (*stops, None):
                made = proof.trainer(name, [*options, "run.overwrite=false"])
                if stop:
                    _stop_after(made, stop)
                made.run()
            ends.append({key: value.clone() for key, value in made.objective.method.state_dict().items()})
        torch.use_deterministic_algorithms(False)
        same = all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
        proof.add("stop and resume equal a whole run", same, met=same)


def _as_graphs(proof: Proof, options: Sequence[str], batches: Sequence[Any]) -> tuple[bool, float]:
    """Tell whether a step is captured, and how far six such lie from six that are launched kernel by kernel, of their way."""
    from pretrain.graphs import Captured

    ends: list[list[Any]] = []
    for asked in ("false", "true"):
        made = proof.trainer("graphs", [*options, f"run.graphs={asked}", "run.deterministic=true"])
        made._prepare()
        trained = [part for part in made.objective.parameters() if part.requires_grad]
        began = [part.detach().clone() for part in trained]
        for batch in batches:
            made._step(_pinned(batch))
            made.step += 1
        ends.append([(part.detach() - old).double() for part, old in zip(trained, began, strict=True)])
    way = math.sqrt(sum(float(part.square().sum()) for part in ends[0]))
    apart = math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(*ends, strict=True)))
    return isinstance(made._taking, Captured) and made._taking.plays, apart / max(way, 1e-12)


def _against_float64(made: Any, batch: Any) -> float:
    """Return the largest relative difference of the loss and the whole gradient from those on a CPU in float64."""

    from pretrain.upload import Inputs

    views = made._views(made._give(_pinned(batch), Inputs(made.device)))
    slow = copy.deepcopy(made.objective).cpu().double()
    slow.kept = None
    exact = slow(*(view.detach().cpu().double().contiguous() for view in views), 0)
    exact.loss.backward()
    with made.form.autocast(made.device):
        found = made.objective(*views, 0)
    found.loss.backward()
    ours = [p.grad for p in made.objective.parameters() if p.grad is not None]
    theirs = [p.grad for p in slow.parameters() if p.grad is not None]
    norm = math.sqrt(sum(float(grad.square().sum()) for grad in theirs))
    apart = math.sqrt(sum(float((a.cpu().double() - b).square().sum()) for a, b in zip(ours, theirs, strict=True)))
    made.optimizer.zero_grad(set_to_none=True)
    loss = abs(float(found.loss) - float(exact.loss)) / max(abs(float(exact.loss)), 1e-6)
    return max(loss, apart / max(norm, 1e-12))


def _pinned(batch: Any) -> Any:
    return batch._replace(crops=batch.crops.pin_memory())


def _stop_after(made: Any, steps: int) -> None:
    whole = made._step

    def step(batch: Any) -> Any:
        if made.step + 1 == steps:
            made.asked_by = 15
        return whole(batch)

    made._step = step


def fast(proof: Proof) -> None:
    """ResNet-50 at 224 px: pairs a second, share of supervised speed, busy share and memory; over the release's own step."""
    import torch

    depth, size = (18, 32) if proof.short else (50, 224)
    for images in (8,) if proof.short else (32, 256):
        supervised = None
        with proof.part(f"supervised, {images} images"):
            supervised = _supervised(proof, depth, size, images)
            proof.add(f"supervised training, {images} images", f"{supervised:.0f} images/s")
        for name, branches in SPEEDS.items():
            for mode, more in list(MODES.items())[: 2 if proof.short else None]:
                what = f"{name}, {images} images, {mode}"
                with proof.part(what):
                    options = [f"backbone={{name: resnet, depth: {depth}}}", f"views.size={size}", "run.precision=bf16"]
                    options += [
                        f"method={{name: moco, queue: {images * 16}, split_bn: {max(images // 32, 1)}}}",
                        *branches,
                    ]
                    options += [f"train.batch_size={images}", f"data.count={images}", "run.channels_last=true", *more]
                    if size == 32:
                        small = {"cells: 8": "cells: 4", "name: mscn": "name: mscn, cell: 8, ratio: [0.0625, 0.25]"}
                        for old, new in small.items():
                            options = [option.replace(old, new) for option in options]
                    made = proof.trainer("fast", options)
                    made._prepare()
                    batch = _pinned(made.pairs.__getitems__([(0, row) for row in range(images)]))
                    torch.cuda.reset_peak_memory_stats()
                    rate = images / _seconds(partial(made._step, batch), 3 if proof.short else 20)
                    memory = torch.cuda.max_memory_allocated() / 2**30
                    proof.add(f"{what}: pairs a second", f"{rate:.0f}", detail=f"{memory:.1f} GiB")
                    busy = _busy(partial(made._step, batch))
                    proof.add(f"{what}: GPU busy", f"{busy:.2f}", met=busy >= BUSY, goal=BUSY)
                    if name == "MixMask" and supervised:
                        share = rate / (supervised * 3 / 7)  # a supervised step is 3 forwards' cost, this one 7
                        share_of = f"{what}: of 3/7 of supervised speed"
                        proof.add(share_of, f"{share:.2f}", met=share >= OF_SUPERVISED, goal=OF_SUPERVISED)
                    if not more and name in ("MixMask", "MoCo v2"):
                        del made
                        over = _over_release if name == "MixMask" else _over_lightly
                        over(proof, what, (depth, size, images), rate)


def _over_release(proof: Proof, what: str, shape: tuple[int, int, int], rate: float) -> None:
    import torch
    from compared_steps import ReleaseStep, Shape, make, mixed, random_views  # type: ignore[import-not-found]

    asked = Shape(*shape)
    options = [mixed(asked), "run.channels_last=false", "run.device=cuda", "run.graphs=false"]
    release = ReleaseStep(make(asked, proof.folder, 1, options))
    views = [view.to(proof.device) for view in random_views(asked)]
    with torch.autocast("cuda", torch.bfloat16):
        theirs = shape[2] / _seconds(lambda: release(*views), 3 if proof.short else 10)
    name = f"{what}: over the release's step"
    proof.add(name, f"{rate / theirs:.2f}", met=rate >= OVER_RELEASE * theirs, goal=OVER_RELEASE)


def _over_lightly(proof: Proof, what: str, shape: tuple[int, int, int], rate: float) -> None:
    import torch

    name = f"{what}: over lightly's step"
    if importlib.util.find_spec("lightly") is None:
        proof.missing(name, "lightly is not installed here; pip install lightly, into an environment of its own")
        return
    from compared_steps import Shape, random_views
    from peer_steps import lightly  # type: ignore[import-not-found]

    from core.backbones.resnet import ResNet

    asked = Shape(*shape)
    with proof.device:
        backbone = ResNet(ResNet.Config(depth=asked.depth)).train()
        step, _ = lightly(backbone, backbone.feature_dim, asked.queue)
    views = [view.to(proof.device) for view in random_views(asked)]
    with torch.autocast("cuda", torch.bfloat16):
        theirs = shape[2] / _seconds(lambda: step(*views), 3 if proof.short else 10)
    proof.add(name, f"{rate / theirs:.2f}", met=rate >= theirs, goal=1)


def _supervised(proof: Proof, depth: int, size: int, images: int) -> float:
    import torch
    from torchvision.models import resnet

    network = getattr(resnet, f"resnet{depth}")().to(proof.device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=1e-4, fused=True)
    pictures = torch.randn(images, 3, size, size, device=proof.device).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(images, dtype=torch.long, device=proof.device)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(network(pictures), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return images / _seconds(step, 3 if proof.short else 20)


def _seconds(step: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of a step, in five stretches that end with a wait."""
    import torch

    for _ in range(5):  # the fourth is captured
        step()
    spent = []
    for _ in range(5):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(max(repeats // 5, 1)):
            step()
        torch.cuda.synchronize()
        spent.append((time.perf_counter() - began) / max(repeats // 5, 1))
    return statistics.median(spent)


def _busy(step: Callable[[], object]) -> float:
    """Return the share of five steps' time in which the GPU computes, from torch's profiler."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        began = time.perf_counter()
        for _ in range(5):
            step()
        torch.cuda.synchronize()
        spent = time.perf_counter() - began
    return sum(event.self_device_time_total for event in seen.key_averages()) / 1e6 / spent


def fed(proof: Proof) -> None:
    """The data loader on synthetic JPEGs: the share of a training in which the GPU waits for images."""
    import numpy as np
    from PIL import Image

    with proof.part("loader"):
        rng, folder = np.random.default_rng(0), proof.folder / "jpegs"
        folder.mkdir()
        count, images, size = (16, 8, 32) if proof.short else (4096, 256, 224)
        for number in range(count):
            pixels = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((500, 375), Image.Resampling.BICUBIC).save(
                folder / f"{number}.jpg", quality=90
            )
        options = [f"views.size={size}", "run.precision=bf16", "run.channels_last=true"]
        options += [
            f"method={{name: moco, queue: {images * 16}, split_bn: {max(images // 32, 1)}}}",
            f"train.batch_size={images}",
        ]
        options += [
            f"backbone={{name: resnet, depth: {18 if proof.short else 50}}}",
            f"train.workers={1 if proof.short else 16}",
        ]
        made = proof.trainer("fed", options, f"{{name: imagefolder, root: {folder}}}")
        made._prepare()
        from pretrain.loader import loader

        waited, whole, last = 0.0, 0.0, time.perf_counter()
        for number, batch in enumerate(loader(made.pairs, made.order, made.settings.train.workers, pin=True)):
            came = time.perf_counter()
            made._step(batch)
            if number > 4:  # workers have started, and the step is captured
                waited += came - last
                whole += time.perf_counter() - last
            last = time.perf_counter()
        share = waited / whole if whole else 0.0
        proof.add("loader: share of the time that a step waits", f"{share:.3f}", met=share < WAIT, goal=WAIT)


TRANSFER = {  # what is trained, the tool that converts, and how 20 iterations with AMP are asked for
    "Mask R-CNN R50-FPN": ("convert_to_d2.py", "coco_fpn", ("SOLVER.AMP.ENABLED", "True", "SOLVER.MAX_ITER", "20")),
    "FCN R50-D8": (
        "convert_to_mmseg.py",
        "voc12_segmentation",
        ("optim_wrapper.type=AmpOptimWrapper", "train_cfg.max_iters=20"),
    ),
}


def carried(proof: Proof) -> None:
    """Convert a backbone, and train 20 iterations of detection and segmentation with it, through the suite's own tools."""
    from transfer.convert import random_init

    tools, weights = Path(checkout.__file__).resolve().parent, proof.folder / "r50.pth"
    with proof.part("transfer"):
        shape = {"depth": 18 if proof.short else 50, "width": 8 if proof.short else 64, "stem": "imagenet"}
        random_init.make(weights, shape, seed=0)
        for name, (script, benchmark, options) in TRANSFER.items():
            convert: list[Any] = [script, weights, proof.folder / f"{benchmark}.pth"]
            train: list[Any] = [
                "run_benchmark.py", weights, "--benchmark", benchmark, "--tiny", "--out", proof.folder / benchmark,
            ]  # fmt: skip
            if not proof.computes:  # both frameworks read values of the device
                train = ["run_benchmark.py", "--help"]
            else:
                train += ["--options", *options]
            for what, command in {"converted and proven": convert, "20 iterations with AMP": train}.items():
                line = [sys.executable, str(tools / command[0]), *map(str, command[1:])]
                done = subprocess.run(line, capture_output=True, text=True, cwd=proof.folder)
                good = done.returncode == 0
                proof.add(f"{name}: {what}", good, met=good, detail="" if good else done.stderr[-2000:])


OWN = """
import os, time
from pretrain.branches.unmix import Unmix

class Failing(Unmix):
    class Config(Unmix.Config):
        name: str = "own"

    def mix(self, query, key, draws, features=None):
        if draws.step == 1 and os.environ["RANK"] == "1":
            raise RuntimeError("out of paper")
        return super().mix(query, key, draws, features)
"""


def together(proof: Proof) -> None:
    """Two NCCL ranks equal one process with two groups, or with norms of the whole batch; a raising rank ends the job."""
    import torch

    there = torch.cuda.device_count() > 1
    for method in METHODS:
        norms = "with two groups" if method == "moco" else "whose batch is normalised whole (SyncBN)"
        what = f"{method}: two NCCL ranks equal one process {norms}"
        with proof.part(what):
            if not there:
                proof.missing(what, "needs two GPUs")
                continue
            ends: list[list[float]] = []
            for count in (1, 2):
                folder = proof.folder / f"{method}{count}"
                done = _ranks(proof, count, folder, [f"method={METHODS[method]}", f"branches.b={BRANCHES['mixmask']}"])
                assert done.returncode == 0, done.stderr[-2000:]
                lines = (folder / "journal.jsonl").read_text().splitlines()
                ends.append([json.loads(line)["loss"] for line in lines])
            off = max(abs(a - b) / abs(a) for a, b in zip(*ends, strict=True))
            proof.add(what, f"{off:.2g} off", met=off < ALIKE, goal=ALIKE)
    what = "a raising rank ends the job"
    with proof.part(what):
        if not there:
            proof.missing(what, "needs two GPUs")
            return
        (proof.folder / "own.py").write_text(OWN)
        began = time.monotonic()
        done = _ranks(
            proof, 2, proof.folder / "raising", [f"method={METHODS['moco']}", "branches.b={name: 'own:Failing'}"]
        )
        spent = time.monotonic() - began
        proof.add(
            what, f"{spent:.0f} s", met=done.returncode != 0 and "out of paper" in done.stderr and spent < 90, goal=90
        )


def _ranks(proof: Proof, count: int, folder: Path, options: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Pre-train in so many processes."""
    root, config = Path(checkout.__file__).resolve().parent.parent, proof.folder / "proof.yaml"
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}", f"{root}/pretrain/run.py"]
    more = [f"run.folder={folder}", "train.log_every=1", "data.count=16", f"run.device={proof.device.type}"]
    given = {**os.environ, "PYTHONPATH": f"{root}:{proof.folder}"}
    command = [sys.executable, *launcher, str(config), *options, *more, "run.graphs=false"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=given)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-proof.json"))
    parser.add_argument(
        "--short", action="store_true", help="tiny networks, a part of the pairs: whether this script runs at all"
    )
    return parser


def main() -> int:
    """Run all parts, write the JSON, and return 1 when something is missed."""
    asked = parser().parse_args()
    from core.errors import InputError
    from core.files import write_json

    sys.path.append(str(Path(checkout.__file__).resolve().parent.parent / "benchmarks"))
    with tempfile.TemporaryDirectory(prefix="prove-gpu-") as scratch:
        proof = Proof(asked.short, Path(scratch))
        if not proof.there:
            raise InputError("no GPU is available here, so nothing can be proven; run this on a machine with one")
        found = {"facts": facts(proof)}
        for part in (right, fast, fed, carried, together):
            part(proof)
    checks = [check._asdict() for check in proof.checks]
    count = {
        verdict: sum(check.verdict == verdict for check in proof.checks)
        for verdict in ("met", "missed", "not proven", "shown")
    }
    write_json(asked.out, {**found, "summary": count, "checks": checks})
    print(", ".join(f"{number} {verdict}" for verdict, number in count.items()), "->", asked.out)
    return int(count["missed"] > 0)


if __name__ == "__main__":
    cli(main)
