"""Convert a checkpoint to an MMSegmentation backbone: python tools/convert_to_mmseg.py INPUT OUTPUT.pth"""

import argparse

import checkout  # noqa: F401
import convert_to_d2

from core.errors import cli


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    return convert_to_d2.parser("MMSegmentation", ".pth")


def main() -> None:
    """Convert for MMSegmentation."""
    convert_to_d2.run("mmseg", parser().parse_args())


if __name__ == "__main__":
    cli(main)
