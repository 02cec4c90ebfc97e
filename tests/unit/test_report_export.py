"""Results leave for other programs unchanged, and tracking services are asked only by name."""

import csv
import json
import subprocess
import sys
import types

import pyarrow.parquet
import pytest
from made_results import BASELINE, result, suite, write
from pycocotools.coco import COCO

from core.errors import InputError
from core.provenance import ROOT
from transfer.report import assembly, export, tidy, tracking


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = suite(tmp_path_factory.mktemp("made"), seeds=True)
    found = [{"image_id": 7, "category_id": 1, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5}]
    for trial, text in enumerate((json.dumps(found), '[{"image_id": 7}]', "[{")):
        place = folder / f"x--shapes_detection--trial{trial}--00000000" / "run" / "inference"
        place.mkdir()
        (place / "coco_instances_results.json").write_text(text)
    return assembly.build(folder)


@pytest.fixture(scope="module")
def exported(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    return folder, export.write(made, folder)


def test_parquet_and_csv_hold_the_same_tidy_rows_with_types(exported):
    folder, paths = exported
    assert [path.name for path in paths[:3]] == ["results.parquet", "results.csv", "results.json"]
    table = pyarrow.parquet.read_table(folder / "results.parquet")
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert tuple(table.column_names) == tidy.FIELDS == tuple(rows[0])
    assert table.num_rows == len(rows) == 3 * 3 * (4 + 3)
    assert {str(table.schema.field(name).type) for name in ("trial", "seed", "epochs")} == {"int64"}
    assert [str(v) for v in table["value"].to_pylist()] == [row["value"] for row in rows]
    assert set(table["checkpoint"].to_pylist()) == {row["checkpoint"] for row in rows}


def test_the_linked_json_has_every_trial_metric_and_difference_and_its_ids_lead_somewhere(exported, made):
    values = json.loads((exported[0] / "results.json").read_text())
    names = {entry["id"]: entry["name"] for entry in values["checkpoints"]}
    benchmarks = {entry["id"]: entry["name"] for entry in values["benchmarks"]}
    trials = {entry["id"]: entry for entry in values["trials"]}
    assert names[values["info"]["baseline_id"]] == BASELINE
    assert len(trials) == 18
    for metric in values["metrics"]:
        trial = trials[metric["trial_id"]]
        row = next(row for row in made.rows if row.label == names[trial["checkpoint_id"]])
        column = next(column for column in made.columns if column.benchmark == benchmarks[trial["benchmark_id"]])
        (found,) = (r for _, r in made.cell(row, column).trials if r.trial == trial["trial"])
        assert found.metrics[metric["name"]] == metric["value"]
    assert len(values["metrics"]) == 3 * 3 * (4 + 3)
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
    paths = export.write(assembly.build(tmp_path / "results"), tmp_path / "out")
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


class _Mlflow(types.ModuleType):
    """Record what a real one would be asked."""

    def __init__(self):
        super().__init__("mlflow")
        self.experiments, self.runs = [], []

    def set_experiment(self, name):
        self.experiments.append(name)

    def start_run(self, run_name):
        self.runs.append({"name": run_name})
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.runs[-1]["closed"] = True

    def log_params(self, values):
        self.runs[-1]["params"] = values

    def log_metrics(self, values):
        self.runs[-1]["metrics"] = values


class _Wandb(types.ModuleType):
    """Record what a real one would be asked."""

    def __init__(self):
        super().__init__("wandb")
        self.runs = []

    def init(self, **given):
        self.runs.append(given | {"finished": False})
        return self

    def log(self, values):
        self.runs[-1]["logged"] = values

    def finish(self):
        self.runs[-1]["finished"] = True


def test_mlflow_gets_one_closed_run_a_trial_with_admissible_names(tmp_path, monkeypatch):
    write(tmp_path / "a", result("A", metrics={"bbox/AP": 1.5, "bbox/AP-a(b)": 2.0, "bbox/APs": None}))
    write(tmp_path / "b", result("A", trial=1, metrics={"bbox/AP": 2.5}))
    service = _Mlflow()
    monkeypatch.setitem(sys.modules, "mlflow", service)
    assert tracking.log(assembly.build(tmp_path), "mlflow", "mine") == 2
    assert set(service.experiments) == {"mine"}
    first = service.runs[0]
    assert (first["name"], first["closed"]) == ("A · Shapes detection · trial 0", True)
    assert first["metrics"] == {
        "bbox/AP": 1.5,
        "bbox/AP-a_b_": 2.0,
        "cost/seconds": 61.5,
        "cost/peak_memory_mib": 900.0,
    }
    assert (first["params"]["trial"], first["params"]["seed"]) == ("0", "1000")


def test_wandb_gets_one_finished_run_a_trial_grouped_by_cell(made, monkeypatch):
    service = _Wandb()
    monkeypatch.setitem(sys.modules, "wandb", service)
    assert tracking.log(made, "wandb") == 18
    assert {run["project"] for run in service.runs} == {"demo"}
    assert len({run["group"] for run in service.runs}) == 6
    assert all(run["finished"] and run["logged"] for run in service.runs)


def test_a_service_that_is_missing_unknown_or_fails_is_named_with_the_next_step(made, monkeypatch):
    with pytest.raises(InputError, match="no tracking service 'tensorbored'; there are: mlflow, wandb"):
        tracking.log(made, "tensorbored")
    monkeypatch.setitem(sys.modules, "wandb", None)  # what a missing package looks like to import
    with pytest.raises(InputError, match=r"wandb cannot be imported .*pip install -e .\[tracking\]"):
        tracking.log(made, "wandb")
    broken = _Wandb()
    monkeypatch.setattr(broken, "log", lambda values: 1 / 0)
    monkeypatch.setitem(sys.modules, "wandb", broken)
    with pytest.raises(InputError, match="wandb failed after 0 of 18 trials: division by zero"):
        tracking.log(made, "wandb")


def test_no_report_imports_a_tracking_service_or_pyarrow_unasked():
    code = (
        "import sys; from transfer.report import assembly, export, page, tracking; "
        "print(sorted({'mlflow', 'wandb', 'pyarrow', 'torch', 'scipy.stats'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr
