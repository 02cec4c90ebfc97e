"""The few phrases that all forms of a report share."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer.report.model import MARKS, Cell, Column, Report, Row, at_least, short, signed
from transfer.report.statistics import LEVEL, Difference, Summary
from transfer.results import Result

if TYPE_CHECKING:
    from transfer.report.cost import Need

_TESTS = {
    "paired": "by the paired t-test, since both cells hold the same seeds and recipe and the seeds move all checkpoints alike",
    "Welch": "by Welch's t-test",
}


def method(report: Report) -> str:
    """Say how the numbers of the headline table were made, and with which test."""
    text = "Mean ± sample standard deviation over trials, in percent."
    if report.baseline is None:
        return text
    looks = f", and for looking after {plain(report.looks)} trials" if report.looks else ""
    tests = " or, marked 'unpaired', ".join(_TESTS[name] for name in ("paired", "Welch") if name in report.tests)
    return (
        f"{text} Differences are to the baseline{', ' if tests else ''}{tests}; "
        f"brackets hold 95 % intervals after Holm's correction over all headline differences of this report{looks}. "
        f"{MARKS['better']} better and {MARKS['worse']} worse are written only where the corrected interval excludes "
        f"zero; {MARKS['undecided']} means that these trials do not decide."
    )


def test_of(report: Report, found: Difference | None) -> str:
    """Return ``unpaired`` for a difference by Welch's test in a report that also has paired ones, else nothing."""
    return "unpaired" if found and found.p is not None and not found.paired and len(report.tests) > 1 else ""


def rank(report: Report) -> str:
    """Say what the average ranks show, in one sentence."""
    ranks = report.ranks
    if ranks is None:
        return ""
    found = ranks.found
    differ = "differ" if found.p < 1 - LEVEL else "cannot be told apart"
    return (
        f"Over {found.benchmarks} benchmarks the ranks of {len(ranks.rows)} checkpoints {differ} as a whole "
        f"(Friedman's test, p {p_value(found.p)}); two checkpoints differ where their average ranks are at least "
        f"{found.critical:.2f} apart (Nemenyi, 5 %). Benchmarks are taken as independent, and their margins do not count."
    )


def tally(report: Report) -> str:
    """Count the verdicts in a sentence, and name the checkpoints that won or lost somewhere."""
    found: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
    for (row, _), cell in report.cells.items():
        if cell.difference is not None:
            found[cell.difference.verdict].append(row.said)
    total = sum(map(len, found.values()))
    if report.baseline is None or not total:
        return ""
    against = f"{total} comparison{'' if total == 1 else 's'} with {report.baseline.said}"
    if total == len(found["undecided"]):
        return f"These trials decide none of the {against}."
    parts = [f"{verdict} {_won(found[verdict])}" for verdict in ("better", "worse") if found[verdict]]
    parts += [f"undecided {len(found['undecided'])}"] if found["undecided"] else []
    return f"Of {against}: {', '.join(parts)}."


def _won(names: list[str]) -> str:
    counts = [f"{name} on {names.count(name)}" for name in dict.fromkeys(names)]
    more = f" and {len(counts) - 4} more" if len(counts) > 4 else ""
    return f"{len(names)} ({', '.join(counts[:4])}{more})"


def answer(report: Report, relative: Mapping[Row, float | None]) -> list[str]:
    """Say which backbone comes first, how sure that is, and what it gains and costs against the baseline, in a few sentences.

    ``relative`` is what pre-training cost, as a multiple of the baseline's, where it is known.
    """
    if report.ranks is None:
        return [tally(report)] if tally(report) else []
    found, rows = report.ranks.found, report.ranks.rows
    first = min(range(len(rows)), key=lambda index: found.ranks[index])
    best, bar = rows[first], found.ranks[first] + found.critical
    near = [row.said for row, rank in zip(rows, found.ranks, strict=True) if row is not best and rank < bar]
    among = f"{len(rows)} backbones{'' if len(rows) == len(report.rows) else ' that were measured on all'}"
    lines = [
        f"{best.said} ranks first of {among}: {found.ranks[first]:.1f} on average over {found.benchmarks} benchmarks."
    ]
    if found.p >= 1 - LEVEL:
        lines.append("The ranks as a whole could be chance.")
    elif near:
        more = f" and {len(near) - 3} more" if len(near) > 3 else ""
        lines.append(f"Ranks alone do not tell it from {', '.join(near[:3])}{more}.")
    counts = report.verdicts(best)
    if counts and report.baseline is not None:
        parts = [f"{verdict} on {counts[verdict]}" for verdict in ("better", "worse", "undecided") if counts[verdict]]
        taken = relative.get(best)
        known = taken is not None
        times = "the same" if known and round(taken or 0, 2) == 1 else f"{taken or 0:.2g} times its"
        price = f", at {times} pre-training cost" if known else ""
        lines.append(f"Against {report.baseline.said} it is {', '.join(parts)}{price}.")
    return lines


def half(summary: Summary | None) -> str:
    """Write the 95 % interval of a mean beside it: ``± 0.24``, or its ends where percentages end; nothing for one trial."""
    if summary is None or summary.low is None or summary.high is None:
        return ""
    below, above = summary.mean - summary.low, summary.high - summary.mean
    if abs(below - above) < 1e-9 * max(1.0, above):
        return f"± {above:.2f}"
    return f"{summary.low:.1f} to {summary.high:.1f}".replace("-", "−")


def about(report: Report, row: Row, column: Column) -> str:
    """Write all that is known of a cell of the headline table, as one text for a pointer that rests on it."""
    cell = report.cell(row, column)
    summary, found = cell.summary(column.headline), cell.difference
    parts = [f"{row.label}, {title_of(column)}: {measured(summary)}", count(cell), mean_interval(summary)]
    if found is not None and report.baseline is not None:
        parts.append(f"to {report.baseline.label} {compared(found)} {found.verdict}")
        parts.append(detail(found))
    return "; ".join(filter(None, parts))


def large(value: float | None) -> str:
    """Write a count with three digits and a unit: ``1.24 M``; a dash for None."""
    if value is None:
        return "–"
    for size, name in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return f"{value / (1e3 if name == ' k' else size):.3g}{name}"
    return f"{value:.4g}"


def detail(found: Difference) -> str:
    """Write what stands below a difference in the forest plot: p, Welch's p of pairs, effect, detectable gap."""
    if found.p is None or found.detectable is None:
        return "cannot be tested: single trials, or no spread"
    parts = [f"p {p_value(found.corrected_p)} ({'paired' if found.paired else 'Welch'})"]
    if found.welch_p is not None:
        parts.append(f"Welch’s, uncorrected, {p_value(found.welch_p)}")
    if found.effect is not None:
        parts.append(f"effect {found.effect:.1f}".replace("-", "−"))
    return " · ".join([*parts, f"detectable {at_least(found.detectable)}"])


def measured(summary: Summary | None, digits: int = 2) -> str:
    """Write ``57.08 ± 0.19``; a single trial has no spread, and no value is a dash."""
    if summary is None:
        return "–"
    spread = "" if summary.std is None else f" ± {summary.std:.{digits}f}"
    return f"{summary.mean:.{digits}f}{spread}".replace("-", "−")


def interval(low: float | None, high: float | None) -> str:
    """Write ``[−0.10, +0.94]``, nothing where there is no interval."""
    return "" if low is None or high is None else f"[{signed(low)}, {signed(high)}]"


def mean_interval(summary: Summary | None) -> str:
    """Write ``95 %: 56.61 to 57.55``, nothing where a single trial has no interval."""
    if summary is None or summary.low is None:
        return ""
    return f"95 %: {summary.low:.2f} to {summary.high:.2f}".replace("-", "−")


def compared(found: Difference | None) -> str:
    """Write ``+0.42 [−0.10, +0.94] ≈``."""
    if found is None:
        return ""
    parts = (signed(found.mean), interval(found.corrected_low, found.corrected_high), MARKS[found.verdict])
    return " ".join(filter(None, parts))


def p_value(p: float | None) -> str:
    """Write a p-value with three digits, never as zero."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(cell: Cell) -> str:
    """Write how many trials there are, and of how many: ``2 trials``, ``1 of 2 trials``."""
    wanted = len(cell.trials) + len(cell.missing)
    of = f" of {wanted}" if cell.missing and cell.trials else ""
    return f"{len(cell.trials)}{of} trial{'' if wanted == 1 else 's'}" if cell.trials else "missing"


GAPS = (1.0, 2.0, 5.0)
NEEDS = (
    "Trials of every cell, and device-hours of all of them, until a true difference of so many points is found in 8 of 10 cases, "
    "corrected for all comparisons of this report. From the trials so far, their standard deviation, and the gap that they find."
)


def needs(found: "Sequence[Need]", gaps: Sequence[float]) -> tuple[list[str], list[list[str]]]:
    """Return the heads and lines of the table of how many trials a gap needs."""
    heads = ["benchmark", "std", "trials", "finds"]
    heads += [text for gap in gaps for text in (f"trials for {gap:g}", "device-hours")]
    rows = []
    for need in found:
        line = [
            need.column.label,
            f"{need.spread:.2f}",
            str(need.trials),
            "–" if need.found is None else at_least(need.found),
        ]
        for _, count, hours in need.gaps:
            line += [str(count) if count else "> 1000", "–" if hours is None else f"{hours:.2g}"]
        rows.append(line)
    return heads, rows


def published(report: Report, row: Row, column: Column) -> str:
    """Write the published values that may stand beside a cell, each with data, epochs and source."""
    return "; ".join(f"{value:g} ({found.origin})" for value, found in report.published(row, column))


def has_published(report: Report, column: Column) -> bool:
    """Tell whether any cell of a column has a published value beside it."""
    return column in report.with_published


def title_of(column: Column) -> str:
    """Write a column's heading: ``Shapes detection, box AP``."""
    return f"{column.label}, {short(column.headline)}" if column.headline else column.label


def made_of(row: Row) -> str:
    """Write ``moco + mscn``."""
    return " + ".join(filter(None, (row.method, *row.branches)))


def missing(cell: Cell) -> list[str]:
    """Write why trials are missing, those of one reason together: ``trials 1, 2: not run yet``."""
    trials: dict[str, list[int]] = {}
    for trial, reason in cell.missing:
        trials.setdefault(reason, []).extend([] if trial is None else [trial])
    named = {
        reason: f"trial{'s' if len(which) > 1 else ''} {plain(which)}: " for reason, which in trials.items() if which
    }
    return [named.get(reason, "") + reason for reason in trials]


def plain(value: Any) -> str:
    """Write a setting: lists without brackets, counts by name, numbers without needless digits."""
    if isinstance(value, dict):
        return " + ".join(f"{plain(count)} {name}" for name, count in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def nested(value: Any) -> str:
    """Write settings within settings: ``mixmask: mask block (grid 8), weight 1``."""
    if not isinstance(value, dict):
        return plain(value)
    parts = []
    for key, part in value.items():
        if isinstance(part, dict):
            name, rest = part.get("name", ""), {k: v for k, v in part.items() if k != "name"}
            parts.append(f"{key} {name} ({nested(rest)})" if rest else f"{key} {name}")
        elif key != "name":
            parts.append(f"{key} {plain(part)}")
    return ", ".join(parts)


def pretrained(values: dict[str, Any]) -> list[str]:
    """Write what a weights file says of how its backbone was made, each branch with its mask, fill, sides and weights."""
    settings = values.get("branch_settings")
    branches = settings if isinstance(settings, dict) else {}
    lines = [", ".join(f"{key} {plain(v)}" for key, v in values.items() if key != "branch_settings")]
    return [line for line in [*lines, *(nested({label: branch}) for label, branch in branches.items())] if line]


def command(report: Report, path: Path, result: Result) -> str:
    """Return the command that makes a trial again, as recorded; hand-made results may have none."""
    return result.command or f"not recorded in {shlex.quote(report.named(path))}"
