"""Time the conversion of a ResNet-50 to each framework, with its proof, once everything is imported.

    python benchmarks/conversion.py [--repeats 3]

A proof compares every tensor and the features of both networks. The checkpoint is ours, with random weights, on the disk.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import figures

from transfer.convert import convert, random_init

GOAL = 5.0  # seconds
TARGETS = {"detectron2": ".pkl", "mmseg": ".pth", "torchvision": ".pth", "timm": ".pth"}
TENSORS = 265  # of a ResNet-50: 53 convolutions, and four tensors of each of 53 norms


def converted(source: Path, target: str) -> Callable[[], object]:
    """Return a call that converts ``source`` to ``target`` and refuses a proof with anything missing."""

    def call() -> object:
        proof = convert.convert(source, source.with_name(f"{target}{TARGETS[target]}"), target=target)
        assert proof.tensors_mapped == proof.tensors_expected == TENSORS, proof.tensors_mapped
        return proof

    return call


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory(prefix="conversion-") as scratch:
        source = Path(scratch) / "source.pth"
        random_init.make(source, {"name": "resnet", "depth": 50, "width": 64, "stem": "imagenet"}, 0)
        seconds = figures.interleaved({target: converted(source, target) for target in TARGETS}, repeats)
    return figures.finish(
        "conversion",
        [
            figures.of(f"ResNet-50 converted to {target} and proven", values, unit="s", goal=GOAL, sense="at most")
            for target, values in seconds.items()
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
