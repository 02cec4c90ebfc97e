"""Measure one checkpoint on one benchmark, once: convert, fine-tune, test, and write DIR/result.json."""

import argparse
import re
from pathlib import Path

import checkout  # noqa: F401

from core.errors import cli

BENCHMARKS = Path(__file__).resolve().parent.parent / "transfer" / "benchmarks"


def default_folder(checkpoint: Path, benchmark: str, trial: int, options: list[str]) -> Path:
    """Return ``results/BENCHMARK/CHECKPOINT--trialN``, with the file's sha256 and what departs from the protocol."""
    from core import files

    digest = files.sha256(checkpoint)[:8] if checkpoint.is_file() else ""
    marks = "".join(f"--{re.sub(r'[^A-Za-z0-9.=,]+', '-', option.strip('-'))}" for option in options)
    return Path("results") / benchmark / f"{checkpoint.stem}-{digest}--trial{trial}{marks}"


def benchmarks() -> list[str]:
    """List the benchmarks by their files (``core.plugins`` would do it by an import that --help must not wait for)."""
    return sorted(path.stem for path in BENCHMARKS.glob("[!_]*.py"))


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--benchmark", required=True, help=", ".join(benchmarks()))
    parser.add_argument("--trial", type=int, default=0, help="counts from 0 and sets the seed")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of this one trial; by default below results/")
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help="devices; without a GPU, processes")
    parser.add_argument(
        "--tiny", nargs="?", const="shapes", default="", metavar="DATA",
        help="a smoke run of a few iterations on the embedded set, or on a folder in COCO or VOC layout",
    )  # fmt: skip
    parser.add_argument(
        "--lr-sweep",
        default="",
        metavar="F,F,...",
        help="choose among these factors of the lr on held-out training images",
    )
    parser.add_argument("--source", default="auto", help="the checkpoint's dialect; found from its tensors by default")
    parser.add_argument("--label", default="", help="what reports call the benchmark; its name by default")
    parser.add_argument("--name", default="", help="what reports call the checkpoint; its file name by default")
    parser.add_argument("--method", default="", help="pre-training method, if the file does not say")
    parser.add_argument("--branches", default="", help="its branches, separated by commas")
    parser.add_argument("--notes", default="")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="the rest goes to the framework")
    return parser


def main() -> None:
    """Parse, measure, and print the metrics and where the result is."""
    given = parser().parse_args()
    from transfer.suite import lr_sweep, process  # here: --help must not wait
    from transfer.suite.trial import Departure, Description, run_trial

    branches = tuple(filter(None, given.branches.split(",")))
    description = Description(given.name, given.method, branches, given.notes)
    factors = lr_sweep.parse(given.lr_sweep) if given.lr_sweep else ()
    departure = Departure(given.num_gpus, given.tiny, factors)
    folder = given.out or default_folder(given.checkpoint, given.benchmark, given.trial, departure.options())
    with process.sigterm_ends_cleanly():
        result = run_trial(
            given.checkpoint,
            given.benchmark,
            given.trial,
            folder,
            description,
            options=given.options,
            dialect=given.source,
            label=given.label,
            departure=departure,
        )
    shown = {
        name: value for name, value in result.metrics.items() if name in result.protocol.metrics or "-" not in name
    }
    for name, value in shown.items():  # the classes' own scores are in the file
        print(f"{name:>24} {'no value' if value is None else f'{value:8.2f}'}")
    print(f"{folder / 'result.json'}")


if __name__ == "__main__":
    cli(main)
