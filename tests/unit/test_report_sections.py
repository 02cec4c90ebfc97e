"""What stands behind a report's sections: pairs, ranks, cost, breakdowns, curves, pictures, and the cache between two."""

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
from transfer.report import assembly, breakdown, charts, curves, diagram, page, pictures
from transfer.report.cache import FILE, Cache

MIXMASK = "MoCo v2 + MixMask"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = suite(tmp_path_factory.mktemp("made"), pictures=True, seeds=True, curves=True, knn=True)
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
            values = result(name, trial=trial, metrics={"bbox/AP": 10.0 + trial + 0.01 * trial * len(name)}, seed=seed)
            write(tmp_path / f"{name}{trial}", values | (changes if name == "B" else {}))
    report = assembly.build(tmp_path, "A")
    return report.cell(_row(report, "B"), report.columns[0]).difference


@pytest.mark.parametrize(
    ("seeds", "others", "paired"),
    [
        ([1, 2, 3], [3, 1, 2], True),
        ([1, 2, 3], [1, 2, 4], False),
        ([1, 2, 3], [1, 2, 3, 4], False),
        ([1, 1, 1], [1, 1, 1], False),
        ([None, None, None], [None, None, None], False),
        ([1, 2], [1, 2], False),  # two pairs say next to nothing of their spread
    ],
)
def test_pairs_need_the_same_seeds_once_each_in_both_cells(tmp_path, seeds, others, paired):
    assert _two(tmp_path, seeds, others).paired is paired


def test_pairs_are_matched_by_seed_and_not_by_trial(tmp_path):
    ordered, shuffled = _two(tmp_path / "a", [1, 2, 3], [1, 2, 3]), _two(tmp_path / "b", [1, 2, 3], [3, 2, 1])
    assert ordered.mean == pytest.approx(shuffled.mean)
    assert ordered.p is None  # the same values in the same order: no spread at all
    assert shuffled.p is not None


def test_another_recipe_has_another_order_of_data_and_is_not_paired(tmp_path):
    recipe = {"effective": {"batch": 8}, "published": {"batch": 8}}
    assert not _two(tmp_path, [1, 2, 3], [1, 2, 3], recipe=recipe).paired


def test_a_report_with_both_tests_marks_the_unpaired_ones_in_every_form(tmp_path):
    suite(tmp_path, seeds=True)
    path = tmp_path / "r--shapes_detection--trial2--00000000" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 77}))
    report = assembly.build(tmp_path)
    reports.write(report, tmp_path / "out")
    assert report.tests == {"paired", "Welch"}
    text = (tmp_path / "out" / "report.html").read_text()
    assert text.count(", unpaired</span>") == 1
    text = (tmp_path / "out" / "report.md").read_text()
    assert "or, marked 'unpaired', by Welch's t-test" in text
    assert text.count("▼ unpaired |") == 1
    assert "(paired t-test or Welch's test, Holm" in (tmp_path / "out" / "report.tex").read_text()


def test_ranks_are_those_of_the_means_and_the_diagram_puts_the_best_first(made):
    assert {row.label: rank for row, rank in zip(made.ranks.rows, made.ranks.found.ranks, strict=True)} == {
        "Random initialisation": 3.0,
        BASELINE: 2.0,
        MIXMASK: 1.0,
    }
    drawn = diagram.diagram(made)
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
    (table,) = breakdown.classes(report)
    assert [(name, [(c.mean, c.gap) for c in cells]) for name, cells in table.lines] == [
        ("traffic light", [(5.0, ""), (8.0, "+3.0")])
    ]
    (strips,) = breakdown.sizes(report)
    assert [strip.name for strip in strips.strips] == ["box AP, small", "box AP, large"]
    assert [(d.row.label, d.at) for d in strips.strips[0].dots] == [("A", 0.0), ("B", pytest.approx(100 / 3, abs=0.01))]
    assert _column(report, "knn").overall == list(known)


def test_too_many_classes_for_a_page_are_named_and_stay_in_the_csv(made, monkeypatch, tmp_path):
    monkeypatch.setattr(breakdown, "MOST", 2)
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
    monkeypatch.setattr(pictures.Pictures, "_encoded", never)
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
    pictures.views(report, pictures.Pictures(cache, 10**7))
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
