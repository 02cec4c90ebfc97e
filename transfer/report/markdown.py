"""The report as Markdown."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from core.errors import InputError
from core.files import write_atomic
from core.meter import duration
from transfer.report import cost as costs
from transfer.report import curves, statistics, wording
from transfer.report.model import Column, Report, Row, short


def write(report: Report, path: Path) -> None:
    """Write ``report.md``."""
    write_atomic(path, "\n".join(_lines(report)) + "\n")


def _lines(report: Report) -> Iterator[str]:
    yield f"# {escape(report.title)}: transfer report"
    yield ""
    yield from (f"> {escape(notice)}" for notice in _spaced(report.notices))
    yield from ("", "## Results", "")
    yield from headline(report)
    yield from ("", wording.method(report), "")
    if report.ranks is not None:
        yield from ("## Average rank", "", escape(wording.rank(report)), "")
        ranked = sorted(zip(report.ranks.found.ranks, report.ranks.rows, strict=True), key=lambda pair: pair[0])
        yield from table(["checkpoint", "average rank"], [(row.label, f"{rank:.2f}") for rank, row in ranked])
        yield ""
    if report.conclusions:
        yield from ("## What can be concluded", "")
        yield from (f"- {escape(line)}" for line in report.conclusions)
        yield ""
    yield from _needs(report)
    for column in report.columns:
        yield from _benchmark(report, column)
    yield from _cost(report)
    yield from _checkpoints(report)
    yield from _missing(report)
    yield from _remake(report)


def _spaced(lines: Sequence[str]) -> Iterator[str]:
    for index, line in enumerate(lines):
        if index:
            yield ""
        yield line


def headline(report: Report) -> Iterator[str]:
    """Write the table of checkpoints against headline metrics."""
    heads = ["checkpoint"]
    for column in report.columns:
        heads.append(wording.title_of(column))
        if report.baseline is not None:
            heads.append(f"difference to {report.baseline.label}")
        if wording.has_published(report, column):
            heads.append("published")
    rows = []
    for row in report.rows:
        line = [f"{row.label} (baseline)" if row is report.baseline else row.label]
        for column in report.columns:
            cell = report.cell(row, column)
            line.append(f"{wording.measured(cell.summary(column.headline))} ({wording.count(cell)})")
            if report.baseline is not None:
                unpaired = wording.test_of(report, cell.difference)
                line.append(" ".join(filter(None, (wording.compared(cell.difference), unpaired))))
            if wording.has_published(report, column):
                line.append(wording.published(report, row, column))
        rows.append(line)
    yield from table(heads, rows)


def _needs(report: Report) -> Iterator[str]:
    heads, rows = wording.needs(costs.needs(report, wording.GAPS), wording.GAPS)
    if rows:
        yield from ("## How many trials a gap needs", "", wording.NEEDS, "", *table(heads, rows), "")


def _benchmark(report: Report, column: Column) -> Iterator[str]:
    yield from (f"## {escape(column.label)}", "")
    protocol = next((r.protocol for row in report.rows for _, r in report.cell(row, column).trials), None)
    if protocol is not None:
        hashed = f", protocol hash {protocol.hash[:12]}" if protocol.hash else ""
        options = f", options: {' '.join(protocol.options)}" if protocol.options else ""
        parts = f"config {protocol.config or 'not stated'}, train {protocol.train or 'not stated'}"
        yield from (escape(f"{parts}, test {protocol.test or 'not stated'}{hashed}{options}"), "")
    shown = column.metrics
    if len(shown) > 9:  # the HTML and CSV forms hold every class
        shown = tuple(metric for metric in shown if metric not in column.classes)
    rows = [
        [row.label, *(wording.measured(report.cell(row, column).summary(metric)) for metric in shown)]
        for row in report.rows
        if report.cell(row, column).trials
    ]
    yield from table(["checkpoint", *map(short, shown)], rows)
    yield ""
    for row in report.rows:
        for name, (effective, wanted) in report.cell(row, column).changed_recipe.items():
            yield escape(f"- {row.label}: {name} is {wording.plain(effective)}, published {wording.plain(wanted)}")
    yield ""


def _cost(report: Report) -> Iterator[str]:
    yield from ("## Cost", "")
    heads = ["checkpoint", "image forwards", "× baseline", "pre-training epochs", "forwards a step", "images/s"]
    heads.append("pre-training time")
    heads += [f"{column.label}: time a trial" for column in report.columns]
    rows = []
    for cost in costs.costs(report):
        made, epochs, speed = map(wording.large, (cost.image_forwards, cost.epochs, cost.images_per_second))
        relative = "–" if cost.relative is None else f"{cost.relative:.2f}"
        line = [cost.row.label, made, relative, epochs, cost.forwards or "–", speed, duration(cost.seconds)]
        for column in report.columns:
            seconds, memory, device = costs.trial_cost(report.cell(cost.row, column))
            where = f" on {device}" if device else ""
            line.append(duration(seconds) + where + (f", {memory:.0f} MiB" if memory is not None else ""))
        rows.append(line)
    yield from (*table(heads, rows), "")
    warned = [(cost.row.label, line) for cost in costs.costs(report) for line in cost.warnings]
    yield from (escape(f"- {label}, {line}") for label, line in warned)
    yield from [""] * bool(warned)


def _checkpoints(report: Report) -> Iterator[str]:
    known = [(row, lines) for row in report.rows if (lines := wording.pretrained(report.pretrained(row)))]
    if known:
        yield from ("## Checkpoints", "", *(escape(f"- {row.label}: {'; '.join(lines)}") for row, lines in known), "")


def _missing(report: Report) -> Iterator[str]:
    pairs = [(row, column) for row in report.rows for column in report.columns if report.cell(row, column).missing]
    if pairs:
        yield from ("## Missing and failed", "")
        for row, column in pairs:
            for reason in wording.missing(report.cell(row, column)):
                yield escape(f"- {row.label} on {column.label}: {reason}")
        yield ""
    if report.skipped:
        yield from ("## Skipped files", "")
        yield from (
            f"- {code(report.named(skipped.path))}: {escape(report.named(skipped.reason))}"
            for skipped in report.skipped
        )
        yield ""


def _remake(report: Report) -> Iterator[str]:
    yield from ("## Commands and environment", "")
    for values, trials in costs.environments(report):
        facts = ", ".join(f"{name} {wording.plain(value)}" for name, value in values.items())
        yield escape(f"- {trials} trial(s): {facts}")
    yield ""
    for row in report.rows:
        for column in report.columns:
            for path, result in report.cell(row, column).trials:
                what = escape(f"{row.label}, {column.label}, trial {result.trial}")
                yield f"- {what}: {code(wording.command(report, path, result))}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Write a pipe table; every cell is escaped."""
    yield "| " + " | ".join(map(escape, heads)) + " |"
    yield "|" + " --- |" * len(heads)
    for row in rows:
        yield "| " + " | ".join(map(escape, row)) + " |"


def escape(text: str) -> str:
    """Take Markdown's and HTML's meaning from user-given text, on one line; a leading ``- `` stays a bullet."""
    bullet, rest = ("- ", text[2:]) if text.startswith("- ") else ("", text)
    rest = re.sub(r"([\\`*_|~<>\[\]#])", r"\\\1", " ".join(rest.split()))
    return bullet + rest.replace("\\<", "&lt;").replace("\\>", "&gt;")


def code(text: str) -> str:
    """Write inline code that may itself hold backticks."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{' '.join(text.split())}{pad}{fence}"


COMMENT = re.compile(r"<!-- from (\S+): (.+?) -->\n((?:\|.*\n)+)")


def refill(report: Report, page: Path) -> int:
    """Write the numbers of a page's own tables again; return how many tables are of this report.

    Above such a table stands ``<!-- from FILE: FIELD, FIELD, ... -->``, FILE relative to the page, a field a column: ``row``
    and ``benchmark`` name what the line is about, ``text`` stays, ``epochs``, ``forwards``, ``cost``, ``trials``, ``seconds``
    and ``GiB`` are what they say, ``last NAME`` is the mean of a journal's last ten lines, any other one a metric,
    behind ``BENCHMARK:`` or the line's own benchmark; `` .1`` at its end is the number of digits.
    """
    found = []

    def again(match: re.Match[str]) -> str:
        name, fields, lines = match[1], match[2].split(", "), match[3].splitlines()
        if (page.parent / name).resolve() != report.source.resolve():
            return match[0]
        found.append(name)
        filled = [" | ".join(_line_again(report, fields, line.strip("| ").split(" | "))) for line in lines[2:]]
        return "\n".join([f"<!-- from {name}: {match[2]} -->", *lines[:2], *(f"| {line} |" for line in filled)]) + "\n"

    text = COMMENT.sub(again, page.read_text())
    if not found:
        raise InputError(f"{page} has no table of {report.source}; name it above one: <!-- from FILE: row, METRIC -->")
    write_atomic(page, text)
    return len(found)


def _line_again(report: Report, fields: Sequence[str], cells: Sequence[str]) -> Iterator[str]:
    if len(fields) != len(cells):
        raise InputError(f"the line '{' | '.join(cells)}' has {len(cells)} cells, its comment {len(fields)} fields")
    label = cells[fields.index("row")]
    row = next((row for row in report.rows if row.label == label), None)
    if row is None:
        raise InputError(f"the results have no {label!r}; there are: {', '.join(row.label for row in report.rows)}")
    benchmark = cells[fields.index("benchmark")] if "benchmark" in fields else ""
    for field, cell in zip(fields, cells, strict=True):
        yield cell if field in ("row", "benchmark", "text") else _field(report, row, benchmark, field)


def _field(report: Report, row: Row, benchmark: str, field: str) -> str:
    said, _, digits = field.partition(" .")
    about, _, name = said.rpartition(":")
    columns = [c for c in report.columns if c.benchmark == (about or benchmark) or not (about or benchmark)]
    trials = [result for column in columns for _, result in report.cell(row, column).trials]
    if name == "trials":
        return str(max((len(report.cell(row, column).trials) for column in columns), default=0))
    if name in ("epochs", "forwards", "cost"):
        return wording.large(costs.an_image(report, row)[name])
    if name in ("seconds", "GiB"):
        taken = [r.cost.seconds if name == "seconds" else (r.cost.peak_memory_mib or 0) / 1024 for r in trials]
        ends = (f"{end:.{int(digits or 0)}f}" for end in (min(map(_real, taken)), max(map(_real, taken))))
        return " to ".join(dict.fromkeys(ends))
    if name.startswith("last "):
        values = [value for run in row.runs if (value := curves.last(run / "journal.jsonl", name[5:])) is not None]
    else:
        values = [value for result in trials if (value := result.metrics.get(name)) is not None]
    return wording.measured(statistics.summarise(values) if values else None, int(digits or 2))


def _real(value: float | None) -> float:
    return math.nan if value is None else value
