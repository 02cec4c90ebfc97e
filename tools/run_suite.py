"""Run everything that a suite file asks for; what is finished is skipped, and a stopped suite goes on where it was."""

import argparse
from pathlib import Path

from rich.console import Console

from core.errors import cli
from transfer import runner, suite


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", type=Path, metavar="SUITE", help="for example configs/suites/demo.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over those of the file")
    parser.add_argument("--plan", action="store_true", help="print every item and whether it is done, and run nothing")
    parser.add_argument("--out", type=Path, metavar="DIR", help="results folder; results/NAME by default")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runners that share the work (default: 1)")
    given = parser.parse_intermixed_args()
    settings = suite.read(given.suite, given.overrides)
    folder = given.out or settings.folder
    console = Console()
    if given.plan:
        runner.print_plan(settings, folder, console)
        return 0
    with runner.partners(given.jobs - 1, given.suite, given.overrides, folder):
        failed = runner.run(settings, folder, console)
    return 1 if failed else 0


if __name__ == "__main__":
    cli(main)
