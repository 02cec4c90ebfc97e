"""Write report.md, report.html, report.csv and report.tex from a results folder, and print the main table."""

import argparse
from pathlib import Path

import checkout  # noqa: F401

from core.errors import cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, metavar="RESULTS", help="folder with result.json files, at any depth")
    parser.add_argument("--baseline", metavar="NAME", help="checkpoint to compare with; the suite's own by default")
    parser.add_argument("--out", type=Path, metavar="DIR", help="RESULTS/report by default")
    parser.add_argument(
        "--export", type=Path, metavar="DIR", help="also results as Parquet, CSV, JSON, COCO detections"
    )
    parser.add_argument("--log", metavar="SERVICE", help="also send every trial to mlflow or wandb")
    parser.add_argument("--project", default="", metavar="NAME", help="of --log; the report's title by default")
    given = parser.parse_args()
    from transfer.report import assembly, terminal, write  # here: they load for a second, --help must not

    report = assembly.build(given.results, given.baseline)
    paths = write(report, given.out or given.results / "report")
    if given.export is not None:
        from transfer.report import export

        paths += export.write(report, given.export)
    terminal.show(report, paths)
    if given.log is not None:
        from transfer.report import tracking

        print(f"{tracking.log(report, given.log, given.project)} trial(s) sent to {given.log}")


if __name__ == "__main__":
    cli(main)
