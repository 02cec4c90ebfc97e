"""Write report.md, report.html, report.csv and report.tex from a results folder or a packed file, and print the main table."""

import argparse
from pathlib import Path

import checkout  # noqa: F401

from core.errors import cli


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("results", type=Path, metavar="RESULTS", help="folder with result.json files at any depth, or a packed file")
    add("other", type=Path, metavar="OTHER", nargs="?", help="only compare RESULTS with these newer ones, cell by cell")
    add("--baseline", metavar="NAME", help="checkpoint to compare with; the suite's own by default")
    add("--out", type=Path, metavar="DIR", help="RESULTS/report by default, ./report for a packed file")
    add("--export", type=Path, metavar="DIR", help="also results as Parquet, CSV, JSON, COCO detections")
    add("--figures", type=Path, metavar="DIR", help="also figures for a paper as PDF, SVG and PNG")
    add("--page", type=Path, metavar="PAGE.md", help="also the numbers of a page's own tables (docs/report.md)")
    add(
        "--pack",
        type=Path,
        metavar="FILE",
        help="only pack what reports need, pictures aside, into FILE.jsonl or .jsonl.gz",
    )
    add(
        "--power",
        type=float,
        metavar="GAP",
        help="only say how many trials and device-hours a gap of so many points needs",
    )
    add(
        "--spread",
        type=float,
        metavar="STD",
        help="of --power: the trials' standard deviation; the one seen by default",
    )
    add("--log", metavar="SERVICE", help="also send every trial to mlflow or wandb")
    add("--project", default="", metavar="NAME", help="of --log; the report's title by default")
    return parser


def main() -> None:
    given = parser().parse_intermixed_args()
    from transfer import results  # here, and below: they load for a second, --help must not

    if given.pack is not None:
        print(f"{results.pack(given.results, given.pack)} files packed into {given.pack}")
        return
    with results.opened(given.results) as folder, results.opened(given.other or Path()) as other:
        if given.other is not None:
            compare(given, folder, other)
        else:
            write(given, folder)


def compare(given: argparse.Namespace, folder: Path, other: Path) -> None:
    """Print what changed between two folders, and write it where asked to."""
    from transfer.report import assembly, comparison

    before = assembly.build(folder, given.baseline, given.results)
    after = assembly.build(other, given.baseline, given.other)
    print("\n".join(comparison.lines(before, after)))
    if given.out is not None:
        print(comparison.write(before, after, given.out))


def write(given: argparse.Namespace, folder: Path) -> None:
    """Write what was asked for."""
    from transfer.report import assembly, export, markdown, paper, terminal, write

    report = assembly.build(folder, given.baseline, given.results)
    if given.power is not None:
        terminal.needs(report, given.power, given.spread)
        return
    paths = write(report, given.out or (folder if folder is given.results else Path()) / "report")
    if given.export is not None:
        paths += export.everything(report, given.export)
    if given.figures is not None:
        paths += paper.figures(report, given.figures)
    if given.page is not None:
        markdown.refill(report, given.page)
        paths.append(given.page)
    terminal.show(report, paths)
    if given.log is not None:
        print(f"{export.log(report, given.log, given.project)} trial(s) sent to {given.log}")


if __name__ == "__main__":
    cli(main)
