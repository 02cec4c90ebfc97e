"""Convert a checkpoint to a Detectron2 backbone: python tools/convert_to_d2.py INPUT OUTPUT.pkl"""

import argparse
from pathlib import Path
from typing import Any

import checkout  # noqa: F401

from core.errors import cli


def parser(target: str = "Detectron2", suffixes: str = ".pkl or .pth") -> argparse.ArgumentParser:
    """Describe the command line that all converters share."""
    parser = argparse.ArgumentParser(description=f"Carry a backbone into {target} and prove that every tensor arrived.")
    parser.add_argument("input", type=Path, help="checkpoint of any known source: a path or an address")
    parser.add_argument("output", type=Path, help=f"file to write, ending in {suffixes}")
    parser.add_argument(
        "--source",
        default="auto",
        help="dialect of the checkpoint (default: found from its content); plain:PREFIX picks one of several backbones",
    )
    parser.add_argument("--arch", default="auto", help="refuse anything but this network, e.g. resnet50, convnext-tiny")
    parser.add_argument("--json", type=Path, metavar="PROOF", help="also write the proof here")
    parser.add_argument("--show", action="store_true", help="print a table of stages and what was dropped")
    return parser


def run(target: str, arguments: argparse.Namespace, **card: Any) -> None:
    """Convert, print what was proven, and write the proof if asked; ``card`` is what only a model card needs."""
    from core.files import write_json
    from transfer.convert.convert import table
    from transfer.report.card import convert

    asked = {"target": target, "dialect": arguments.source, "arch": arguments.arch}
    proof = convert(arguments.input, arguments.output, **asked, **card)
    print(
        f"{arguments.output}: {proof.arch} from {proof.source}, {proof.tensors_mapped} of {proof.tensors_expected} tensors"
    )
    if arguments.show:
        print(table(proof))
    else:
        for stage, difference in proof.max_abs_feature_difference.items():
            print(f"  {stage}: features differ by {difference:.1e} at most")
    for note in proof.notes:
        print(f"  note: {note}")
    if arguments.json:
        write_json(arguments.json, proof.to_dict())


def main() -> None:
    """Convert for Detectron2."""
    run("detectron2", parser().parse_args())


if __name__ == "__main__":
    cli(main)
