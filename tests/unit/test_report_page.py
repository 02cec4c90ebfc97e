"""What stands behind a report's sections: pairs, ranks, cost, breakdowns, charts, curves, pictures, and the cache between two."""

import errno
import json
import os
import re
import stat

import pytest
from made_results import BASELINE, result, suite, write
from scipy import stats

from core.errors import InputError
from core.files import FileError
from transfer import report as reports
from transfer.report import assembly, charts, cost, curves, markdown, page, wording
from transfer.report.curves import FILE, Cache
from transfer.report.model import Cell, Row
from transfer.report.statistics import summarise

MIXMASK = "MoCo v2 + MixMask"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = suite(tmp_path_factory.mktemp("made"), trials=5, pictures=True, seeds=True, curves=True, knn=True)
    return assembly.build(folder)


def _row(report, label):
    return next(row for row in report.rows if row.label == label)


def _column(report, benchmark):
    return next(column for column in report.columns if column.benchmark == benchmark)


def test_cells_of_equal_seeds_are_compared_in_pairs_as_scipy_does(made):
    column = _column(made, "shapes_detection")
    ours, theirs = (made.cell(_row(made, name), column) for name in (MIXMASK, BASELINE))
    expected = stats.ttest_rel(ours.values("bbox/AP"), theirs.values("bbox/AP")).pvalue
    assert (ours.difference.paired, ours.difference.p) == (True, pytest.approx(expected, rel=1e-9))
    assert made.tests == {"paired"}
    assert "pairs of equal seeds" in made.conclusions[0]


def _two(tmp_path, seeds, others, **changes):
    for name, given in (("A", seeds), ("B", others)):
        for trial, seed in enumerate(given):
            value = 10.0 + 3 * trial + 0.01 * (trial % 3) * (name == "B")  # the seeds move both alike
            values = result(name, trial=trial, metrics={"bbox/AP": value}, seed=seed)
            write(tmp_path / f"{name}{trial}", values | (changes if name == "B" else {}))
    report = assembly.build(tmp_path, "A")
    return report.cell(_row(report, "B"), report.columns[0]).difference


@pytest.mark.parametrize(
    ("seeds", "others", "paired"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], True),
        ([1, 2, 3, 4], [3, 1, 4, 2], False),  # they can be paired, but do not move alike
        ([1, 2, 3, 4], [1, 2, 3, 5], False),
        ([1, 2, 3, 4], [1, 2, 3, 4, 5], False),
        ([1, 1, 1, 1], [1, 1, 1, 1], False),
        ([None] * 4, [None] * 4, False),
        ([1, 2], [1, 2], False),  # two pairs say next to nothing of their spread
    ],
)
def test_pairs_need_the_same_seeds_once_each_in_both_cells(tmp_path, seeds, others, paired):
    assert _two(tmp_path, seeds, others).paired is paired


def test_pairs_are_matched_by_seed_and_not_by_trial(tmp_path):
    ordered, shuffled = (
        _two(tmp_path / "a", [4, 3, 2, 1], [4, 3, 2, 1]),
        _two(tmp_path / "b", [1, 2, 3, 4], [1, 2, 3, 4]),
    )
    assert ordered.paired
    assert (ordered.mean, ordered.p) == (pytest.approx(shuffled.mean), pytest.approx(shuffled.p))


def test_another_recipe_has_another_order_of_data_and_is_not_paired(tmp_path):
    recipe = {"effective": {"batch": 8}, "published": {"batch": 8}}
    assert not _two(tmp_path, [1, 2, 3, 4], [1, 2, 3, 4], recipe=recipe).paired


def test_a_report_with_both_tests_marks_the_unpaired_ones_in_every_form(tmp_path):
    suite(tmp_path, trials=5, seeds=True)
    path = tmp_path / "r--shapes_detection--trial2--00000000" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 77}))
    report = assembly.build(tmp_path)
    reports.write(report, tmp_path / "out")
    assert report.tests == {"paired", "Welch"}
    text = (tmp_path / "out" / "report.html").read_text()
    assert text.count(", unpaired</span>") == 1
    text = (tmp_path / "out" / "report.md").read_text()
    assert "or, marked 'unpaired', by Welch's t-test" in text
    assert text.count(" unpaired |") == 1
    assert "(paired t-test or Welch's test, Holm" in (tmp_path / "out" / "report.tex").read_text()


def test_ranks_are_those_of_the_means_and_the_diagram_puts_the_best_first(made):
    assert {row.label: rank for row, rank in zip(made.ranks.rows, made.ranks.found.ranks, strict=True)} == {
        "Random initialisation": 3.0,
        BASELINE: 2.0,
        MIXMASK: 1.0,
    }
    drawn = charts.diagram(made)
    assert [(place.row.label, place.at) for place in drawn.places] == [
        (MIXMASK, 0.0),
        (BASELINE, 50.0),
        ("Random initialisation", 100.0),
    ]
    assert drawn.bars == [(1, 2), (2, 3)]  # 2.343 * sqrt(3 * 4 / (6 * 3)) is 1.91: only the ends differ
    assert drawn.ruler == pytest.approx(100 * 2.343 * (12 / 18) ** 0.5 / 2, abs=0.05)


def test_a_checkpoint_without_a_value_somewhere_is_left_out_of_the_ranks(tmp_path):
    suite(tmp_path, trials=1)
    for name in ("four", "five"):
        for benchmark in ("shapes_detection", "shapes_segmentation"):
            if (name, benchmark) != ("five", "shapes_segmentation"):
                write(tmp_path / f"{name}-{benchmark}", result(name, benchmark))
    report = assembly.build(tmp_path)
    assert len(report.rows) == 5
    assert "five" not in [row.label for row in report.ranks.rows]
    assert len(report.ranks.rows) == 4


def test_classes_and_sizes_are_found_by_name_and_classification_has_neither(tmp_path):
    metrics = {"bbox/AP": 30.0, "bbox/APs": 10.0, "bbox/APl": 40.0, "bbox/AP-traffic light": 5.0, "bbox/AP-c-d": None}
    write(tmp_path / "a", result("A", metrics=metrics))
    more = {"bbox/AP-traffic light": 8.0, "bbox/APs": 20.0}
    write(tmp_path / "b", result("B", metrics=metrics | more))
    known = {"knn20-0.1/top1": 50.0, "linear/top-1": 40.0, "linear/top-5": 60.0}
    write(tmp_path / "c", result("A", "knn", metrics=known))
    report = assembly.build(tmp_path, "A")
    (table,) = charts.classes(report)
    assert [(name, [(c.mean, c.gap) for c in cells]) for name, cells in table.lines] == [
        ("traffic light", [(5.0, ""), (8.0, "+3.0")])
    ]
    (strips,) = charts.sizes(report)
    assert [strip.name for strip in strips.strips] == ["box AP, small", "box AP, large"]
    assert [(d.row.label, d.at) for d in strips.strips[0].dots] == [("A", 0.0), ("B", pytest.approx(100 / 3, abs=0.01))]
    assert _column(report, "knn").overall == list(known)


def test_too_many_classes_for_a_page_are_named_and_stay_in_the_csv(made, monkeypatch, tmp_path):
    monkeypatch.setattr(charts, "MOST", 2)
    reports.write(made, tmp_path)
    assert "too many for this page, they are in report.csv" in (tmp_path / "report.html").read_text()
    assert "bbox/AP-cross" in (tmp_path / "report.csv").read_text()


def test_precision_and_recall_are_drawn_from_what_the_evaluation_wrote(made):
    found = curves.evaluations(made, Cache(made.folder))
    assert [(chart.title, chart.x_label, len(chart.lines)) for chart in found] == [
        ("Shapes detection: box AP50", "recall", 3),
        ("Shapes detection: box AP75", "recall", 3),
    ]
    assert [text for _, text in found[0].x_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


def test_a_benchmark_may_write_any_other_curve_with_its_own_axes(tmp_path):
    run = write(tmp_path / "a", result("A", "mine", metrics={"score": 1.0})).parent / "run"
    run.mkdir()
    curve = {"name": "top-1 by neighbours", "x": "k", "y": "top-1", "points": [[1, 40.0], [20, 50.0], [200, None]]}
    good = curve | {"points": curve["points"][:2]}
    (run / "curves.json").write_text(json.dumps({"curves": [good, curve]}))
    (chart,) = curves.evaluations(assembly.build(tmp_path), Cache(tmp_path))
    assert (chart.title, chart.x_label, chart.y_label) == ("mine: top-1 by neighbours", "k", "top-1")
    assert [text for _, text in chart.y_ticks] == ["40", "45", "50"]
    reports.write(assembly.build(tmp_path), tmp_path / "out")
    assert ">Evaluation curves</a>" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    "text",
    [
        *("3", '{"recall": 3, "bbox": {"50": [1]}}', '{"bbox": {"50": [1]}}', '{"recall": [0], "bbox": {"50": ["a"]}}'),
        *("", "{", "[]", '{"curves": 3}', '{"curves": [{"name": "a"}]}'),
        '{"curves": [3, {"name": "a", "x": "x", "y": "y", "points": [["a", 1]]}]}',
        '{"curves": [{"name": 1, "x": "x", "y": "y", "points": [[0, 1]]}]}',
    ],
)
def test_damaged_curves_are_left_out(tmp_path, text):
    suite(tmp_path, trials=1, curves=True)
    for path in tmp_path.glob("*--shapes_detection--*/run/curves.json"):
        path.write_text(text)
    report = assembly.build(tmp_path)
    assert curves.evaluations(report, Cache(tmp_path)) == []


def test_a_backbone_pre_trained_once_a_trial_is_one_row_with_its_files(tmp_path):
    suite(tmp_path, seeds=True)
    for trial in range(3):
        path = tmp_path / f"x--shapes_detection--trial{trial}--00000000" / "result.json"
        values = json.loads(path.read_text())
        values["checkpoint"]["sha256"] = str(trial) * 64
        path.write_text(json.dumps(values))
    report = assembly.build(tmp_path)
    assert [row.label for row in report.rows] == ["Random initialisation", BASELINE, MIXMASK]
    row = _row(report, MIXMASK)
    assert {"0" * 64, "1" * 64, "2" * 64} < set(row.files)
    assert len(report.cell(row, _column(report, "shapes_detection")).trials) == 3
    reports.write(report, tmp_path / "out")
    assert "4 files, pre-trained once a trial" in (tmp_path / "out" / "report.html").read_text()


def test_the_second_report_reads_no_journal_and_draws_no_picture_again(tmp_path, monkeypatch):
    suite(tmp_path, trials=2, pictures=True, curves=True)
    reports.write(assembly.build(tmp_path), tmp_path / "a")
    first = (tmp_path / "a" / "report.html").read_text()

    def never(*_):
        raise AssertionError("made again")

    monkeypatch.setattr(curves, "_journal", never)
    monkeypatch.setattr(curves, "_read_curves", never)
    monkeypatch.setattr(page.Pictures, "_encoded", never)
    reports.write(assembly.build(tmp_path), tmp_path / "b")
    assert (tmp_path / "b" / "report.html").read_text() == first


def test_knn_accuracy_is_drawn_over_what_it_cost_and_runs_of_unknown_cost_are_left_out(tmp_path):
    suite(tmp_path, trials=1)
    mscn, mixmask = (tmp_path / "checkpoints" / label for label in "mx")
    for run, queries in ((mscn, 1), (mixmask, 2)):
        values = json.loads((run / "summary.json").read_text()) | {"forwards_per_step": {"query": queries, "key": 1}}
        (run / "summary.json").write_text(json.dumps(values))
    chart = curves.monitored(assembly.build(tmp_path), Cache(tmp_path))
    ends = {line.row.label: line.end[0] - charts.LEFT for line in chart.lines}
    assert set(ends) == {BASELINE, MIXMASK}
    assert ends[BASELINE] / ends[MIXMASK] == pytest.approx((3 + 1) / (2 * 3 + 1), rel=1e-3)
    (mixmask / "summary.json").unlink()
    (line,) = curves.monitored(assembly.build(tmp_path), Cache(tmp_path)).lines
    assert line.row.label == BASELINE


def test_twenty_nine_backbones_differ_in_colour_or_marker(tmp_path):
    for number in range(29):
        write(tmp_path / str(number), result(f"backbone {number}", metrics={"bbox/AP": 1.0}))
    styles = set(assembly.build(tmp_path, "backbone 5").styles.values())
    rules = re.findall(r"((?:\.c\d+(?:, )?)+) \{ color: var\((--s\d)\)", (page.TEMPLATES / "page.css").read_text())
    colours = {number: colour for names, colour in rules for number in re.findall(r"\d+", names)}
    assert len({(colours[str(style)], style % 4) for style in styles}) == 29


def test_a_changed_file_is_read_again_and_a_damaged_cache_is_ignored(tmp_path):
    suite(tmp_path, trials=1)
    path = tmp_path / "checkpoints" / "m" / "journal.jsonl"
    cache = Cache(tmp_path)
    before = curves.journal(path, cache)
    cache.save()
    path.write_text('{"step": 1, "loss": 5.0}\n{"step": 2, "loss": 4.0}\n')
    assert curves.journal(path, Cache(tmp_path)) == [(1.0, 5.0), (2.0, 4.0)] != before
    for text in ("{", "[]", '{"version": 2, "values": 3}', '{"version": 0, "values": {}}'):
        (tmp_path / FILE).write_text(text)
        assert curves.journal(path, Cache(tmp_path)) == [(1.0, 5.0), (2.0, 4.0)]


def test_what_a_stranger_put_into_the_cache_is_made_again(tmp_path):
    suite(tmp_path, trials=1, pictures=True)
    cache = Cache(tmp_path)
    curves.losses(report := assembly.build(tmp_path), cache)
    page.views(report, page.Pictures(cache, 10**7))
    cache.save()
    kept = json.loads((tmp_path / FILE).read_text())
    kept["values"] = {key: ["x", "javascript:alert(1)"] for key in kept["values"]}
    (tmp_path / FILE).write_text(json.dumps(kept))
    page.write(report, tmp_path / "report.html")
    assert "javascript" not in (tmp_path / "report.html").read_text()


def test_pictures_stay_within_the_budget_and_the_rest_is_counted(made, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "PICTURES", 20_000)
    reports.write(made, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert 0 < sum(map(len, text.split("data:image/webp;base64,")[1:])) < 120_000
    assert "more pictures are in the results folder" in text


def test_a_full_disk_leaves_every_old_form_whole_and_nothing_half_written(tmp_path, monkeypatch):
    suite(tmp_path / "made", trials=2)
    reports.write(assembly.build(tmp_path / "made"), tmp_path / "out")
    old = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    write(tmp_path / "made" / "new", result("New"))
    report = assembly.build(tmp_path / "made")
    synced, files = os.fsync, []

    def full(descriptor):
        files.extend([] if stat.S_ISDIR(os.fstat(descriptor).st_mode) else [descriptor])
        if len(files) > 2:  # two forms are on the disk, and neither the cache nor the table fits any more
            raise OSError(errno.ENOSPC, "No space left on device")
        return synced(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left on device; free some space"):
        reports.write(report, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == old


def test_a_report_into_a_file_or_a_folder_that_cannot_be_made_says_so(tmp_path, made):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; give --out a folder"):
        reports.write(made, tmp_path / "file")
    with pytest.raises(FileError, match="cannot write"):
        reports.write(made, tmp_path / "file" / "inside")


def test_pre_training_cost_is_steps_times_batch_times_three_query_plus_key_forwards(made):
    found = {entry.row.label: entry for entry in cost.costs(made)}
    assert found[BASELINE].image_forwards == 400 * 64 * (3 * 2 + 1)
    assert found["Random initialisation"].image_forwards == 0
    assert (found[BASELINE].relative, found[MIXMASK].relative) == (1.0, 1.0)
    assert found[BASELINE].forwards == "2 query + 1 key"


@pytest.mark.parametrize(
    ("pretrain", "expected"),
    [
        ({"steps": 10, "batch_size": 4, "forwards_per_step": {"query": 1, "key": 1}}, 160),
        ({"steps": 10, "batch_size": 4, "forwards_per_step": {"query": 2}}, 240),
        ({"steps": 10, "forwards_per_step": {"query": 1, "key": 1}}, None),
        ({"steps": "10", "batch_size": 4, "forwards_per_step": {"query": 1}}, None),
        ({"steps": 10, "batch_size": 4, "forwards_per_step": 7}, None),
        ({}, None),
    ],
)
def test_the_cost_of_a_hand_made_result_is_what_it_says_or_unknown(tmp_path, pretrain, expected):
    values = result("A")
    values["checkpoint"]["pretrain"] = pretrain
    write(tmp_path / "a", values)
    assert cost.costs(assembly.build(tmp_path, "A"))[0].image_forwards == expected


def test_accuracy_against_cost_needs_two_costs_and_joins_one_method_at_several(tmp_path):
    for name, steps, value in (("short", 10, 20.0), ("long", 40, 30.0), ("unknown", None, 25.0)):
        values = result(name, metrics={"bbox/AP": value})
        values["checkpoint"]["pretrain"] = {"steps": steps, "batch_size": 4, "forwards_per_step": {"query": 1}}
        write(tmp_path / name, values)
    report = assembly.build(tmp_path)
    (chart,) = cost.matched(report, cost.costs(report))
    assert sorted(dot.label for dot in chart.dots) == ["long", "short"]
    short, long = sorted(chart.dots, key=lambda dot: dot.x)
    assert (long.x - chart.box[0]) == pytest.approx(4 * (short.x - chart.box[0]), abs=0.5)  # the axis starts at zero
    assert long.y < short.y
    assert len(chart.joined) == 1


def test_what_the_monitor_warned_about_is_named_on_top_and_told_below_the_costs(tmp_path):
    folder = suite(tmp_path)
    assert not any("Warned" in notice for notice in assembly.build(folder).notices)
    row = next(row for row in assembly.build(folder).rows if row.label == BASELINE)
    summary = row.runs[0] / "summary.json"
    values = json.loads(summary.read_text()) if summary.exists() else {}
    summary.parent.mkdir(parents=True, exist_ok=True)
    summary.write_text(json.dumps(values | {"warnings": ["retrieval fell to 0.02"]}))
    report = assembly.build(folder)
    said = [notice for notice in report.notices if "Warned" in notice]
    assert said == [f"Warned about while pre-training: {BASELINE}; the warnings stand below the table of costs."]
    reports.write(report, tmp_path / "page")
    for form in ("report.html", "report.md"):
        assert "pre-training: retrieval fell to 0.02" in (tmp_path / "page" / form).read_text()


def test_a_line_joins_runs_that_differ_in_length_and_no_others(tmp_path):
    settings = {"plain": (4, 0.0), "plain, longer": (8, 0.0), "negatives": (5, 1.0), "negatives, longer": (9, 1.0)}
    rows = {}
    for name, (epochs, weight) in settings.items():
        folder = tmp_path / name
        folder.mkdir()
        branch = {"name": "saliency", "hard_negatives": weight}
        config = {"branches": {"one": branch}, "train": {"epochs": epochs, "batch_size": 8}, "run": {"folder": name}}
        (folder / "config.yaml").write_text(json.dumps(config))
        rows[name] = Row(name, name, (), "moco", ("saliency",), runs=(folder,))
    kinds = {name: cost.settings_but_length(row) for name, row in rows.items()}
    assert kinds["plain"] == kinds["plain, longer"]
    assert kinds["negatives"] == kinds["negatives, longer"]
    assert kinds["plain"] != kinds["negatives"]


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
    (found,) = charts.forests(assembly.build(tmp_path, "A"))
    points = {strip.row.label: (strip.point is None, strip.cut) for strip in found.strips}
    assert points == {"B": (False, (False, False)), "C": (False, (False, False)), "D": (True, (True, False))}


def test_a_critical_difference_wider_than_the_ranks_is_drawn_at_its_full_length(tmp_path):
    report = assembly.build(suite(tmp_path))
    drawn = charts.diagram(report)
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
