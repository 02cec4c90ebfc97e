"""Convert a checkpoint for any framework: python tools/convert.py INPUT OUTPUT --target torchvision"""

import argparse

import checkout  # noqa: F401
from convert_to_d2 import parser, run

from core.errors import cli


def arguments() -> argparse.Namespace:
    """Add the target to what all converters share."""
    shared = parser("any framework", "what the target reads: .pkl, .pth, .safetensors")
    shared.add_argument("--target", required=True, metavar="NAME", help="a row of transfer/convert/targets.py")
    return shared.parse_args()


def main() -> None:
    """Convert for the target that was named."""
    parsed = arguments()
    run(parsed.target, parsed)


if __name__ == "__main__":
    cli(main)
