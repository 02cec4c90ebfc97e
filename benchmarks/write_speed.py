"""Write docs/speed.md, the table of all speed measurements, from ``benchmarks/results/*.json``.

python benchmarks/write_speed.py [RESULTS] [--out PAGE]
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import figures

PAGE = figures.ROOT / "docs" / "speed.md"
ORDER = (
    "input_pipeline", "pretrain_step", "coco_evaluation", "features", "wrappers", "start_up", "report_scale", "conversion",
    "gpu_step", "scaling",
)  # fmt: skip
HEAD = """# Speed

`make bench` measures all of this in about 20 minutes and writes this page; a figure that is missed ends it with an error.
A ratio says how many times faster the first is than the second; both ran in one process or in alternating processes on
the same machine, in turn. Values are medians, with the least and the most of the repeats. *met*: the goal is reached;
*limit*: it is not, and a measurement below the table says why; *missed*: neither. Compared packages are run, not quoted.
[scaling.md](scaling.md) models what was not run: GPUs.
"""
COLUMNS = ("what", "value", "least to most", "repeats", "goal", "verdict", "measured by")


def main() -> int:
    """Write the page and print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=figures.RESULTS)
    parser.add_argument("--out", type=Path, default=PAGE)
    given = parser.parse_args()
    given.out.write_text(page(read(given.results)))
    print(given.out)
    return 0


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the measurements that ``figures.finish`` wrote, in the order of the table; other files are left out."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    found = [content for content in found if isinstance(content, dict) and "figures" in content]
    rank = {name: place for place, name in enumerate(ORDER)}
    return sorted(found, key=lambda content: (rank.get(content["benchmark"], len(rank)), content["benchmark"]))


def page(measured: Sequence[dict[str, Any]]) -> str:
    """Return the page."""
    rows = [(content, figure) for content in measured for figure in content["figures"]]
    lines = [HEAD, hardware(measured), "", line(COLUMNS), line(["---"] * len(COLUMNS))]
    lines += [line(cells(content, figure)) for content, figure in rows]
    for title, key, marks in (
        ("## Why a goal is not reached here", "limit", ("limit",)),
        ("## Behind the numbers", "detail", ("met", "limit", "missed", "")),
    ):
        notes = [
            f"- **{plain(figure['what'])}**: {plain(figure[key])}"
            for _, figure in rows
            if figure[key] and figure["verdict"] in marks
        ]
        lines += ["", title, "", *notes] if notes else []
    return "\n".join(lines) + "\n"


def cells(content: dict[str, Any], figure: dict[str, Any]) -> list[str]:
    """Return a figure's row."""
    unit = figure["unit"]
    goal = "" if figure["goal"] is None else f"{figure['sense']} {number(figure['goal'], unit)}"
    spread = f"{number(figure['least'], unit)} to {number(figure['most'], unit)}"
    command = f"`{content['command'].removeprefix('python ')}`"
    value, verdict = number(figure["value"], unit), f"**{figure['verdict']}**" if figure["verdict"] else ""
    return [plain(figure["what"]), value, spread, str(figure["repeats"]), goal, verdict, command]


def hardware(measured: Sequence[dict[str, Any]]) -> str:
    """Return one line for every machine and software that was measured on, with what was measured there."""
    machines: dict[str, list[str]] = {}
    for content in measured:
        about = content["environment"]
        versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items() if version)
        told = (
            f"{about['cores']} cores of {about['processor']}, {about['platform']}, Python {about['python']}, {versions}"
        )
        machines.setdefault(told, []).append(f"{content['benchmark']} ({content['date']})")
    return "\n".join(f"Measured on {told}: {', '.join(names)}." for told, names in machines.items()) or "Nothing yet."


def number(value: float, unit: str) -> str:
    """Write a value with its unit; whole numbers from 100 on, else three digits."""
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text}×" if unit == "x" else f"{text} {unit}"


def plain(text: str) -> str:
    """Keep text from being read as Markdown's tables."""
    return text.replace("|", "\\|").replace("\n", " ")


def line(parts: Sequence[str]) -> str:
    """Return a table's line."""
    return "| " + " | ".join(parts) + " |"


if __name__ == "__main__":
    sys.exit(main())
