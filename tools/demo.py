"""Run the demo: pre-train, convert, detect, segment, and report, on the embedded set; start it again to go on."""

import argparse
import os
from pathlib import Path

import checkout  # noqa: F401

from core.errors import cli

SUITE = Path(__file__).resolve().parent.parent / "configs" / "suites" / "demo.yaml"
JOBS = min(2, os.cpu_count() or 1)  # of one thread each, which is faster than one item on two threads


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, metavar="DIR", help="results folder; results/demo by default")
    return parser


def main() -> int:
    given = parser().parse_args()
    from rich.console import Console  # here, like the others: --help must not wait for them

    from transfer.suite import run as runner
    from transfer.suite import settings as suite

    settings = suite.read(SUITE, [f"launcher.jobs={JOBS}"])
    folder = given.out or settings.folder
    console = Console()
    failed = runner.run(settings, folder, console)
    from transfer.report import assembly, terminal, write

    report = assembly.build(folder)
    paths = write(report, folder / "report")
    terminal.show(report, paths, console)
    console.print(f"\nThe report: {(folder / 'report' / 'report.html').absolute()}", soft_wrap=True)
    return 1 if failed else 0


if __name__ == "__main__":
    cli(main)
