"""Write the cost model of a 200-epoch ImageNet run into docs/scaling.md: MoCo v2 + MixMask, ResNet-50, on 1, 8 and 64 GPUs.

    python benchmarks/cost_model.py [--tflops 50] [--nvlink 150] [--network 20] [--pcie 20] [--rate IMAGES_PER_SECOND_PER_CORE]

Counted here: FLOPs (fvcore, on the real network), parameters, bytes that cross a link (from shapes). Measured: images a
second a core (``benchmarks/results/scaling.json``). Assumed: what a GPU and its links sustain; change them by the options.
"""

import argparse
import json
import re
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import figures
import torch
from fvcore.nn import FlopCountAnalysis

from core import backbones
from core.backbones.resnet import ResNet
from pretrain.heads import Encoder, mlp

PAGE = figures.ROOT / "docs" / "scaling.md"
MARKS = ("<!-- written by benchmarks/cost_model.py -->", "<!-- end -->")
IMAGES, EPOCHS, SIDE, DIM, QUEUE = 1_281_167, 200, 224, 128, 65_536
JPEG_BYTES = 110_000  # of an average ImageNet file: 138 GB by 1.28 million
FORWARDS = 2 * 3 + 1  # two query forwards with their backward passes, which cost twice a forward, and one of the keys
LAYOUTS = ((1, 256), (8, 32), (64, 32))  # GPUs, images each


class Links(NamedTuple):
    """What is assumed: a GPU's sustained TFLOP/s, and GB/s in a node, between nodes, and from the host, a GPU."""

    tflops: float = 50.0
    nvlink: float = 150.0
    network: float = 20.0
    pcie: float = 20.0


class Counts(NamedTuple):
    """FLOPs of one image's forward pass, and the number of trained parameters."""

    forward: float
    parameters: int


class Step(NamedTuple):
    """One step on one GPU: FLOPs, bytes by kind, and seconds by kind, nothing overlapped."""

    flops: float
    bytes: dict[str, float]
    seconds: dict[str, float]


def counted() -> Counts:
    """Count on the real query encoder; fvcore counts a multiplication and its addition as one, we as two."""
    backbone = backbones.build(ResNet.Config(name="resnet", depth=50, width=64))
    encoder = Encoder(backbone, mlp(backbone.feature_dim, backbone.feature_dim, DIM)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        operations = FlopCountAnalysis(encoder, torch.zeros(1, 3, SIDE, SIDE))
        total = operations.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
    return Counts(2.0 * total, sum(parameter.numel() for parameter in encoder.parameters()))


def step(gpus: int, batch: int, counts: Counts, links: Links) -> Step:
    """Return what a step of ``batch`` images a GPU costs one GPU; all bytes are those that it receives."""
    logits = 2 * 2 * DIM * QUEUE * 2  # two queries against the queue, and back to the queries alone
    flops = batch * (FORWARDS * counts.forward + logits)
    others = (gpus - 1) / gpus
    moved = {
        # two uint8 crops and their colour changes, and a mask
        "from the host": batch * (2.0 * (3 * SIDE * SIDE + 8 * 4) + SIDE * SIDE),
        "gradients": 2 * others * counts.parameters * 4.0,  # all-reduced around a ring
        "key images": others * batch * 3 * SIDE * SIDE * 4.0,  # exchanged to be shuffled (MoCo, sec. 3.3)
        "keys": (others + gpus - 1) * batch * DIM * 4.0,  # exchanged back into order, and gathered for the queue
    }
    link = links.nvlink if gpus <= 8 else links.network
    seconds = {name: value / (link * 1e9) for name, value in moved.items()}
    seconds["from the host"] = moved["from the host"] / (links.pcie * 1e9)
    return Step(flops, moved, {"arithmetic": flops / (links.tflops * 1e12), **seconds})


def rate(results: Path = figures.RESULTS) -> tuple[float, str]:
    """Return images a second that one core makes two views of, as measured here, and where that comes from.

    That is the input pipeline's own measurement on photographs; without it the one of ``scaling.py``.
    """
    pipeline, scaling = (results / f"{name}.json" for name in ("input_pipeline", "scaling"))
    if pipeline.exists():
        content = json.loads(pipeline.read_text())
        if found := re.search(r"ours ([\d,]+)[^;]* images/s on one core", content["figures"][0]["detail"]):
            return float(found[1].replace(",", "")), f"{pipeline.stem}.py, {content['environment']['processor']}"
    if not scaling.exists():
        raise SystemExit(f"neither {pipeline} nor {scaling}: run python benchmarks/scaling.py first, or give --rate")
    content = json.loads(scaling.read_text())
    return content["images_per_second"]["data"], f"{scaling.stem}.py, {content['environment']['processor']}"


def table(counts: Counts, links: Links, images_per_core: float, source: str) -> str:
    """Return the model as Markdown."""
    lines = [
        "**A model, not a measurement: nothing of it was run on a GPU.** Counted: "
        f"{counts.forward / 1e9:.2f} GFLOP an image and forward (a multiplication and an addition are two), "
        f"{counts.parameters / 1e6:.2f} million parameters. Measured: {images_per_core:.0f} images a second a core, two views "
        f"each ({source}). Assumed: a GPU sustains {links.tflops:g} TFLOP/s; {links.nvlink:g} GB/s between the GPUs of a node, "
        f"{links.network:g} GB/s a GPU between nodes, {links.pcie:g} GB/s from the host.",
        "",
    ]
    layouts = [(gpus, batch, step(gpus, batch, counts, links)) for gpus, batch in LAYOUTS]
    rows: list[list[str]] = [["GPUs", *(str(gpus) for gpus, _, _ in layouts)], ["---"] * (len(layouts) + 1)]
    rows.append(["images a step and GPU (all)", *(f"{batch} ({gpus * batch:,})" for gpus, batch, _ in layouts)])
    rows.append(["TFLOP a step and GPU", *(f"{one.flops / 1e12:.2f}" for *_, one in layouts)])
    for name in layouts[0][2].bytes:
        rows.append([f"MB a step and GPU: {name}", *(f"{one.bytes[name] / 1e6:,.1f}" for *_, one in layouts)])
    for name in layouts[0][2].seconds:
        rows.append([f"ms a step: {name}", *(f"{1000 * one.seconds[name]:,.1f}" for *_, one in layouts)])
    whole = [sum(one.seconds.values()) for *_, one in layouts]
    rows.append(["ms a step, nothing overlapped", *(f"{1000 * seconds:,.1f}" for seconds in whole)])
    speeds = [gpus * batch / seconds for (gpus, batch, _), seconds in zip(layouts, whole, strict=True)]
    rows.append(["images a second", *(f"{speed:,.0f}" for speed in speeds)])
    rows.append([f"hours for {EPOCHS} epochs", *(f"{IMAGES * EPOCHS / speed / 3600:,.1f}" for speed in speeds)])
    share = [speed / gpus / speeds[0] for (gpus, _, _), speed in zip(layouts, speeds, strict=True)]
    rows.append(["speed a GPU, of one alone", *(f"{100 * part:.0f} %" for part in share)])
    fed = [speed / gpus / images_per_core for (gpus, _, _), speed in zip(layouts, speeds, strict=True)]
    rows.append(["cores a GPU needs to be fed", *(f"{cores:.1f}" for cores in fed)])
    rows.append(["read from storage, MB/s", *(f"{speed * JPEG_BYTES / 1e6:,.0f}" for speed in speeds)])
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def main() -> int:
    """Count, and replace the model in the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in Links()._asdict().items():
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--rate", type=float, help="images a second a core; as measured by default")
    parser.add_argument("--out", type=Path, default=PAGE)
    given = parser.parse_args()
    links = Links(*(getattr(given, name) for name in Links._fields))
    images_per_core, source = (given.rate, "as given") if given.rate else rate()
    written = table(counted(), links, images_per_core, source)
    page = given.out.read_text()
    start, end = MARKS
    assert page.count(start) == page.count(end) == 1, f"{given.out} must have the lines {start} and {end}"
    given.out.write_text(re.sub(f"{start}.*{end}", lambda _: f"{start}\n{written}\n{end}", page, flags=re.S))
    print(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
