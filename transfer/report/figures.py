"""Figures for papers: differences to the baseline, accuracy against cost, ranks, as PDF, SVG and PNG by matplotlib."""

import importlib
import math
import re
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.files import replacing
from transfer.report import charts, cost, wording
from transfer.report.model import Report, short, signed
from transfer.report.statistics import Difference

FORMS = ("pdf", "svg", "png")
COLOURS = ("#4d5863", "#0072b2", "#d55e00", "#008761", "#b8558c", "#8f6b00", "#3b7fc9", "#171c21")  # those of the page
MARKERS = "so^D"


def write(report: Report, folder: Path) -> list[Path]:
    """Write every figure that the report has numbers for into ``folder``; return the files."""
    if folder.is_file():
        raise InputError(f"{folder} is a file; give --figures a folder")
    matplotlib: Any = importlib.import_module("matplotlib")  # here: a second that other forms need not wait for
    figure: Any = importlib.import_module("matplotlib.figure")
    paths = []
    style = {
        "font.size": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "pdf.fonttype": 42,
        "svg.hashsalt": "report",
    }
    with matplotlib.rc_context(style):
        for name, draw, height in _drawn(report):
            drawn = figure.Figure(figsize=(3.4, height), layout="constrained")
            draw(drawn.add_subplot())
            for form in FORMS:
                path = folder / f"{name}.{form}"
                with replacing(path) as file:
                    drawn.savefig(
                        file,
                        format=form,
                        dpi=300,
                        bbox_inches="tight",
                        metadata={"Date": None} if form == "svg" else None,
                    )
                paths.append(path)
    return paths


def _drawn(report: Report) -> list[tuple[str, Any, float]]:
    found: list[tuple[str, Any, float]] = []
    for forest in charts.forests(report):
        strips = [(strip.row.label, report.styles[strip.row], strip.found) for strip in forest.strips]
        title = f"{wording.title_of(forest.column)}, difference to {report.baseline.label if report.baseline else ''}"
        found.append(
            (
                _file("differences", forest.column.label),
                lambda axes, s=strips, t=title: _forest(axes, s, t),
                0.6 + 0.28 * len(strips),
            )
        )
    taken = {known.row: known.image_forwards for known in cost.costs(report) if known.image_forwards is not None}
    for column in report.columns:
        dots = [
            (row.label, report.styles[row], x, s)
            for row, x in taken.items()
            if (s := report.cell(row, column).summary(column.headline))
        ]
        if len({x for _, _, x, _ in dots}) > 1:
            title = f"{column.label}, {short(column.headline)}"
            found.append((_file("cost", column.label), lambda axes, d=dots, t=title: _scatter(axes, d, t), 2.4))
    if report.ranks is not None:
        ranks = sorted(zip(report.ranks.found.ranks, report.ranks.rows, strict=True), key=lambda pair: pair[0])
        lines = [(row.label, report.styles[row], rank) for rank, row in ranks]
        found.append(("ranks", lambda axes: _ranks(axes, lines, report.ranks.found.critical), 0.7 + 0.22 * len(lines)))
    return found


def _file(kind: str, label: str) -> str:
    return f"{kind}-{re.sub(r'[^A-Za-z0-9]+', '-', label).strip('-').lower()[:80]}"


def _plain(text: str) -> str:
    """Take the meaning from what matplotlib would read as mathematics."""
    return text.replace("$", r"\$")


def _style(style: int) -> dict[str, Any]:
    colour = COLOURS[0] if style == 0 else COLOURS[1 + (style - 1) % 7]
    return {"color": colour, "marker": MARKERS[style % len(MARKERS)], "markersize": 4}


def _forest(axes: Any, strips: list[tuple[str, int, Difference]], title: str) -> None:
    """Draw differences: thick the interval of each alone, thin the corrected one."""
    ends = [max(abs(v) for v in (d.mean, d.low, d.high) if v is not None) for _, _, d in strips]
    edge = 1.04 * charts.without_outliers(ends)[-1] or 1.0
    axes.axvline(0, color="0.6", linewidth=0.8, linestyle="--")
    for line, (_, style, found) in enumerate(strips):
        colour = _style(style)["color"]
        for low, high, width in ((found.corrected_low, found.corrected_high, 0.9), (found.low, found.high, 2.6)):
            if low is not None and high is not None:
                low, high = max(low, -edge), min(high, edge)
                axes.plot([low, high], [line, line], color=colour, linewidth=width, solid_capstyle="butt")
        if abs(found.mean) > edge:
            side = "left" if found.mean < 0 else "right"
            text = f"← {signed(found.mean)}" if side == "left" else f"{signed(found.mean)} →"
            axes.text(math.copysign(edge, found.mean), line, text, color=colour, ha=side, va="center")
        else:
            axes.plot([found.mean], [line], linestyle="none", **_style(style))
    axes.set_xlim(-edge, edge)
    axes.set_yticks(range(len(strips)), [_plain(label) for label, _, _ in strips])
    axes.invert_yaxis()
    axes.set_xlabel(_plain(title))


def _scatter(axes: Any, dots: list[tuple[str, int, float, Any]], title: str) -> None:
    """Draw means with their 95 % intervals over what pre-training cost."""
    for label, style, x, summary in dots:
        ends = None if summary.low is None else [[summary.mean - summary.low], [summary.high - summary.mean]]
        axes.errorbar(
            [x], [summary.mean], yerr=ends, linestyle="none", label=_plain(label), linewidth=1, **_style(style)
        )
    axes.set_xlim(left=0)
    axes.set_xlabel("image forwards")
    axes.set_ylabel(_plain(title))
    axes.legend(fontsize=5, frameon=False)


def _ranks(axes: Any, lines: list[tuple[str, int, float]], critical: float) -> None:
    """Draw average ranks, the best first, and one critical difference as a bar."""
    for line, (_, style, rank) in enumerate(lines):
        axes.plot([rank], [line], linestyle="none", **_style(style))
    best = lines[0][2]
    axes.plot([best, best + critical], [-0.7, -0.7], color="black", linewidth=2)
    axes.set_yticks(range(len(lines)), [_plain(label) for label, _, _ in lines])
    axes.invert_yaxis()
    axes.set_xlabel("average rank; the bar is one critical difference")
