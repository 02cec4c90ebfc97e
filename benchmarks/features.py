"""Time feature extraction for kNN and linear classification against the bare encoder, which is its limit.

    python benchmarks/features.py [--repeats 11] [--threads N]

Ours reads the images, makes the test views, normalises them, runs the frozen backbone, logs and writes the cache file. The
bare encoder sees one batch of the same size again and again, normalised and in the same memory format. In memory: 4,096
images of 32 px with a slim ResNet-18, the worst case for what is beside the encoder. From files: JPEGs, noise scaled up.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import figures
import torch
from PIL import Image

from core import backbones, config, plugins
from core.data import Labelled, Split
from core.data.imagefolder import split_of_files
from core.stopping import Sitting
from transfer.convert.recipe import Recipe
from transfer.frameworks.classification.features import Frozen, cached
from transfer.frameworks.classification.job import ClassificationSettings, Job, read

GOAL = 0.9
KNN = figures.ROOT / "configs" / "transfer" / "classification" / "knn_shapes.yaml"


class Case(NamedTuple):
    """Images of ``size`` (width, height) and their test views, and the backbone that sees them."""

    what: str
    backbone: dict[str, Any]
    images: int
    size: tuple[int, int]
    view: str  # settings of the view
    chunk: int
    files: bool
    goal: float | None


CASES = (
    Case(
        "32 px in memory, slim ResNet-18", {"depth": 18, "width": 16, "stem": "cifar"}, 4096, (32, 32),
        "views={size: 32, resize: null}", 64, False, GOAL,
    ),
    Case(
        "JPEGs of 32 px, slim ResNet-18", {"depth": 18, "width": 16, "stem": "cifar"}, 1024, (32, 32),
        "views={size: 32, resize: null}", 64, True, None,
    ),
    Case(
        "JPEGs of 500x375 at 224 px, ResNet-50", {"depth": 50, "width": 64, "stem": "imagenet"}, 32, (500, 375),
        "views={size: 224, resize: 256}", 16, True, GOAL,
    ),
)  # fmt: skip


def split_of(case: Case, folder: Path) -> Split:
    """Make the images: smooth noise, from a seed; as files or in memory."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(case.images, 3, 12, 16, generator=generator)
    width, height = case.size
    labels = [index % 10 for index in range(case.images)]
    if not case.files:
        pixels = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").mul(255).byte()
        return Split(list(map(str, labels)), labels, lambda index: pixels[index], list(map(str, labels)))
    folder.mkdir()
    files = []
    for index, (image, label) in enumerate(zip(coarse, labels, strict=True)):
        small = Image.fromarray(image.mul(255).byte().permute(1, 2, 0).numpy())
        files.append((folder / f"{index:05d}.jpg", label))
        small.resize((width, height), Image.Resampling.BICUBIC).save(files[-1][0], quality=90)
    return split_of_files(folder, files)


def job_of(case: Case, folder: Path) -> Job:
    """Make what a kNN benchmark gives its task."""
    settings: ClassificationSettings = read(KNN, [case.view, f"chunk={case.chunk}", "device=cpu"])
    family = plugins.find("core.backbones", "resnet")
    network = backbones.build(config.parse(family.Config, {"name": "resnet", **case.backbone}, "benchmark"))
    Frozen(network)  # also makes it channels-last, as a task does
    images = split_of(case, folder / "images")
    data = Labelled(tuple("0123456789"), images, images)
    return Job(
        sitting=Sitting(folder, time.monotonic(), False, keeps=False),
        network=network, recipe=Recipe(**case.backbone), weights_sha256="", data=data, settings=settings,
        seed=0, folder=folder / "run", device=torch.device("cpu"), resume=False,
    )  # fmt: skip


def measure(case: Case, repeats: int) -> figures.Figure:
    """Extract and run the bare encoder in turn, over the same number of images."""
    with tempfile.TemporaryDirectory(prefix="features-") as scratch:
        torch.manual_seed(0)
        job = job_of(case, Path(scratch))
        steps = {"ours": extraction(job), "encoder": encoder(job, case)}
        seconds = figures.interleaved(steps, repeats)
    shares = figures.ratios(seconds["encoder"], seconds["ours"])
    speed = {name: f"{case.images / sorted(values)[len(values) // 2]:.0f}" for name, values in seconds.items()}
    detail = f"ours {speed['ours']} images/s, the bare encoder {speed['encoder']}"
    return figures.of(
        f"feature extraction, share of the encoder's speed, {case.what}", shares, goal=case.goal, detail=detail
    )


def extraction(job: Job) -> Callable[[], object]:
    """Return a call that extracts all features anew."""

    def call() -> object:
        shutil.rmtree(job.folder, ignore_errors=True)
        return cached(job, job.data.train, "train")

    return call


def encoder(job: Job, case: Case) -> Callable[[], object]:
    """Return a call that runs the encoder over as many images, which are all there already."""
    first = torch.stack([job.data.train.image(index) for index in range(case.chunk)])
    size = job.settings.views.size
    batch = job.normalised(first[..., :size, :size]).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def call() -> None:
        for _ in range(case.images // case.chunk):
            job.network(batch)

    return call


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    return figures.finish("features", [measure(case, given.repeats) for case in CASES], threads=given.threads)


if __name__ == "__main__":
    sys.exit(main())
