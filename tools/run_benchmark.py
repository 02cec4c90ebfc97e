"""Measure one checkpoint on one benchmark, once: convert, fine-tune, test, and write DIR/result.json."""

import argparse
from pathlib import Path

from core import plugins
from core.errors import cli
from transfer import process
from transfer.trial import Description, run_trial


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--benchmark", required=True, help=", ".join(plugins.names("transfer.benchmarks")))
    parser.add_argument("--trial", type=int, default=0, help="counts from 0 and sets the seed")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of this one trial")
    parser.add_argument("--source", default="auto", help="the checkpoint's dialect; found from its tensors by default")
    parser.add_argument("--label", default="", help="what reports call the benchmark; its name by default")
    parser.add_argument("--name", default="", help="what reports call the checkpoint; its file name by default")
    parser.add_argument("--method", default="", help="pre-training method, if the file does not say")
    parser.add_argument("--branches", default="", help="its branches, separated by commas")
    parser.add_argument("--notes", default="")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="the rest goes to the framework")
    given = parser.parse_args()
    branches = tuple(filter(None, given.branches.split(",")))
    description = Description(given.name, given.method, branches, given.notes)
    with process.sigterm_ends_cleanly():
        result = run_trial(
            given.checkpoint,
            given.benchmark,
            given.trial,
            given.out,
            description,
            options=given.options,
            dialect=given.source,
            label=given.label,
        )
    for name, value in result.metrics.items():
        print(f"{name:>24} {'no value' if value is None else f'{value:8.2f}'}")
    print(f"{given.out / 'result.json'}")


if __name__ == "__main__":
    cli(main)
