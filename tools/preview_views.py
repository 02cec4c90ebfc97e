"""Draw what a config's branches do to images: python tools/preview_views.py CONFIG [key=value ...] --out views.png"""

import argparse
from pathlib import Path

import checkout  # noqa: F401

from core.errors import cli


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="a file of configs/pretrain/")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--out", type=Path, default=Path("views.png"), help="PNG to write (default: views.png)")
    parser.add_argument("--images", type=int, default=2, help="images side by side (default: 2)")
    parser.add_argument("--side", type=int, default=96, help="pixels a picture (default: 96)")
    return parser


def main() -> None:
    """Render the contact sheet and print its path."""
    arguments = parser().parse_intermixed_args()

    from core import config
    from core.files import replacing
    from pretrain.config import PretrainSettings
    from pretrain.preview import contact_sheet
    from pretrain.setup import build_parts

    settings = config.parse(PretrainSettings, config.load(arguments.config, arguments.overrides), arguments.config)
    objective, pairs = build_parts(settings)
    sheet = contact_sheet(objective, pairs, settings.views, arguments.images, arguments.side)
    with replacing(arguments.out) as file:
        sheet.save(file, format="PNG")
    print(arguments.out)


if __name__ == "__main__":
    cli(main)
