"""Services that draw curves: asked for by name, never imported otherwise, refused when not installed."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from made_results import result, write

from core import tracking
from core.errors import InputError
from core.journal import Journal
from transfer.report import assembly, export

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
