"""Measure a backbone by classification: python tools/train_classifier.py CONFIG --weights FILE --work-dir DIR"""

import argparse
from pathlib import Path

import checkout  # noqa: F401

from core.errors import cli


def parser() -> argparse.ArgumentParser:
    """Describe the command line; ``key=value`` pairs override the config."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="a config below configs/transfer/classification")
    parser.add_argument(
        "--weights",
        type=Path,
        required=True,
        help="backbone, from tools/convert.py --target classification: a path or an address",
    )
    parser.add_argument("--work-dir", "--out", type=Path, required=True, help="where everything is written")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the work folder")
    parser.add_argument(
        "--checkpoint-minutes", type=float, default=10.0, metavar="M", help="save at least so often (0: by epochs)"
    )
    parser.add_argument(
        "--data", default="", metavar="FOLDER", help="your own class folders in place of the config's data"
    )
    parser.add_argument(
        "--tiny", nargs="?", const="shapes", default="", metavar="DATA",
        help="a smoke run of two epochs on the embedded set, on your class folders, or for SVMs on a folder in VOC layout",
    )  # fmt: skip
    parser.add_argument("--skip-bad", action="store_true", help="leave out images that cannot be decoded")
    parser.add_argument("options", nargs="*", metavar="key=value", help="override config values, e.g. task.epochs=10")
    return parser


def main() -> None:
    """Parse, then import and run."""
    arguments = parser().parse_intermixed_args()
    from transfer.frameworks.classification.run import run  # here: torch loads for seconds, --help must not

    run(**vars(arguments))


if __name__ == "__main__":
    cli(main)
