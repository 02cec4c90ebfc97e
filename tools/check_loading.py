"""Tell whether a framework's model holds a checkpoint's backbone: python tools/check_loading.py MODULE:BUILD FILE"""

import argparse
import importlib
import sys
from pathlib import Path

import checkout  # noqa: F401

from core.errors import InputError, cli


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "build", metavar="MODULE:BUILD", help="a function without arguments that returns the built model"
    )
    parser.add_argument("file", help="the checkpoint that it should hold: a path or an address")
    parser.add_argument("--source", default="auto", help="dialect of the checkpoint (default: found from its content)")
    parser.add_argument("--arch", default="auto", help="the network in it, such as resnet50 or a name of timm's")
    return parser


def main() -> int:
    """Build, compare tensors and features, print; 0 when all of the file is in the model, 1 when not."""
    given = parser().parse_args()
    from transfer.convert import load_check

    sys.path.insert(0, str(Path.cwd()))
    module, colon, name = given.build.partition(":")
    try:
        build = getattr(importlib.import_module(module), name, None) if colon else None
    except ImportError as error:
        raise InputError(f"{given.build}: {error}; start from the folder that the module is in") from error
    if not callable(build):
        raise InputError(f"{given.build} names no function; write MODULE:BUILD, as in my_package.models:build")
    lines, whole = load_check.inside(build(), given.file, given.source, given.arch)
    print("\n".join(lines))
    return 0 if whole else 1


if __name__ == "__main__":
    cli(main)
