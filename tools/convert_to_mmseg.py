"""Convert a checkpoint to an MMSegmentation backbone: python tools/convert_to_mmseg.py INPUT OUTPUT.pth"""

import checkout  # noqa: F401
from convert_to_d2 import parser, run

from core.errors import cli

if __name__ == "__main__":
    cli(lambda: run("mmseg", parser("MMSegmentation", ".pth").parse_args()))
