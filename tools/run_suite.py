"""Run everything that a suite file asks for; what is finished is skipped, and a stopped suite goes on where it was."""

import argparse
from pathlib import Path

import checkout  # noqa: F401

from core.errors import cli


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", type=Path, metavar="SUITE", help="for example configs/suites/demo.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over those of the file")
    parser.add_argument("--plan", action="store_true", help="print every item, its cost and its state, and run nothing")
    parser.add_argument("--out", type=Path, metavar="DIR", help="results folder; results/NAME by default")
    parser.add_argument("--jobs", type=int, metavar="N", help="items at a time, that is launcher.jobs=N")
    parser.add_argument(
        "--power", type=float, metavar="GAP", help="only say how many trials a gap of so many points needs"
    )
    parser.add_argument("--spread", type=float, metavar="STD", help="of --power: the one seen so far by default")
    return parser


def main() -> int:
    given = parser().parse_intermixed_args()
    from rich.console import Console  # here, like the others: --help must not wait for them

    from masktransfer import check_pretraining, refused
    from transfer.suite import run
    from transfer.suite import settings as suite

    jobs = [] if given.jobs is None else [f"launcher.jobs={given.jobs}"]
    settings = suite.read(given.suite, [*given.overrides, *jobs])
    folder = given.out or settings.folder
    console = Console()
    if given.power is not None:
        run.print_power(settings, folder, given.power, given.spread, console)
        return 0
    check_pretraining(settings)
    if given.plan:
        run.print_plan(settings, folder, console, refused)
        return 0
    return 1 if run.run(settings, folder, console) else 0


if __name__ == "__main__":
    cli(main)
