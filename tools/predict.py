"""Draw what a finished trial's network finds: python tools/predict.py RUN_OR_MODEL IMAGE ... --out DIR"""

import argparse
from pathlib import Path

import checkout  # noqa: F401

from core.errors import cli


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "run", type=Path, metavar="RUN_OR_MODEL", help="a trial's folder, or the checkpoint it ended with"
    )
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the pictures")
    parser.add_argument(
        "--score", type=float, default=0.3, metavar="S", help="draw no detection below it (default: 0.3)"
    )
    return parser


def main() -> None:
    """Draw the detections or the segmentation of each image, and print the pictures' paths."""
    given = parser().parse_intermixed_args()
    from transfer.frameworks import _predict  # here: --help must not wait

    for path in _predict.draw(given.run, given.images, given.out, given.score):
        print(path)


if __name__ == "__main__":
    cli(main)
