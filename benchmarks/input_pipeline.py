"""Measure the input pipeline: decoding and cropping, colour, memory, and its share of a small training step.

    python benchmarks/input_pipeline.py [--repeats 7] [--clock wall|cpu]

On one core, in turn, in this one process, which for kornia's sake runs in ``.tools/peers`` (peers.py): our CPU part (read,
decode, draw, two uint8 crops); the PIL pipeline of the MoCo and MixMask releases, torchvision's v2 transforms on tensors,
and the mere decoding of the same files by libjpeg-turbo, which is also compared on light files of quality 90, where torch's
resize kernels are more of the work. Then colour on the device, memory, and a small set's data part.
"""

import argparse
import gc
import importlib.util
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import peers
import photos
from figures import CLOCKS, Figure, finish, interleaved, of, ratios

if importlib.util.find_spec("kornia") is None:
    python = str(peers.interpreter(*peers.KORNIA))
    os.execv(python, [python, *sys.argv])

import cv2
import kornia
import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torchvision import io as tv_io
from torchvision import transforms as v1
from torchvision.transforms import v2

from core.data.imagefolder import ImageFolder
from core.decoding import Encoded
from pretrain.loader import EpochOrder, Pairs, loader
from pretrain.setup import make_trainer
from pretrain.views import UNITS, ViewSettings, _resize, box_of, colour, colours_of

FILES, BATCH, SIDE = 64, 16, 224
LIGHT = 90  # JPEG quality: half the bytes of ImageNet's files
DECODING_GOAL = 0.6  # of the speed of decoding alone
MANY, WARM = 10_000, 1_000  # images of the memory measurement, and before it begins
SMALL = peers.ROOT / "configs/pretrain/cifar/mocov2_r18w16_1xb64-10ep_cifar10_small.yaml"
VIEWS = ViewSettings(size=SIDE)
JITTER = (VIEWS.brightness, VIEWS.contrast, VIEWS.saturation, VIEWS.hue)
Step = Callable[[], object]


class Cycled(ImageFolder):
    """The files of a folder, over and over, as a set too large to keep."""

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(ImageFolder.Config(root=folder))
        self.count = count

    def __len__(self) -> int:
        return self.count

    def encoded(self, index: int) -> Encoded | None:
        """Read one of the files."""
        return super().encoded(index % len(self.paths))


class PilBlur:
    """Pillow's Gaussian blur with a sigma of 0.1 to 2, as the releases use it."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Blur one image."""
        return image.filter(ImageFilter.GaussianBlur(radius=float(torch.empty(()).uniform_(*VIEWS.blur_sigma))))


def pil_pipeline() -> v1.Compose:
    """Return MoCo v2's augmentation on Pillow images, which MixMask's release shares."""
    return v1.Compose([
        v1.RandomResizedCrop(SIDE, scale=VIEWS.scale),
        v1.RandomApply([v1.ColorJitter(*JITTER)], p=0.8),
        v1.RandomGrayscale(p=0.2),
        v1.RandomApply([PilBlur()], p=0.5),
        v1.RandomHorizontalFlip(),
        v1.ToTensor(),
        v1.Normalize(VIEWS.mean, VIEWS.std),
    ])  # fmt: skip


def v2_colour() -> list[nn.Module]:
    """Return torchvision's v2 form of the changes after the crop, for one uint8 image."""
    return [
        v2.RandomApply([v2.ColorJitter(*JITTER)], p=0.8),
        v2.RandomGrayscale(p=0.2),
        v2.RandomApply([v2.GaussianBlur(13, VIEWS.blur_sigma)], p=0.5),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(VIEWS.mean, VIEWS.std),
    ]


def kornia_colour() -> nn.Module:
    """Return kornia's form of them, for a batch of floats in [0, 1]."""
    return kornia.augmentation.AugmentationSequential(
        kornia.augmentation.ColorJiggle(*JITTER, p=0.8),
        kornia.augmentation.RandomGrayscale(p=0.2),
        kornia.augmentation.RandomGaussianBlur((13, 13), VIEWS.blur_sigma, p=0.5),
        kornia.augmentation.Normalize(torch.tensor(VIEWS.mean), torch.tensor(VIEWS.std)),
    )


def our_steps(folder: Path) -> tuple[dict[str, Step], Step]:
    """Return our CPU part, decoding alone and with torch's kernels, of all files; and ours with colour, of a batch."""
    images = Cycled(folder, MANY)
    pairs = Pairs(images, VIEWS, 0, True)
    files = [path.read_bytes() for path in images.paths]
    boxes = [box_of(375, 500, VIEWS.scale, torch.rand(40).tolist()) for _ in range(2 * len(files))]
    parts = [torch.zeros(1, h, w, 3, dtype=torch.uint8).permute(0, 3, 1, 2) for _, _, h, w in boxes]
    resized = torch.empty(1, SIDE, SIDE, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    epoch = [0]

    def ours() -> None:
        epoch[0] += 1
        for first in range(0, FILES, 32):
            pairs.__getitems__([(epoch[0], index) for index in range(first, first + 32)])

    def ours_with_colour() -> None:
        epoch[0] += 1
        batch = pairs.__getitems__([(epoch[0], index) for index in range(BATCH)])
        for crops, colours in zip(batch.crops, batch.colours, strict=True):
            colour(crops, colours, VIEWS)

    def decode() -> None:
        for data in files:
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)

    def kernels() -> None:
        for number, data in enumerate(files):
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
            _resize(parts[2 * number], [SIDE, SIDE], False, out=resized)
            _resize(parts[2 * number + 1], [SIDE, SIDE], False, out=resized)

    return {"ours": ours, "decode": decode, "kernels": kernels}, ours_with_colour


def their_steps(paths: list[Path]) -> dict[str, Step]:
    """Return the pipelines that we are compared with, each making both views of these files, ready for the network."""
    release = pil_pipeline()
    crop = [v2.RandomResizedCrop(SIDE, VIEWS.scale, antialias=True), v2.RandomHorizontalFlip()]
    modern = v2.Compose([*crop, *v2_colour()])

    def pil() -> list[Tensor]:
        made = []
        for path in paths:
            with open(path, "rb") as file:
                image = Image.open(file).convert("RGB")
            made.append((release(image), release(image)))
        return [torch.stack(view) for view in zip(*made, strict=True)]

    def tensors() -> list[Tensor]:
        made = []
        for path in paths:
            image = tv_io.decode_jpeg(tv_io.read_file(str(path)), tv_io.ImageReadMode.RGB)
            made.append((modern(image), modern(image)))
        return [torch.stack(view) for view in zip(*made, strict=True)]

    return {"pil": pil, "tensors": tensors}


def cpu_figures(folder: Path, kind: str, repeats: int, clock: Callable[[], float]) -> list[Figure]:
    """Measure reading, decoding and cropping."""
    whole, with_colour = our_steps(folder)
    batch = {"all": with_colour, **their_steps(sorted(folder.iterdir())[:BATCH])}
    counts = dict.fromkeys(whole, FILES) | dict.fromkeys(batch, BATCH)
    each = {
        name: [s / counts[name] for s in times] for name, times in interleaved(whole | batch, repeats, clock).items()
    }
    rate = {name: f"{1 / statistics.median(times):.0f}" for name, times in each.items()}
    return [
        of("CPU part of two-view MoCo v2 at 224 px over the releases' PIL pipeline", ratios(each["pil"], each["ours"]),
           goal=4.0, detail=f"{kind}; ours {rate['ours']}, PIL {rate['pil']} images/s on one core"),
        of("CPU part over libjpeg-turbo decoding alone", ratios(each["decode"], each["ours"]), goal=DECODING_GOAL,
           detail=f"the same files; decoding alone {rate['decode']} images/s"),
        of("CPU part over torchvision v2 transforms on tensors", ratios(each["tensors"], each["ours"]),
           detail=f"v2, colour included, {rate['tensors']} images/s on one core"),
        of("CPU part and colour on the same core over the releases' PIL pipeline", ratios(each["pil"], each["all"]),
           detail=f"ours {rate['all']} images/s on one core"),
    ]  # fmt: skip


def light_figure(folder: Path, kind: str, repeats: int, clock: Callable[[], float]) -> Figure:
    """Measure the same on light files."""
    times = interleaved(our_steps(folder)[0], repeats, clock)
    rate = {name: FILES / statistics.median(spent) for name, spent in times.items()}
    added = 1 / rate["ours"] - 1 / rate["decode"]
    detail = (
        f"{kind}; ours {rate['ours']:.0f}, decoding alone {rate['decode']:.0f} images/s; decoding and torch's two resize kernels "
        f"reach {rate['kernels'] / rate['decode']:.2f}; what we add takes {1000 * added:.2f} ms an image, so that "
        f"{DECODING_GOAL} is reached from {1000 * added * DECODING_GOAL / (1 - DECODING_GOAL):.2f} ms of decoding on"
    )
    return of("CPU part over decoding alone, light files", ratios(times["decode"], times["ours"]), detail=detail)


def colour_figures(repeats: int, clock: Callable[[], float]) -> list[Figure]:
    """Measure jitter, gray, blur and normalisation of uint8 crops on this device."""
    generator = torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    theirs, one = kornia_colour(), v2.Compose(v2_colour())

    def ours() -> Tensor:
        return colour(
            crops,
            torch.from_numpy(colours_of(VIEWS, torch.rand(len(crops), UNITS, generator=generator).tolist())),
            VIEWS,
        )

    def separate() -> Tensor:
        return torch.stack([one(crop) for crop in crops])

    steps: dict[str, Step] = {"ours": ours, "kornia": lambda: theirs(crops.float() / 255), "v2": separate}
    times = interleaved(steps, 2 * repeats, clock)  # twice, since what is drawn differs
    rate = {name: f"{BATCH * len(spent) / sum(spent):.0f}" for name, spent in times.items()}
    return [
        of(f"colour of a batch of {BATCH} at 224 px over kornia's", ratios(times["kornia"], times["ours"]),
           detail=f"ours {rate['ours']}, {peers.versions(peers.KORNIA[0])} {rate['kornia']} views/s on one core"),
        of("the same over torchvision v2, image by image", ratios(times["v2"], times["ours"]),
           detail=f"v2 {rate['v2']} views/s on one core"),
    ]  # fmt: skip


def memory_figure(folder: Path) -> Figure:
    """Measure by how much this process and a worker grow while images pass through the data loader."""
    order = EpochOrder(MANY + WARM, 50, 0, 0, 1)
    batches = loader(Pairs(Cycled(folder, MANY + WARM), VIEWS, 0, True), order, 1, pin=False)
    seen, used = 0, []
    iterator = iter(batches)
    workers = [worker.pid for worker in iterator._workers]  # type: ignore[attr-defined]
    for batch in iterator:
        seen += batch.crops.shape[1]
        if seen >= WARM and seen % 500 == 0:
            gc.collect()
            used.append(sum(map(_own_megabytes, [os.getpid(), *workers])))
    growth = [later - used[0] for later in used[1:]]
    half = len(growth) // 2
    return Figure(
        f"memory growth over {MANY} images in the data loader", sum(growth[half:]) / len(growth[half:]), min(growth),
        max(growth), 1, unit="MB", goal=20.0, sense="at most",
        detail=f"mean of the last half; anonymous memory of the process and its worker, {used[0]:.0f} MB at first",
    )  # fmt: skip


def _own_megabytes(process: int) -> float:
    """Return a process's memory in MB, without files and the shared memory in which batches travel: that is bounded."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024 / 1e6


def small_set_figures(folder: Path, repeats: int, clock: Callable[[], float]) -> list[Figure]:
    """Measure what data costs of a step on 32-px images that stay in memory, with all threads."""
    photos.write(folder / "train" / "some", 640, 95, (32, 32))
    changed = [f"data.root={folder}", f"run.folder={folder / 'run'}", "run.device=cpu", "train.epochs=1000"]
    trainer = make_trainer(SMALL, [*changed, "monitor.every=0", "train.workers=0"])
    trainer._prepare()
    data, with_colour = [], []
    for epoch in range(repeats + 1):
        trainer.order.epoch, spent, whole, colours = epoch, 0.0, 0.0, 0.0
        batches = iter(loader(trainer.pairs, trainer.order, 0, pin=False))
        for _ in range(trainer.order.steps):
            began = clock()
            batch = next(batches)
            spent += clock() - began
            trainer._step(batch)
            whole += clock() - began
            trainer.step += 1
            began = clock()
            trainer._views(batch)
            colours += clock() - began
        if epoch:  # the first one decodes
            data.append(100 * spent / whole)
            with_colour.append(100 * (spent + colours) / whole)
    name = "of a step on a 32-px set in memory (MoCo v2, slim ResNet-18, batch 64)"
    return [
        of(f"share of the data part {name}", data, unit="%", goal=5.0, sense="at most"),
        of(f"share of the data part and colour {name}", with_colour, unit="%"),
    ]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    arguments = parser.parse_args()
    clock, threads = CLOCKS[arguments.clock], torch.get_num_threads()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kind, light = photos.write(folder / "large", FILES), photos.write(folder / "light", FILES, LIGHT)
        torch.set_num_threads(1)
        figures = cpu_figures(folder / "large", kind, arguments.repeats, clock)
        figures.insert(2, light_figure(folder / "light", light, arguments.repeats, clock))
        figures += colour_figures(arguments.repeats, clock)
        figures.append(memory_figure(folder / "large"))
        torch.set_num_threads(threads)
        figures += small_set_figures(folder / "small", arguments.repeats, clock)
    return finish("input_pipeline", figures, files=kind)


if __name__ == "__main__":
    sys.exit(main())
