"""For papers: the table as LaTeX (booktabs), with what papers print and the best in bold, and figures by matplotlib."""

import importlib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.files import replacing, write_atomic
from core.meter import track
from transfer.report import charts, cost, published, wording
from transfer.report.model import Cell, Column, Report, Row, short, signed, trials_text
from transfer.report.statistics import Difference
from transfer.results import SILENT

_ESCAPES = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\n": " "},
        **{"−": "$-$", "±": r"$\pm$", "▲": r"$\blacktriangle$", "▼": r"$\blacktriangledown$", "≈": r"$\approx$"},
    }
)
_MARK = {"better": r"$^{\blacktriangle}$", "worse": r"$^{\blacktriangledown}$", "undecided": ""}
PRINTED = tuple(
    f"{kind}/AP{level}" for kind in ("bbox", "segm") for level in ("", "50", "75")
)  # of detection, in this order
ONE_COLUMN, WIDE = 4, 9  # numbers that fit one column of a two-column page, and the whole page

FILES = ("pdf", "svg", "png")
COLOURS = ("#4d5863", "#0072b2", "#d55e00", "#008761", "#b8558c", "#8f6b00", "#3b7fc9", "#171c21")  # those of the page
MARKERS = "so^D"

Place = tuple[Column, str]  # a benchmark and a metric


def write(report: Report, path: Path) -> None:
    """Write ``report.tex``; it needs booktabs and amssymb."""
    write_atomic(path, "\n".join(_lines(report)) + "\n")


def _lines(report: Report) -> Iterator[str]:
    places = [(column, metric) for column in report.columns for metric in _metrics(column)]
    cells = [report.cell(row, column) for row in report.rows for column in report.columns]
    table = "table" if len(places) <= ONE_COLUMN else "table*"
    needs, begin, end = ("booktabs, amssymb", "", "")
    if len(places) > WIDE:
        needs, begin, end = f"{needs}, graphicx", r"\resizebox{\textwidth}{!}{", "}"
    yield rf"% needs \usepackage{{{needs}}}"
    yield from (f"% {escape(notice)}" for notice in report.notices)
    yield rf"\begin{{{table}}}"
    yield r"  \centering\small\setlength{\tabcolsep}{4pt}"
    yield rf"  \caption{{{_caption(report, trials_text(cells))}}}"
    yield rf"  {begin}\begin{{tabular}}{{l{'c' * len(places)}}}"
    yield r"    \toprule"
    yield from _heads(report.columns)
    yield r"    \midrule"
    best = {place: max(means, default=None) for place in places for means in [_means(report, place)]}
    others = [row for row in report.ordered if row is not report.baseline]
    yield from (_row(report, row, places, best) for row in others)
    if report.baseline is not None:
        yield r"    \midrule" if others else ""
        yield _row(report, report.baseline, places, best)
    if known := _published(report, places):
        yield r"    \midrule"
        yield from ("    " + " & ".join([f"{escape(name)} (published)", *values]) + r" \\" for name, values in known)
    yield r"    \bottomrule"
    yield rf"  \end{{tabular}}{end}"
    yield rf"\end{{{table}}}"


def _metrics(column: Column) -> list[str]:
    """Return what papers print of a benchmark: AP, AP50 and AP75 of boxes and masks, else the headline."""
    return [metric for metric in PRINTED if metric in column.metrics] or [column.headline]


def _heads(columns: Sequence[Column]) -> Iterator[str]:
    names, rules, at = ["Pre-training"], [], 2
    for column in columns:
        width = len(_metrics(column))
        names.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(column.label)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    yield "    " + " & ".join(names) + r" \\"
    yield "    " + " ".join(rules)
    yield "    " + " & ".join(["", *(escape(short(m)) for column in columns for m in _metrics(column))]) + r" \\"


def _means(report: Report, place: Place) -> list[float]:
    found = (report.cell(row, place[0]).summary(place[1]) for row in report.rows)
    return [round(summary.mean, 2) for summary in found if summary is not None]


def _row(report: Report, row: Row, places: Sequence[Place], best: dict[Place, float | None]) -> str:
    texts = [_cell(report.cell(row, place[0]), place, best[place]) for place in places]
    return "    " + " & ".join([escape(row.label), *texts]) + r" \\"


def _cell(cell: Cell, place: Place, best: float | None) -> str:
    column, metric = place
    summary = cell.summary(metric)
    if summary is None:
        return "--"
    mean = rf"\mathbf{{{summary.mean:.2f}}}" if round(summary.mean, 2) == best else f"{summary.mean:.2f}"
    if metric != column.headline:
        return f"${mean}$"
    spread = "" if summary.std is None else rf" \pm {summary.std:.2f}"
    return f"${mean}{spread}$" + (_MARK[cell.difference.verdict] if cell.difference else "")


def _published(report: Report, places: Sequence[Place]) -> list[tuple[str, list[str]]]:
    """Return the published rows that may stand beside measured ones, with their values at every place."""
    rows: dict[str, dict[Place, float]] = {}
    for column in report.columns:
        chosen = [found for row in report.rows for _, found in report.published(row, column)]
        for group in published.of(column.plugin):
            for found in (found for found in group.rows if any(found is one for one in chosen)):
                name = f"{found.name}, {found.epochs} ep" if found.epochs else found.name
                values = rows.setdefault(name, {})
                values |= {(column, m): v for m in _metrics(column) if (v := group.value(found, m)) is not None}
    return [
        (name, [f"{values[place]:g}" if place in values else "--" for place in places]) for name, values in rows.items()
    ]


def _caption(report: Report, trials: str) -> str:
    text = rf"Mean $\pm$ sample standard deviation over {trials} trial(s), in percent; the best in bold."
    if report.baseline is None:
        return text
    better, worse = r"$^{\blacktriangle}$", r"$^{\blacktriangledown}$"
    names = " or ".join(
        {"paired": "paired t-test", "Welch": "Welch's test"}[name] for name in sorted(report.tests, reverse=True)
    )
    test = rf"{names or 'no test possible'}, Holm-corrected 95\,\% interval without zero"
    return f"{text} {better} better and {worse} worse than {escape(report.baseline.label)} ({test})."


def escape(text: str) -> str:
    """Take LaTeX's meaning from user-given text."""
    return text.translate(_ESCAPES)


def figures(report: Report, folder: Path) -> list[Path]:
    """Write every figure that the report has numbers for into ``folder``; return the files."""
    if folder.is_file():
        raise InputError(f"{folder} is a file; give --figures a folder")
    matplotlib: Any = importlib.import_module("matplotlib")  # here: a second that other forms need not wait for
    figure: Any = importlib.import_module("matplotlib.figure")
    paths = []
    style: dict[str, Any] = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42}
    style["svg.hashsalt"] = "report"
    with matplotlib.rc_context(style):
        wanted = list(_drawn(report))
        for name, draw, height in track(wanted, "drawing figures", len(wanted), SILENT):
            drawn = figure.Figure(figsize=(3.4, height), layout="constrained")
            draw(drawn.add_subplot())
            for form in FILES:
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
