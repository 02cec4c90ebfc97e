"""The small parts of reports: ticks, lines, smoothing, and Markdown code."""

import pytest

from transfer.report import charts, markdown


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
