"""The small parts of reports: ticks, lines, smoothing, and Markdown code."""

import pytest
from made_results import result, suite, write

from transfer.report import assembly, charts, diagram, forest, markdown, wording
from transfer.report.model import Cell
from transfer.report.statistics import summarise


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 10.0, [0.0, 5.0, 10.0]),
        (-0.13, 0.22, [-0.2, -0.1, 0.0, 0.1, 0.2, 0.3]),
        (3.0, 3.0, [2.6, 2.8, 3.0, 3.2, 3.4]),
    ],
)
def test_ticks_are_round_and_cover_the_range(low, high, expected):
    assert charts.ticks(low, high) == pytest.approx(expected)


def test_a_chart_leaves_out_what_is_not_finite_and_is_none_without_points():
    points = [(1.0, 2.0), (2.0, float("nan")), (3.0, 1.0)]
    chart = charts.line_chart("t", "step", "loss", [charts.Series("a", 1, points), charts.Series("b", 2, [])])
    assert [line.label for line in chart.lines] == ["a"]
    assert chart.lines[0].path.count("l") == 1
    assert charts.line_chart("t", "step", "loss", [charts.Series("a", 1, [(1.0, float("inf"))])]) is None


def test_smoothing_keeps_constants_and_length():
    points = [(float(x), 2.0) for x in range(100)]
    assert charts.smoothed(points) == points


def test_markdown_code_survives_backticks():
    assert markdown.code("a ` b `` c") == "``` a ` b `` c ```"


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        ([0.5, 23.0, 0.9, 1.3], [0.5, 0.9, 1.3]),
        ([0.01, 1.0, 1.2, 1.1], [0.01, 1.0, 1.1, 1.2]),  # small ones hide nothing
        ([0.5, 1.0, 23.0, 24.0], [0.5, 1.0]),
        ([0.5, 4.0], [0.5, 4.0]),
        ([0.5, 23.0], [0.5]),
        ([7.0], [7.0]),
    ],
)
def test_a_scale_leaves_out_what_would_hide_the_rest(values, kept):
    assert charts.without_outliers(values) == kept


def test_a_dot_far_from_the_others_is_named_beside_the_chart_and_not_drawn_at_its_edge():
    dots = [charts.Dot(f"m{i}", i, 10.0 * i, 57 + 0.3 * i, 56.8 + 0.3 * i, 57.2 + 0.3 * i, i) for i in range(1, 4)]
    chart = charts.scatter("t", "x", "AP", [charts.Dot("random", 0, 0.0, 33.8, 33.6, 34.0, 0), *dots])
    assert [dot.label for dot in chart.dots] == ["m1", "m2", "m3"]
    assert chart.note == "random: 33.80, off the axis"
    assert next(text for _, text in chart.y_ticks) == "57"


def test_a_difference_beyond_the_scale_is_an_arrow_without_a_point(tmp_path):
    for name, level in (("A", 57.0), ("B", 57.9), ("C", 56.6), ("D", 33.8)):
        for trial in range(3):
            write(tmp_path / f"{name}{trial}", result(name, trial=trial, metrics={"bbox/AP": level + trial / 10}))
    (found,) = forest.forests(assembly.build(tmp_path, "A"))
    points = {strip.row.label: (strip.point is None, strip.cut) for strip in found.strips}
    assert points == {"B": (False, (False, False)), "C": (False, (False, False)), "D": (True, (True, False))}


def test_a_critical_difference_wider_than_the_ranks_is_drawn_at_its_full_length(tmp_path):
    report = assembly.build(suite(tmp_path))
    drawn = diagram.diagram(report)
    critical = 2.343 * (3 * 4 / (6 * 2)) ** 0.5  # three checkpoints on two benchmarks: ranks 1 to 3 are 2 apart
    assert report.ranks.found.critical == pytest.approx(critical, abs=0.01)
    assert drawn.ruler == 100
    assert [text for _, text in drawn.ticks] == ["1", "2", "3"]
    assert [at for at, _ in drawn.ticks] == pytest.approx([0, 100 / critical, 200 / critical], abs=0.05)
    assert [place.at for place in drawn.places] == [at for at, _ in drawn.ticks]


def test_the_interval_of_a_mean_is_named_as_such_beside_the_number_of_trials():
    summary = summarise([17.0, -3.0])
    assert wording.mean_interval(summary).startswith("95 %: −")
    assert wording.mean_interval(summary) == f"95 %: −{-summary.low:.2f} to {summary.high:.2f}"
    assert wording.mean_interval(summarise([17.0])) == ""


def test_missing_trials_of_one_reason_are_named_together():
    cell = Cell(missing=[(0, "not run yet"), (1, "out of memory"), (2, "not run yet")])
    assert wording.missing(cell) == ["trials 0, 2: not run yet", "trial 1: out of memory"]
    assert wording.missing(Cell(missing=[(None, "never asked for")])) == ["never asked for"]


def test_counts_by_name_are_written_without_brackets():
    assert wording.plain({"query": 2, "key": 1}) == "2 query + 1 key"
