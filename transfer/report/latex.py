"""The report as a LaTeX table (booktabs) to paste into a paper: the metrics that papers print, the best in bold."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from core.files import write_atomic
from transfer.report import published
from transfer.report.model import Cell, Column, Report, Row, short, trials_text

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
