"""The report's headline table as LaTeX (booktabs), to paste into a paper."""

from collections.abc import Iterator
from pathlib import Path

from core.files import write_atomic
from transfer.report import wording
from transfer.report.model import Cell, Column, Report, trials_text

_ESCAPES = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\n": " "},
        **{"−": "$-$", "±": r"$\pm$", "▲": r"$\blacktriangle$", "▼": r"$\blacktriangledown$", "≈": r"$\approx$"},
    }
)
_MARK = {"better": r"$^{\blacktriangle}$", "worse": r"$^{\blacktriangledown}$", "undecided": ""}


def write(report: Report, path: Path) -> None:
    """Write ``report.tex``; it needs booktabs and amssymb."""
    write_atomic(path, "\n".join(_lines(report)) + "\n")


def _lines(report: Report) -> Iterator[str]:
    cells = [report.cell(row, column) for row in report.rows for column in report.columns]
    yield r"% needs \usepackage{booktabs} and \usepackage{amssymb}"
    yield from (f"% {escape(notice)}" for notice in report.notices)
    yield r"\begin{table}"
    yield r"  \centering"
    yield rf"  \caption{{{_caption(report, trials_text(cells))}}}"
    yield rf"  \begin{{tabular}}{{l{'c' * len(report.columns)}}}"
    yield r"    \toprule"
    yield "    " + " & ".join(["Pre-training", *(escape(wording.title_of(c)) for c in report.columns)]) + r" \\"
    yield r"    \midrule"
    for row in report.rows:
        texts = [_cell(report.cell(row, column), column) for column in report.columns]
        yield "    " + " & ".join([escape(row.label), *texts]) + r" \\"
    yield r"    \bottomrule"
    yield r"  \end{tabular}"
    yield r"\end{table}"


def _cell(cell: Cell, column: Column) -> str:
    summary = cell.summary(column.headline)
    if summary is None:
        return "--"
    spread = "" if summary.std is None else rf" \pm {summary.std:.2f}"
    return f"${summary.mean:.2f}{spread}$" + (_MARK[cell.difference.verdict] if cell.difference else "")


def _caption(report: Report, trials: str) -> str:
    text = rf"Mean $\pm$ sample standard deviation over {trials} trial(s), in percent."
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
