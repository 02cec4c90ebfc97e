"""Make, place and check datasets: shapes, link-coco, coco-to-voc, cifar10, check."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from core.errors import cli
from core.files import datasets_root
from transfer.datasets import Counts, checking, cifar10, coco, coco_to_voc, shapes


def show(found: dict[str, Counts]) -> None:
    """Print one row per dataset and split."""
    table = Table("dataset", "split", "content")
    for name, counts in found.items():
        for split, values in counts.items():
            table.add_row(name, split, ", ".join(f"{number} {what}" for what, number in values.items()))
    Console(width=None if Console().is_terminal else 120).print(table)


def main() -> None:
    """Parse the subcommand, run it and print what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("shapes", help="render the embedded set into ROOT/shapes")
    one.add_argument("root", type=Path, nargs="?", default=datasets_root())
    one = commands.add_parser(
        "link-coco", help="check a COCO folder and place it at FOLDER, as ROOT/coco or ROOT/tiny_coco"
    )
    one.add_argument("source", type=Path)
    one.add_argument("folder", type=Path)
    one.add_argument("--copy", action="store_true", help="copy the files instead of linking the folder")
    one = commands.add_parser("coco-to-voc", help="write a COCO folder as a VOC-layout set of the 20 VOC classes")
    one.add_argument("source", type=Path)
    one.add_argument("folder", type=Path)
    one = commands.add_parser("cifar10", help="unpack a tar of class folders into ROOT/cifar10")
    one.add_argument("archive", type=Path)
    one.add_argument("root", type=Path, nargs="?", default=datasets_root())
    one = commands.add_parser("check", help="check the datasets under ROOT, or one COCO or VOC folder")
    one.add_argument("root", type=Path, nargs="?", default=datasets_root())
    asked = parser.parse_args()
    if asked.command == "shapes":
        folder = shapes.ensure(asked.root)
        show({str(folder): shapes.check(folder)})
    elif asked.command == "link-coco":
        show({str(asked.folder): coco.link(asked.source, asked.folder, copy=asked.copy)})
    elif asked.command == "coco-to-voc":
        show({str(asked.folder): coco_to_voc.convert(asked.source, asked.folder)})
    elif asked.command == "cifar10":
        show({str(asked.root / "cifar10"): cifar10.unpack(asked.archive, asked.root)})
    else:
        show(checking.check(asked.root))


if __name__ == "__main__":
    cli(main)
