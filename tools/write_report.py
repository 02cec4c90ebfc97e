"""Write report.html, report.md, report.csv and report.tex from a results folder, and print the main table."""

import argparse
from pathlib import Path

from core.errors import cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, metavar="RESULTS", help="folder with result.json files, at any depth")
    parser.add_argument("--baseline", metavar="NAME", help="checkpoint to compare with; the suite's own by default")
    parser.add_argument("--out", type=Path, metavar="DIR", help="RESULTS/report by default")
    given = parser.parse_args()
    from transfer.report import assembly, terminal, write  # here: SciPy loads for a second, --help must not

    report = assembly.build(given.results, given.baseline)
    paths = write(report, given.out or given.results / "report")
    terminal.show(report, paths)


if __name__ == "__main__":
    cli(main)
