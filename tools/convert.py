"""Convert a checkpoint for any framework: python tools/convert.py INPUT OUTPUT --target torchvision"""

import argparse
from pathlib import Path

import checkout  # noqa: F401
import convert_to_d2

from core.errors import cli


def parser() -> argparse.ArgumentParser:
    """Add the target to what all converters share."""
    shared = convert_to_d2.parser("any framework", "what the target reads: .pkl, .pth, .safetensors; a folder for hf")
    shared.add_argument("--target", required=True, metavar="NAME", help="a row of transfer/convert/targets.py")
    shared.add_argument(
        "--results", nargs="+", type=Path, default=[], metavar="PATH",
        help="of --target hf: results folders or files, whose evaluation of this checkpoint goes into the model card",
    )  # fmt: skip
    shared.add_argument(
        "--license", default="", metavar="ID", help="of --target hf: of the weights, such as apache-2.0"
    )
    return shared


def main() -> None:
    """Convert for the target that was named."""
    parsed = parser().parse_args()
    convert_to_d2.run(parsed.target, parsed, results=parsed.results, license=parsed.license)


if __name__ == "__main__":
    cli(main)
