"""Reports say the same in every form, escape what users wrote, and never claim more than the trials show."""

import base64
import csv
import hashlib
import html.parser
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from made_results import BASELINE, result, suite, write
from rich.console import Console

from core.provenance import ROOT
from transfer import benchmarks
from transfer import report as reports
from transfer.report import assembly, cost, markdown, published, statistics, terminal, wording
from transfer.report.model import MARKS
from transfer.report.statistics import difference

ATTACK = "<script>alert(1)</script>\"'|`$\\x"


def _texts(folder, baseline=None, out=None):
    out = out or folder / "report"
    reports.write(assembly.build(folder, baseline), out)
    return {path.suffix[1:]: path.read_text() for path in sorted(out.iterdir())}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = suite(tmp_path_factory.mktemp("made"), pictures=True)
    return folder, _texts(folder)


class _Page(html.parser.HTMLParser):
    """Collect a page's text, open elements and links; fail on elements that do not close."""

    VOID = frozenset({"meta", "img", "link", "br", "hr", "input"})

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.words, self.tags = [], set(), [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.ids |= {values["id"]} if "id" in values else set()
        self.links += [values["href"]] if "href" in values else []
        self.sources += [values["src"]] if "src" in values else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_every_form_holds_the_same_means_and_verdicts(made):
    folder, texts = made
    report = assembly.build(folder)
    assert report.baseline.label == BASELINE
    for row in report.rows:
        for column in report.columns:
            cell = report.cell(row, column)
            summary = cell.summary(column.headline)
            shown = f"{summary.mean:.2f} ± {summary.std:.2f}"
            assert shown in texts["md"]
            assert shown in texts["html"]
            assert re.search(rf"\$(\\mathbf{{)?{summary.mean:.2f}}}? \\pm {summary.std:.2f}\$", texts["tex"])
    rows = list(csv.DictReader(texts["csv"].splitlines()))
    assert len(rows) == 3 * 3 * (4 + 3)
    assert {row["kind"] for row in rows} == {"measured"}
    assert texts["md"].count("▲") == 3  # twice in the table, once in the legend
    assert texts["html"].count('<span class="mark-better"') == 2
    assert texts["tex"].count(r"$^{\blacktriangle}$") == 3


def test_differences_are_welchs_against_the_baseline(made):
    report = assembly.build(made[0])
    column = report.columns[0]
    rows = {row.label: report.cell(row, column) for row in report.rows}
    expected = difference(rows["MoCo v2 + MixMask"].values("bbox/AP"), rows[BASELINE].values("bbox/AP"))
    found = rows["MoCo v2 + MixMask"].difference
    assert (found.mean, found.p) == (pytest.approx(expected.mean), pytest.approx(expected.p))
    assert found.corrected_p >= found.p
    assert rows[BASELINE].difference is None


def test_the_page_is_one_well_formed_file_without_requests(made):
    text = made[1]["html"]
    page = _Page(text)
    assert {link[1:] for link in page.links} <= page.ids
    assert all(link.startswith("#") for link in page.links)
    assert page.sources
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources)
    assert not re.search(r"url\(|@import|https?://", text)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text
    assert len(text) < 8_000_000


def test_the_page_names_the_interval_of_each_mean_and_explains_it_once(made, tmp_path):
    text = made[1]["html"]
    assert len(re.findall(r'<span class="sub">± [\d.]+</span>', text)) == 3 * 2
    assert text.count("Mean of the trials and its 95 % interval") == 1
    single = _texts(suite(tmp_path, trials=1))["html"]
    assert single.count('<span class="sub">one trial</span>') == 3 * 2
    assert not re.search(r'<span class="sub">± ', single)


def test_every_picture_is_there_once_and_a_press_on_it_opens_the_large_view(made):
    text = made[1]["html"]
    pictures = re.findall(r'<a href="#large"><img decoding="async" src="([^"]+)" alt="[^"]+"></a>', text)
    assert len(pictures) == text.count("data:image/webp") == 2 + 2 * 2 * 3
    assert text.count('<dialog id="large"') == 1


def test_curves_pictures_cost_recipes_commands_and_environment_are_in_the_page(made):
    text = made[1]["html"]
    words = " ".join(" ".join(_Page(text).words).split())
    assert len(_Page(text).sources) == 2 + 2 * 2 * 3
    for part in (
        "Pre-training",
        "Shapes detection: fine-tuning",
        "1 min 02 s",
        "4 min 25 s",
        "2 query + 1 key",
        "cpu, 900 MiB",
        "tensors checked",
    ):
        assert part in words
    for part in ("python tools/run_benchmark.py x.pth", "git_commit", "c0ffee", "Nothing: every cell"):
        assert part in words
    assert text.count("<path class=") >= 2 + 3 * 3 * 2


def test_what_users_wrote_is_escaped_everywhere(tmp_path):
    for trial in range(2):
        values = result(ATTACK, ATTACK, trial, {ATTACK: 1.0 + trial, "b": 2.0})
        values["checkpoint"] |= {"method": ATTACK, "branches": [ATTACK], "notes": ATTACK, "pretrain": {ATTACK: ATTACK}}
        values |= {"environment": {ATTACK: ATTACK}, "command": ATTACK, "finished": ATTACK}
        values["recipe"] = {"effective": {ATTACK: ATTACK}, "published": {ATTACK: "x"}}
        values["protocol"] |= {"title": ATTACK, "config": ATTACK, "options": [ATTACK]}
        write(tmp_path / str(trial), values)
    write(tmp_path / ATTACK.replace("/", ""), "no")
    texts = _texts(tmp_path, ATTACK)
    page = _Page(texts["html"])
    assert page.tags.count("script") == 1
    assert "alert(1)" in " ".join(page.words)
    outside_code = re.sub(r"(`+).*?\1", "", texts["md"].replace("\\`", ""))
    assert "<script" not in outside_code
    assert "<script" not in texts["tex"]
    assert {line["checkpoint"] for line in csv.DictReader(texts["csv"].splitlines())} == {ATTACK}


def test_a_formula_in_a_name_stays_text_in_the_csv(tmp_path):
    write(tmp_path / "a", result("=1+1"))
    assert next(csv.DictReader(_texts(tmp_path)["csv"].splitlines()))["checkpoint"] == "'=1+1"


def test_without_the_baseline_there_are_no_differences_and_the_top_says_so(made):
    texts = _texts(made[0], "SimCLR", made[0] / "other")
    said = (
        "The baseline 'SimCLR' is not among the results, so no differences are shown; there are: Random initialisation"
    )
    assert said in texts["md"].split("## Results")[0]
    assert said in " ".join(_Page(texts["html"]).words).replace("\n", " ")
    assert "better" not in texts["md"].split("## Results")[1].split("Mean ±")[0]
    assert 'id="differences"' not in texts["html"]


def test_a_single_trial_is_never_better_however_large_the_gap(tmp_path):
    for name, value in (("A", 10.0), ("B", 90.0)):
        write(tmp_path / name, result(name, metrics={"bbox/AP": value}))
    report = assembly.build(tmp_path, "A")
    cell = report.cell(report.rows[1], report.columns[0])
    assert (cell.difference.mean, cell.difference.verdict) == (80.0, "undecided")
    assert report.conclusions == [
        "B against A on Shapes detection: +80.00 box AP; single trials, or trials without any spread, "
        "cannot tell this from chance."
    ]
    assert "2 cell(s) rest on one trial" in _texts(tmp_path, "A")["md"]


def test_missing_failed_and_skipped_are_named_with_their_reasons_and_the_tool_exits_zero(tmp_path):
    suite(tmp_path, trials=2)
    place = tmp_path / "x--shapes_detection--trial1--00000000"
    (place / "result.json").unlink()
    (place / "failure.json").write_text(json.dumps({"reason": "exit code 1: RuntimeError: no memory"}))
    (tmp_path / "m--shapes_detection--trial0--00000000" / "result.json").unlink()
    write(tmp_path / "hand", '{"schema_version": 1, ')
    command = [sys.executable, str(ROOT / "tools" / "write_report.py"), str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "report.md").read_text()
    assert "- MoCo v2 + MixMask on Shapes detection: trial 1: exit code 1: RuntimeError: no memory" in text
    assert "- MoCo v2 + MSCN on Shapes detection: trial 0: not run yet" in text
    assert "hand/result.json`: not JSON, perhaps truncated" in text
    assert str(tmp_path / "out" / "report.html") in done.stdout
    page = (tmp_path / "out" / "report.html").read_text()
    assert "RuntimeError: no memory" in page
    assert "1 of 2 trials" in page


def test_a_benchmark_without_any_result_is_a_column_of_missing_cells_under_its_title(tmp_path):
    suite(tmp_path, trials=1)
    for path in tmp_path.glob("*--shapes_segmentation--*/result.json"):
        path.unlink()
    text = _texts(tmp_path)["md"]
    assert "| checkpoint | Shapes detection, box AP | difference to MoCo v2 + MSCN | Shapes segmentation |" in text
    assert text.count("– (missing)") == 3


def test_trials_without_a_value_are_left_out_of_the_mean_and_counted(tmp_path):
    for trial, value in enumerate((10.0, float("nan"), 12.0)):
        write(tmp_path / str(trial), result("A", trial=trial, metrics={"bbox/AP": value}))
    report = assembly.build(tmp_path, "A")
    assert report.cell(report.rows[0], report.columns[0]).summary("bbox/AP").mean == 11.0
    assert any("1 cell(s) have no value in some trial" in notice for notice in report.notices)


def test_a_benchmark_that_never_had_a_value_is_a_dash_and_breaks_nothing(tmp_path):
    write(tmp_path / "a", result("A", metrics={"bbox/AP": None}))
    assert "| A (baseline) | – (1 trial) |" in _texts(tmp_path, "A")["md"]


@pytest.mark.parametrize(("method", "trial"), [("moco", 1), ("random", 0)])
def test_results_of_another_file_under_the_same_name_are_another_row(tmp_path, method, trial):
    for place, number, digest in (("a", 0, "41" + 62 * "0"), ("b", trial, "f" * 64)):
        values = result("A", trial=number)
        values["checkpoint"] |= {"sha256": digest, "method": method}
        write(tmp_path / place, values)
    report = assembly.build(tmp_path, "A")
    assert [row.label for row in report.rows] == ["A @41000000", "A @ffffffff"]
    assert report.baseline is None
    assert "2 checkpoint files are named 'A'" in report.notices[0]


def test_results_of_an_earlier_state_of_the_suite_are_skipped(tmp_path):
    suite(tmp_path, trials=2)
    old = result(BASELINE, trial=0, metrics={"bbox/AP": 99.0})
    old["checkpoint"]["sha256"] = "f" * 64
    write(tmp_path / "m--shapes_detection--trial0--ffffffff", old)
    report = assembly.build(tmp_path)
    assert len(report.rows) == 3
    assert "of an earlier state of the suite" in report.skipped[0].reason


def test_recipes_that_differ_are_marked_and_spoil_the_conclusion(tmp_path):
    suite(tmp_path, trials=2)
    for path in tmp_path.glob("x--shapes_detection--*/result.json"):
        values = json.loads(path.read_text())
        values["recipe"]["effective"]["lr"] = 0.01
        path.write_text(json.dumps(values))
    texts = _texts(tmp_path)
    assert "- MoCo v2 + MixMask: lr is 0.01, published 0.02" in texts["md"]
    assert '<td class="warned">⚠ 0.01</td>' in texts["html"]
    assert "Their recipes differ, so this is not the pre-training alone" in texts["md"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": {"effective": {"batch": 4, "lr": 0.02, "norm": "SyncBN"}}}, "norm SyncBN"),
        ({"recipe": {"effective": {"batch": 8, "lr": 0.02}}}, "batch 8"),
        ({"recipe": {"effective": {"batch": 4, "lr": 0.02, "iterations": 12}}}, "iterations 12"),
        ({"recipe": {}}, "batch not stated, lr not stated"),
        ({"data": {"train": {"annotations": "abc"}}}, "data fb0d59c4"),
    ],
)
def test_a_cell_holds_one_thing_and_what_differs_is_another_row_named_by_it(tmp_path, changes, said):
    for trial in range(3):
        write(tmp_path / f"a{trial}", result("A", trial=trial, metrics={"bbox/AP": 10.0 + trial}))
        write(tmp_path / f"b{trial}", result("B", trial=trial, metrics={"bbox/AP": 20.0 + trial}))
    write(tmp_path / "b3", result("B", trial=3, metrics={"bbox/AP": 90.0}, **changes))
    report = assembly.build(tmp_path, "A")
    means = {row.label: report.cell(row, report.columns[0]).summary("bbox/AP").mean for row in report.rows}
    assert means == {"A": 11.0, "B": 21.0, f"B, {said}": 90.0}
    assert f"Trials under other conditions than the rest of their cell were kept apart: “B, {said}”." in report.notices
    reports.write(report, tmp_path / "out")
    for form in ("report.html", "report.md", "report.csv", "report.tex"):
        assert said in (tmp_path / "out" / form).read_text()


def test_how_a_recipe_is_carried_out_and_the_rate_that_a_sweep_chose_part_no_trials(tmp_path):
    for trial, (devices, rate) in enumerate(((1, 0.02), (8, 0.06))):
        recipe = {"effective": {"batch": 16, "devices": devices, "lr": rate}, "lr_sweep": {"chosen": rate / 0.02}}
        write(tmp_path / str(trial), result("A", trial=trial, recipe=recipe))
    (row,) = assembly.build(tmp_path, "A").rows
    assert (row.label, row.variant) == ("A", "")


def test_numbers_on_other_data_than_the_baselines_are_shown_and_not_compared(tmp_path):
    for trial in range(3):
        for name, data in (("A", {"test": "1"}), ("B", {"test": "1"}), ("C", {"test": "2"})):
            write(tmp_path / f"{name}{trial}", result(name, trial=trial, metrics={"bbox/AP": 10.0 + trial}, data=data))
    report = assembly.build(tmp_path, "A")
    assert [line.split()[0] for line in report.conclusions] == ["B"]
    assert "1 cell(s) were trained or measured on other data than the baseline's: not compared." in report.notices


def test_damaged_pictures_are_named_and_left_out(tmp_path):
    suite(tmp_path, trials=1, pictures=True)
    (tmp_path / "checkpoints" / "m" / "views.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert "Pictures that could not be read" in _texts(tmp_path)["html"]


def test_a_damaged_suite_description_is_named_and_the_results_are_reported(tmp_path):
    suite(tmp_path, trials=2)
    (tmp_path / "suite.json").write_text('{"checkpoints": [{"name": 3}]')
    report = assembly.build(tmp_path, BASELINE)
    assert len(report.rows) == 3
    assert "so missing cells are not known" in report.skipped[0].reason


def test_an_empty_folder_gives_a_report_that_says_so(tmp_path):
    assert "No results in" in _texts(tmp_path)["md"]


def test_a_folder_of_another_schema_version_gives_a_report_that_names_every_file_and_the_version(tmp_path):
    for trial in range(2):
        write(tmp_path / str(trial), result(trial=trial, schema_version=2))
    text = _texts(tmp_path)["md"]
    assert "> No results in" in text.split("## Results")[0]
    assert "2 file(s) were skipped" in text.split("## Results")[0]
    assert text.count("schema\\_version is 2; this version reads 1") == 2


def test_the_terminal_shows_the_table_and_the_files(made, tmp_path):
    with open(tmp_path / "out.txt", "w") as file:
        report = assembly.build(made[0])
        terminal.show(report, [made[0] / "report" / "report.html"], Console(file=file, width=200))
    text = (tmp_path / "out.txt").read_text()
    assert any(BASELINE in line and line.rstrip().endswith("baseline") for line in text.splitlines())
    assert "▲" in text
    assert text.rstrip().endswith("report.html")


def _voc(tmp_path, **changes):
    values = result("ours", "voc0712_detection", metrics={"bbox/AP": 57.5, "bbox/AP50": 82.0})
    values["protocol"]["headline"] = "bbox/AP"
    values["checkpoint"]["pretrain"] = {}
    values["protocol"]["options"] = changes.pop("options", [])
    values["checkpoint"] |= changes.pop("checkpoint", {})
    write(tmp_path / "a", values | changes)
    return _texts(tmp_path)


def test_published_numbers_stand_in_their_own_column_with_their_source(tmp_path):
    texts = _voc(tmp_path)
    assert "| published |" in texts["md"]
    assert (
        "57 (ImageNet-1K, 200 epochs, MoCo repository); 57.4 (ImageNet-1K, 800 epochs, MoCo repository)" in texts["md"]
    )
    rows = [row for row in csv.DictReader(texts["csv"].splitlines()) if row["metric"] == "bbox/AP"]
    assert [row["value"] for row in rows if row["kind"] == "measured"] == ["57.5"]
    assert any(row["kind"] == "published, other protocol" for row in rows)
    assert "not comparable" in texts["html"]


@pytest.mark.parametrize(
    ("recipe", "shown"),
    [
        ({"effective": {"batch": 4, "lr": 0.005}, "published": {"batch": 16, "lr": 0.02}}, False),
        ({"effective": {"devices": 1, "norm": "BN"}, "published": {"devices": 8, "norm": "SyncBN"}}, True),
        ({"effective": {"devices": 4, "norm": "BN"}, "published": {"devices": 8, "norm": "SyncBN"}}, False),
        (
            {
                "effective": {"devices": 4, "norm": "BN", "norm_group": 16, "accumulate": 2},
                "published": {"devices": 8, "norm": "naiveSyncBN", "norm_group": 16, "accumulate": 1},
            },
            True,
        ),
        ({"effective": {"devices": 4, "norm_group": 4}, "published": {"devices": 8, "norm_group": 16}}, False),
    ],
)
def test_published_numbers_disappear_when_the_protocol_was_changed(tmp_path, recipe, shown):
    assert ("| published |" in _voc(tmp_path, recipe=recipe)["md"]) is shown


def test_every_published_row_belongs_to_a_benchmark_and_cites_a_source():
    known = set(benchmarks.shipped())
    assert {name for group in published.groups() for name in (group.benchmark, *group.elsewhere)} <= known
    assert sum(len(group.rows) for group in published.groups()) == 174
    assert published.matching("voc0712_detection", "moco", ("mscn",), "bbox/AP") == []  # its protocol was not stated
    assert published.matching("voc12_segmentation", "moco", (), "seg/mIoU")[0][0] == 67.5


@pytest.mark.parametrize(
    ("benchmark", "name", "metric", "value", "comparable"),
    [
        ("imagenet_linear", "MixMask", "linear/top1", 69.2, False),
        ("imagenet_linear", "MoCo v2", "linear/top1", 67.5, True),
        ("imagenet_linear_lars", "BYOL", "linear/top1", 70.6, True),
        ("imagenet100_linear", "MoCo v2 + saliency, blur", "linear/top1", 72.5, False),
        ("imagenet100_linear", "mean fill, query masked", "linear/top1", 58.34, False),
        ("coco_c4_2x", "Un-Mix", "bbox/AP75", 44.7, True),
        ("coco_fpn_4conv1fc", "PixPro", "segm/AP", 37.4, True),
        ("voc12_fcn16s", "BYOL", "seg/mIoU", 76.3, True),
        ("voc12_segmentation", "SimSiam", "seg/mIoU", 46.27, False),
        ("coco_fpn_4conv1fc", "BYOL, batch 4096", "segm/AP", 36.8, False),
        ("voc0712_detection", "MoCo v2", "bbox/AP50", 81.06, False),
        ("imagenet_knn", "SimSiam", "knn20/top1", 60.4, False),
        ("imagenet_linear", "Un-Mix multi-scale", "linear/top1", 69.8, False),
        ("caltech101_linear", "SimCLR + MSCN", "linear/top1", 86.99, False),
        ("flowers102_linear", "MoCo v2 + saliency, high-pass", "linear/top1", 90.95, False),
        ("cifar10_knn", "Un-Mix symmetric", "knn/top1", 92.25, False),
        ("cifar100_linear", "SimSiam", "linear/top1", 66.04, False),
    ],
)
def test_published_numbers_are_those_of_the_table_and_say_whether_they_compare(
    benchmark, name, metric, value, comparable
):
    found = [
        (group.comparable, group.value(row, metric))
        for group in published.of(benchmark)
        for row in group.rows
        if row.name == name
    ]
    assert (comparable, value) in found


def test_published_numbers_stand_beside_the_same_epochs_data_and_branches_only_as_far_as_they_are_known(tmp_path):
    run = {"steps": 200 * 5004, "batch_size": 256, "epochs": 200}
    settings = {"mixed": {"name": "unmix", "mixup_probability": 0.5, "alpha": 1.0, "weight": 1.0}}
    for number, (changes, shown) in enumerate([
        ({}, ["57 (", "57.4 ("]),  # a download of which nothing is known
        ({"pretrain": {"epochs": 200}}, ["57 ("]),
        ({"pretrain": {"epochs": 800}}, ["57.4 ("]),
        ({"name": "MoCo v2, 800 ep"}, ["57.4 ("]),
        ({"pretrain": {"epochs": 6}}, []),
        ({"pretrain": run}, ["57 ("]),
        ({"pretrain": run | {"steps": 200 * 195}}, []),  # 200 epochs of CIFAR-10
        ({"pretrain": {"epochs": "200", "steps": None}}, ["57 (", "57.4 ("]),
        ({"branches": ["unmix"], "pretrain": {"epochs": 200}}, ["57.7 ("]),
        ({"branches": ["unmix"], "pretrain": run | {"branch_settings": settings}}, ["57.7 ("]),
        ({"branches": ["unmix"], "pretrain": run | {"branch_settings": {"a": settings["mixed"] | {"alpha": 0.2}}}}, []),
        ({"branches": ["unmix"], "pretrain": run | {"branch_settings": 3}}, ["57.7 ("]),
    ]):  # fmt: skip
        text = _voc(tmp_path / str(number), checkpoint=changes)["md"]
        assert [value for value in ("57 (", "57.4 (", "57.7 (", "58.1 (") if value in text] == shown, changes


def test_numbers_whose_learning_rate_was_searched_stand_beside_a_sweep_and_never_beside_a_fixed_rate(tmp_path):
    byol = {"method": "byol"}
    fixed = {"effective": {"batch": 16, "lr": 0.02}, "published": {"batch": 16, "lr": 0.02}}
    swept = {"effective": {"batch": 16, "lr": 0.06}, "published": {"batch": 16, "lr": 0.02}, "lr_sweep": {"chosen": 3}}
    assert "| published |" not in _voc(tmp_path / "a", checkpoint=byol, recipe=fixed)["md"]
    text = _voc(tmp_path / "b", checkpoint=byol, recipe=swept, options=["--lr-sweep=0.3,1,3"])
    assert "55.3 (ImageNet-1K, 200 epochs, SimSiam table 5)" in text["md"]
    assert "learning rate searched" in text["html"]
    assert (
        "| published |" not in _voc(tmp_path / "c", recipe=swept, options=["--lr-sweep=0.3,1,3"])["md"]
    )  # MoCo's is fixed


def test_numbers_of_other_rules_on_the_same_data_are_shown_there_as_not_comparable():
    for benchmark in ("coco_c4", "coco_fpn", "voc12_segmentation_40k", "voc12_segmentation"):
        assert any(not group.comparable for group in published.of(benchmark))
    assert published.matching("coco_fpn", "moco", (), "bbox/AP") == []
    assert [value for value, _ in published.matching("coco_fpn_4conv1fc", "moco", (), "bbox/AP")] == [40.4]


@st.composite
def _result_sets(draw):
    """Draw results of a few checkpoints on a few benchmarks: equal, tiny, far apart, missing, correlated, out of order."""
    level = st.sampled_from([0.0, 0.004, 50.0, 50.004, 57.3, 100.0])
    spread = st.sampled_from([0.0, 1e-9, 0.003, 0.3, 5.0, 40.0])
    found = []
    for benchmark in range(draw(st.integers(1, 3))):
        seeds = [draw(st.floats(-1, 1)) * draw(spread) for _ in range(6)]
        for name in "ABCD"[: draw(st.integers(2, 4))]:
            middle, wide = draw(level), draw(spread)
            for trial in range(draw(st.integers(0, 6))):
                value = min(100.0, max(0.0, middle + seeds[trial] + wide * draw(st.floats(-1, 1))))
                metrics = {"bbox/AP": draw(st.sampled_from([value, value, value, None]))}
                found.append(result(name, f"benchmark{benchmark}", trial, metrics, seed=trial))
    return found


@pytest.mark.parametrize("looked", [False, True])
@hypothesis.settings(max_examples=40, deadline=None, database=None, derandomize=True)
@hypothesis.given(made=_result_sets())
def test_no_sentence_of_a_report_contradicts_its_table(made, looked):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index, values in enumerate(made):
            write(folder / str(index), values)
        if looked:
            (folder / "suite.json").write_text(json.dumps({"looks": [3, 5, 6]}))
        report = assembly.build(folder, "A")
        lines = "\n".join(markdown.headline(report)).replace("\\", "")
    verdicts = []
    for sentence in report.conclusions:
        label, benchmark, mean = re.match(r"(\w) against A on (benchmark\d): ([+−\d.e-]+) ", sentence).groups()
        row = next(row for row in report.rows if row.label == label)
        column = next(column for column in report.columns if column.benchmark == benchmark)
        found = report.cell(row, column).difference
        assert f"{mean} " in wording.compared(found)
        assert wording.compared(found) in lines
        verdicts.append(found.verdict)
        said = re.search(r"95 % interval ([+−\d.e-]+) to ([+−\d.e-]+): (\w+)", sentence)
        if said is None:
            assert (found.verdict, "cannot tell this from chance" in sentence) == ("undecided", True)
            continue
        low, high = (float(text.replace("−", "-")) for text in said.groups()[:2])
        middle = float(mean.replace("−", "-"))
        assert said[3] == found.verdict
        assert -100 <= low <= middle <= high <= 100
        assert {"better": low > 0, "worse": high < 0, "undecided": low <= 0 <= high}[said[3]]
        assert ("in 8 of 10 cases" in sentence) is (said[3] == "undecided")
        if said[3] == "undecided":
            gap = float(re.search(r"find a gap of ([\d.]+) in 8 of 10 cases", sentence)[1])
            assert abs(middle) <= gap
    told = wording.tally(report)
    for verdict in ("better", "worse", "undecided"):
        number = re.search(rf"\b{verdict} (\d+)", told)
        none = "These trials decide none" in told and verdict == "undecided"
        assert verdicts.count(verdict) == (int(number[1]) if number else len(verdicts) if none else 0)
        assert lines.count(MARKS[verdict]) == verdicts.count(verdict)
    for row in report.rows:
        for column in report.columns:
            summary = report.cell(row, column).summary(column.headline)
            if summary is not None and summary.low is not None:
                assert 0 <= summary.low <= summary.mean + 1e-9
                assert summary.mean - 1e-9 <= summary.high <= 100


def test_how_many_trials_a_gap_needs_follows_from_the_spread_and_the_cost_of_trials(tmp_path, capsys):
    suite(tmp_path, trials=3)
    report = assembly.build(tmp_path)
    needs = {need.column.benchmark: need for need in cost.needs(report, (1.0, 0.2))}
    need = needs["shapes_detection"]
    column = need.column
    deviations = [
        v - sum(x) / 3 for row in report.rows for x in [report.cell(row, column).values("bbox/AP")] for v in x
    ]
    assert need.spread == pytest.approx((sum(d * d for d in deviations) / 6) ** 0.5)
    assert need.found == pytest.approx(statistics.gap_found(need.spread, 3, 4))
    for gap, count, hours in need.gaps:
        assert count == statistics.trials_needed(gap, need.spread, 4)
        assert hours == pytest.approx(count * 3 * 61.5 / 3600)
    assert cost.needs(report, (1.0,), spread=2.0)[0].gaps[0][1] == statistics.trials_needed(1.0, 2.0, 4)
    terminal.needs(report, 1.0)
    assert "device-hours" in capsys.readouterr().out


def test_a_suite_that_decides_as_it_goes_asks_for_trials_where_it_must_and_says_at_which_look_it_decided(tmp_path):
    for name, level in (("A", 50.0), ("B", 50.1), ("C", 90.0)):
        for trial in range(3):
            write(
                tmp_path / f"{name}{trial}", result(name, trial=trial, metrics={"bbox/AP": level + 0.5 * (trial % 2)})
            )
    (tmp_path / "suite.json").write_text(json.dumps({"baseline": "A", "looks": [3, 5, 8]}))
    report = assembly.build(tmp_path)
    assert assembly.wanted(report) == {("A", "shapes_detection"): 5, ("B", "shapes_detection"): 5}
    near, far = report.conclusions
    assert "look after 3 trials" in far
    assert far.endswith(": better.")
    assert "undecided" in near
    assert "and for looking after 3, 5, 8 trials" in wording.method(report)


def test_a_branch_is_shown_with_its_mask_fill_sides_and_weight(tmp_path):
    mask = {
        "name": "mixmask", "mask": {"name": "channel", "grid": 8}, "partner": "reverse", "weight": 1.0,
        "sides": ["query"],
    }  # fmt: skip
    values = result("A")
    values["checkpoint"]["pretrain"] = {"method": "moco", "branches": ["mixmask"], "branch_settings": {"filled": mask}}
    write(tmp_path / "a", values)
    texts = _texts(tmp_path, "A")
    said = "filled mixmask (mask channel (grid 8), partner reverse, weight 1, sides query)"
    assert f"- A: method moco, branches mixmask; {said}" in texts["md"]
    assert said in texts["html"]
