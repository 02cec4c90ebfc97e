"""Results and curves leave for other programs unchanged; services that draw them are asked only by name."""

import csv
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
from made_results import BASELINE, many, result, suite, write
from pycocotools.coco import COCO

from core import tracking
from core.errors import InputError
from core.journal import Journal
from core.provenance import ROOT
from transfer import results
from transfer.report import assembly, export, markdown, paper


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = suite(tmp_path_factory.mktemp("made"), trials=5, seeds=True)
    found = [{"image_id": 7, "category_id": 1, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5}]
    for trial, text in enumerate((json.dumps(found), '[{"image_id": 7}]', "[{")):
        place = folder / f"x--shapes_detection--trial{trial}--00000000" / "run" / "inference"
        place.mkdir()
        (place / "coco_instances_results.json").write_text(text)
    return assembly.build(folder)


@pytest.fixture(scope="module")
def exported(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    return folder, export.everything(made, folder)


def test_parquet_and_csv_hold_the_same_tidy_rows_with_types(exported):
    folder, paths = exported
    assert [path.name for path in paths[:3]] == ["results.parquet", "results.csv", "results.json"]
    table = pyarrow.parquet.read_table(folder / "results.parquet")
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert tuple(table.column_names) == export.FIELDS == tuple(rows[0])
    assert table.num_rows == len(rows) == 5 * 3 * (4 + 3)
    assert {str(table.schema.field(name).type) for name in ("trial", "seed", "epochs")} == {"int64"}
    assert [str(v) for v in table["value"].to_pylist()] == [row["value"] for row in rows]
    assert set(table["checkpoint"].to_pylist()) == {row["checkpoint"] for row in rows}


def test_the_linked_json_has_every_trial_metric_and_difference_and_its_ids_lead_somewhere(exported, made):
    values = json.loads((exported[0] / "results.json").read_text())
    names = {entry["id"]: entry["name"] for entry in values["checkpoints"]}
    benchmarks = {entry["id"]: entry["name"] for entry in values["benchmarks"]}
    trials = {entry["id"]: entry for entry in values["trials"]}
    assert names[values["info"]["baseline_id"]] == BASELINE
    assert len(trials) == 30
    for metric in values["metrics"]:
        trial = trials[metric["trial_id"]]
        row = next(row for row in made.rows if row.label == names[trial["checkpoint_id"]])
        column = next(column for column in made.columns if column.benchmark == benchmarks[trial["benchmark_id"]])
        (found,) = (r for _, r in made.cell(row, column).trials if r.trial == trial["trial"])
        assert found.metrics[metric["name"]] == metric["value"]
    assert len(values["metrics"]) == 5 * 3 * (4 + 3)
    assert {(entry["test"], entry["verdict"]) for entry in values["differences"]} >= {("paired", "worse")}


def test_detections_load_as_coco_results_and_damaged_ones_are_left_out(exported, capsys):
    folder, paths = exported
    assert [path.name for path in paths[3:]] == ["MoCo-v2-+-MixMask--Shapes-detection--trial0.json"]
    truth = COCO()
    truth.dataset = {"images": [{"id": 7}], "annotations": [], "categories": [{"id": 1, "name": "disc"}]}
    truth.createIndex()
    loaded = truth.loadRes(str(paths[3]))
    assert [(a["bbox"], a["score"]) for a in loaded.dataset["annotations"]] == [([1.0, 2.0, 3.0, 4.0], 0.5)]
    values = json.loads((folder / "results.json").read_text())
    files = {entry["detections"] for entry in values["trials"]}
    assert files == {None, "detections/MoCo-v2-+-MixMask--Shapes-detection--trial0.json"}


def test_names_that_are_paths_become_plain_file_names(tmp_path):
    place = write(tmp_path / "results" / "a", result("../../up", "b/c")).parent / "run" / "inference"
    place.mkdir(parents=True)
    (place / "coco_instances_results.json").write_text("[]")
    paths = export.everything(assembly.build(tmp_path / "results"), tmp_path / "out")
    assert paths[3].parent == tmp_path / "out" / "detections"
    assert paths[3].name == "up--b-c--trial0.json"


def test_the_tool_exports_on_request_and_refuses_a_file(tmp_path):
    write(tmp_path / "results" / "a", result())
    tool = [sys.executable, str(ROOT / "tools" / "write_report.py"), str(tmp_path / "results")]
    done = subprocess.run([*tool, "--export", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "out" / "results.parquet") in done.stdout
    (tmp_path / "file").write_text("")
    done = subprocess.run([*tool, "--export", str(tmp_path / "file")], capture_output=True, text=True)
    assert (done.returncode, "is a file; give --export a folder" in done.stderr) == (2, True)


def test_no_report_imports_a_tracking_service_or_pyarrow_unasked():
    code = (
        "import sys; from transfer.report import assembly, export, page; "
        "print(sorted({'mlflow', 'wandb', 'pyarrow', 'torch', 'scipy.stats'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr


PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if "<!-- from results/" in page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tables_of_a_page_are_made_again_from_the_file_behind_it(page, tmp_path):
    text = page.read_text()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results").symlink_to(ROOT / "docs" / "results")
    copy = tmp_path / "docs" / page.name
    blank = re.sub(
        r"(?<=\| )−?\d+\.\d+( ± \d+\.\d+)?(?= \|)", "?", text
    )  # every cell that is a number and not a whole one
    assert blank.count("?") > 20 + text.count("?")
    copy.write_text(blank)
    for source in sorted({copy.parent / name for name in re.findall(r"<!-- from (\S+): ", text)}):
        with results.opened(source) as folder:
            markdown.refill(assembly.build(folder, source=source), copy)
    assert copy.read_text() == text


def test_a_page_whose_lines_or_file_are_unknown_is_refused_and_stays(tmp_path):
    write(tmp_path / "made" / "a", result("A", metrics={"bbox/AP": 1.0}))
    report, page = assembly.build(tmp_path / "made"), tmp_path / "page.md"
    lines = "<!-- from made: row, shapes_detection:bbox/AP .1, trials -->\n| a | b | c |\n|---|---|---|\n"
    for text, reason in (
        ("| no comment |\n", "has no table of"),
        (f"{lines}| B | 1 | 2 |\n", "have no 'B'; there are: A"),
        (f"{lines}| A | 1 |\n", "has 2 cells, its comment 3 fields"),
    ):
        page.write_text(text)
        with pytest.raises(InputError, match=reason):
            markdown.refill(report, page)
        assert page.read_text() == text
    page.write_text(f"{lines}| A | ? | ? |\n")
    assert markdown.refill(report, page) == 1
    assert page.read_text() == f"{lines}| A | 1.0 | 1 |\n"


def test_latex_has_what_papers_print_the_best_in_bold_and_baseline_and_published_rows_under_a_rule(tmp_path):
    metrics = ["bbox/AP", "bbox/AP50", "bbox/AP75", "segm/AP", "bbox/APs"]
    for name, level in (("A", 50.0), ("B", 57.0)):
        for trial in range(3):
            values = {m: level + index + trial / 10 for index, m in enumerate(metrics)}
            made = result(name, "voc0712_detection", trial, values)
            made["protocol"] |= {"headline": "bbox/AP", "metrics": metrics}
            made["checkpoint"]["pretrain"] = {"epochs": 200}
            write(tmp_path / f"{name}{trial}", made)
    paper.write(assembly.build(tmp_path, "A"), tmp_path / "report.tex")
    lines = [line.strip() for line in (tmp_path / "report.tex").read_text().splitlines()]
    body = lines[lines.index(r"\midrule") :]
    assert r" & box AP & box AP50 & box AP75 & mask AP \\".strip() in lines
    assert (
        body[1]
        == r"B & $\mathbf{57.10} \pm 0.10$$^{\blacktriangle}$ & $\mathbf{58.10}$ & $\mathbf{59.10}$ & $\mathbf{60.10}$ \\"
    )
    assert body[2:4] == [r"\midrule", r"A & $50.10 \pm 0.10$ & $51.10$ & $52.10$ & $53.10$ \\"]
    assert body[4:6] == [r"\midrule", r"MoCo v2, 200 ep (published) & 57 & 82.4 & 63.6 & -- \\"]
    assert r"\begin{table}" in lines
    many(tmp_path / "many", trials=1)
    paper.write(assembly.build(tmp_path / "many", "MoCo v2"), tmp_path / "wide.tex")
    text = (tmp_path / "wide.tex").read_text()
    assert r"\begin{table*}" in text
    assert r"\resizebox{\textwidth}{!}{\begin{tabular}" in text
    assert text.count("{") == text.count("}")


def test_figures_for_a_paper_come_as_pdf_svg_and_png_of_everything_that_has_numbers(tmp_path):
    folder = suite(tmp_path / "made")
    write(folder / "x", result("$x^2 \\alpha", metrics={"bbox/AP": 90.0}))  # no mathematics, and far off the scale
    paths = paper.figures(assembly.build(folder), tmp_path / "out")
    names = sorted({path.stem for path in paths})
    assert names == [f"{k}-shapes-{b}" for k in ("cost", "differences") for b in ("detection", "segmentation")] + [
        "ranks"
    ]
    starts = {".pdf": b"%PDF", ".svg": b"<?xml", ".png": b"\x89PNG"}
    assert len(paths) == len(names) * 3
    assert all(path.read_bytes().startswith(starts[path.suffix]) for path in paths)
    with pytest.raises(InputError, match="is a file; give --figures a folder"):
        paper.figures(assembly.build(folder), paths[0])


def test_two_folders_are_compared_cell_by_cell_and_what_else_differs_is_named(tmp_path):
    for folder, rise in (("old", 0.0), ("new", 5.0)):
        for name in ("A", "B", "C"):
            for trial in range(4):
                values = {"bbox/AP": 20.0 + trial / 10 + rise * (name == "B")}
                write(tmp_path / folder / f"{name}{trial}", result(name, trial=trial, metrics=values))
    write(tmp_path / "old" / "gone", result("D"))
    made = result("A", "mine", metrics={"score": 1.0})
    write(tmp_path / "new" / "more", made)
    for trial in range(4):
        path = tmp_path / "new" / f"B{trial}" / "result.json"
        values = json.loads(path.read_text())
        values["recipe"]["effective"]["lr"] = 0.04
        values["environment"]["packages"]["torch"] = "2.15.0"
        path.write_text(json.dumps(values))
    tool = [sys.executable, str(ROOT / "tools" / "write_report.py"), str(tmp_path / "old"), str(tmp_path / "new")]
    done = subprocess.run([*tool, "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "comparison.md").read_text().splitlines()
    assert "5 cells, 3 of them changed, 1 beyond chance" in lines[2]
    rows = {tuple(line.split(" | ")[:2]): line for line in lines if line.startswith("| ")}
    b = rows["| B", "Shapes detection"]
    assert "20.15 ± 0.13 (4 trials) | 25.15 ± 0.13 (4 trials) | +5.00" in b
    assert b.endswith("▲ | lr 0.02 → 0.04; torch 2.14.1 → 2.15.0 |")
    assert "the same" in rows["| A", "Shapes detection"]
    assert rows["| D", "Shapes detection"].endswith("only in the first |")
    assert rows["| A", "mine"].endswith("only in the second |")


FAKE = {
    "wandb": """
import json, pathlib
class Run:
    def __init__(self, asked): self.id, self.asked, self.logged = asked.get("id") or "new-id", asked, []
    def log(self, values, step): self.logged.append((step, values))
    def finish(self): self.logged.append("finished")
runs = []
def init(**asked):
    runs.append(Run(asked))
    return runs[-1]
""",
    "mlflow": """
import types
calls = []
def set_experiment(name): calls.append(("experiment", name))
def start_run(run_id=None, run_name=None):
    calls.append(("start", run_id, run_name))
    return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id or "new-id"))
def log_dict(values, name): calls.append(("config", values))
def log_params(values): calls.append(("parameters", values))
def log_metrics(values, step): calls.append((step, values))
def end_run(): calls.append("end")
""",
}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Put a recording stand-in for a service's package on the path and return it."""
    monkeypatch.syspath_prepend(tmp_path / "packages")
    for variable in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)

    def install(name):
        (tmp_path / "packages").mkdir(exist_ok=True)
        (tmp_path / "packages" / f"{name}.py").write_text(FAKE[name])
        monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield install
    for name in FAKE:
        sys.modules.pop(name, None)


def journal(folder, *names, start=0):
    folder.mkdir(exist_ok=True)
    with Journal(
        folder, 10, start=start, trackers=tracking.start(names, tracking.Run(folder.name, {"seed": 3}, folder))
    ) as opened:
        opened.log(start + 1, loss=0.5, knn_top1=None, epoch=0, grad_norm=float("nan"))


def test_wandb_gets_the_config_and_finite_numbers_and_a_resumed_run_goes_on_there(tmp_path, installed):
    wandb = installed("wandb")
    journal(tmp_path / "try", "wandb")
    journal(tmp_path / "try", "wandb", start=1)
    first, second = wandb.runs
    assert (first.asked["project"], first.asked["name"], first.asked["config"]) == ("masktransfer", "try", {"seed": 3})
    assert [run.asked["id"] for run in (first, second)] == [None, "new-id"]
    assert first.logged == [(1, {"loss": 0.5, "epoch": 0}), "finished"]
    assert second.logged == [(2, {"loss": 0.5, "epoch": 0}), "finished"]


def test_mlflow_gets_the_config_once_and_a_resumed_run_goes_on_there(tmp_path, installed):
    mlflow = installed("mlflow")
    journal(tmp_path / "try", "mlflow")
    journal(tmp_path / "try", "mlflow", start=1)
    numbers = {"loss": 0.5, "epoch": 0}
    assert mlflow.calls == [
        ("experiment", "masktransfer"), ("start", None, "try"), ("config", {"seed": 3}), (1, numbers), "end",
        ("experiment", "masktransfer"), ("start", "new-id", None), (2, numbers), "end",
    ]  # fmt: skip


def test_tensorboard_writes_an_event_file(tmp_path):
    journal(tmp_path / "try", "tensorboard")
    (events,) = (tmp_path / "try").glob("events.out.tfevents*")
    assert b"loss" in events.read_bytes()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_service_that_is_not_installed_is_refused_with_the_next_step(name):
    with pytest.raises(InputError, match=f"run.track names {name}, which is not installed; install it"):
        tracking.check([name])


def _report(folder):
    write(folder / "a", result("A", metrics={"bbox/AP": 1.5, "bbox/AP-a(b)": 2.0, "bbox/APs": None}))
    write(folder / "b", result("A", trial=1, metrics={"bbox/AP": 2.5}))
    return assembly.build(folder)


def test_mlflow_gets_one_closed_run_a_trial_with_admissible_names(tmp_path, installed):
    mlflow = installed("mlflow")
    assert export.log(_report(tmp_path), "mlflow", "mine") == 2
    experiment, start, (_, told), numbers, end = mlflow.calls[:5]
    assert (experiment, start, end) == (
        ("experiment", "mine"),
        ("start", None, "A · Shapes detection · trial 0"),
        "end",
    )
    assert (told["trial"], told["seed"], told["benchmark"]) == ("0", "1000", "shapes_detection")
    assert numbers[1] == {"bbox/AP": 1.5, "bbox/AP-a_b_": 2.0, "cost/seconds": 61.5, "cost/peak_memory_mib": 900.0}


def test_wandb_gets_one_finished_run_a_trial_grouped_by_cell(tmp_path, installed):
    wandb = installed("wandb")
    assert export.log(_report(tmp_path), "wandb") == 2
    assert {run.asked["project"] for run in wandb.runs} == {tmp_path.name}
    assert {run.asked["group"] for run in wandb.runs} == {"A · shapes_detection"}
    assert [(run.logged[0][1]["bbox/AP"], run.logged[1]) for run in wandb.runs] == [
        (1.5, "finished"),
        (2.5, "finished"),
    ]


def test_a_service_that_is_missing_unknown_or_fails_is_named_with_the_next_step(tmp_path, installed, monkeypatch):
    report = _report(tmp_path)
    with pytest.raises(InputError, match="no tracking service 'tensorbored'; there are: mlflow, wandb"):
        export.log(report, "tensorbored")
    with pytest.raises(InputError, match=r"--log names wandb, which is not installed; install it .*\[tracking\]"):
        export.log(report, "wandb")
    wandb = installed("wandb")
    monkeypatch.setattr(wandb.Run, "log", lambda *_, **__: 1 / 0)
    with pytest.raises(InputError, match="wandb failed after 0 of 2 trials: division by zero"):
        export.log(report, "wandb")


def test_nothing_is_imported_that_was_not_asked_for():
    code = (
        "import sys; import pretrain.setup; "
        "print([name for name in ('wandb', 'mlflow', 'tensorboard', 'timm') if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
