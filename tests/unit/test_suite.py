"""Suites are checked before anything runs, executed in order, survive failures and stops, and never repeat work."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_suite
import pytest
from rich.console import Console

from core import files
from core.errors import InputError
from core.provenance import ROOT
from transfer import execution, items, process, random_init, results, runner, suite
from transfer.items import Item
from transfer.launchers.local import Local
from transfer.trial import protocol_of, seed_of


@pytest.fixture
def home(tmp_path, monkeypatch):
    fake_suite.install(tmp_path, monkeypatch)
    yield tmp_path
    fake_suite.forget()


def _suite(home, **changes):
    values = {
        "name": "test",
        "checkpoints": {"a": {"path": "good.pth", "name": "Method A"}, "b": {"path": "other.pth"}},
        "benchmarks": ["fake_task"],
    } | changes
    (home / "suite.yaml").write_text(json.dumps(values))
    return suite.read(home / "suite.yaml")


def _run(settings, folder=Path("out")):
    return runner.run(settings, folder, Console(file=io.StringIO(), force_terminal=False))


def test_a_suite_runs_every_item_once_and_the_second_start_repeats_nothing(home):
    settings = _suite(home)
    assert _run(settings) == 0
    found = results.read_folder(Path("out")).results.values()
    assert sorted((r.checkpoint.name, r.trial, r.seed, r.metrics["x/AP"]) for r in found) == [
        ("Method A", 0, 1000, 5.0),
        ("Method A", 1, 2000, 6.0),
        ("b", 0, 1000, 6.0),
        ("b", 1, 2000, 7.0),
    ]
    assert {r.checkpoint.method for r in found} == {"moco"}
    assert {r.checkpoint.branches for r in found} == {("mscn",)}
    assert all(r.command.startswith("python tools/run_benchmark.py ") for r in found)
    assert _run(settings) == 0
    assert len((home / "calls.txt").read_text().splitlines()) == 4


def test_a_failed_item_keeps_its_log_and_reason_and_stops_no_other(home):
    settings = _suite(home, checkpoints={"b": {"path": "bad.pth"}, "a": {"path": "good.pth"}}, trials=1)
    assert _run(settings) == 1
    (failure,) = Path("out").glob("b--*/failure.json")
    record = json.loads(failure.read_text())
    assert "RuntimeError: the weights are bad" in record["reason"]
    assert "the weights are bad" in (failure.parent / record["log"]).read_text()
    assert [r.checkpoint.name for r in results.read_folder(Path("out")).results.values()] == ["a"]


def test_a_checkpoint_replaced_under_the_same_path_is_a_new_item(home):
    assert _run(_suite(home, trials=1)) == 0
    (home / "good.pth").write_text("better")
    assert _run(_suite(home, trials=1)) == 0
    assert sorted(p.name.split("--")[0] for p in Path("out").glob("*--*")) == ["a", "a", "b"]


def test_a_changed_protocol_config_is_a_new_item_and_an_unchanged_one_is_not(home):
    names = [item.folder.name for item in items.plan(_suite(home))]
    assert [item.folder.name for item in items.plan(_suite(home))] == names
    (home / "protocol.yaml").write_text("steps: 2\n")
    assert not set(names) & {item.folder.name for item in items.plan(_suite(home))}


def test_all_problems_of_a_suite_are_named_at_once(home):
    with pytest.raises(InputError) as caught:
        _suite(
            home,
            checkpoints={
                "a": {"path": "missing.pth"},
                "b": {"path": "good.pth", "random": {"backbone": {"name": "vgg"}}},
                "c/d": {"path": "good.pth"},
                "e": {"pretrain": {"config": "none.yaml"}},
            },
            benchmarks=["fake_task", "coco_c5"],
            trials=0,
            extra=1,
        )
    message = str(caught.value)
    for problem in ("missing.pth", "vgg", "'c/d'", "none.yaml", "coco_c5", "did you mean 'coco_c4'", "trials", "extra"):
        assert problem in message


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"baseline": "mscn"}, "baseline: 'mscn' is none of the checkpoints a, b"),
        (
            {"checkpoints": {"a": {"path": "good.pth"}, "b": {"path": "bad.pth", "name": "a"}}},
            "two checkpoints are named",
        ),
        ({"benchmarks": ["fake_task", "fake_task"]}, "benchmarks: 'fake_task' twice"),
        ({"checkpoints": {"a": {"name": "nothing"}}}, "exactly one of path, pretrain and random"),
    ],
)
def test_a_contradiction_in_a_suite_is_refused(home, changes, problem):
    with pytest.raises(InputError, match=problem):
        _suite(home, **changes)


def test_one_benchmark_can_be_measured_under_two_labels(home):
    measures = {
        "short": {"name": "fake_task", "trials": 1},
        "long": {"name": "fake_task", "options": ["x"], "trials": 1},
    }
    settings = _suite(home, benchmarks=measures, checkpoints={"a": {"path": "good.pth"}})
    assert _run(settings) == 0
    found = results.read_folder(Path("out")).results.values()
    assert {r.benchmark: r.protocol.options for r in found} == {"short": (), "long": ("x",)}
    assert len({r.protocol.hash for r in found}) == 2


def test_pre_training_comes_first_and_its_command_and_folder_follow_from_its_config(home):
    (home / "pretrain.yaml").write_text("train: {epochs: 3}\n")
    entry = {"pretrain": {"config": "pretrain.yaml", "overrides": ["train.epochs=1"]}}
    settings = _suite(home, checkpoints={"p": entry, "a": {"path": "good.pth"}}, trials=1)
    first, *rest = items.plan(settings, Path("out"))
    assert first.kind == "pretrain"
    assert first.command[-2:] == ("train.epochs=1", f"run.folder={first.folder}")
    assert [item.after for item in rest] == [first.name, ""]
    assert str(first.folder / "checkpoints" / "last.pth") in rest[0].command


def _script(home, name, text):
    (home / name).write_text(text)
    return (sys.executable, "-S", str(home / name))


def test_a_repeated_pre_training_makes_one_run_a_trial_with_its_own_seed_and_folder(home):
    (home / "pretrain.yaml").write_text("train: {epochs: 3}\n")
    entry = {"pretrain": {"config": "pretrain.yaml", "repeat": True}}
    wanted = items.plan(_suite(home, checkpoints={"ours": entry}, trials=2))
    runs = [item for item in wanted if item.kind == "pretrain"]
    assert [run.name for run in runs] == ["ours (pre-training 0)", "ours (pre-training 1)"]
    assert [run.command[-2] for run in runs] == ["run.seed=0", "run.seed=1"]
    assert len({run.folder for run in runs}) == 2
    measured = {
        (item.after, item.checkpoint_file.parents[1], item.trial) for item in wanted if item.kind == "benchmark"
    }
    assert measured == {(run.name, run.folder, trial) for trial, run in enumerate(runs)}


def _execute(wanted, **limits):
    statuses = execution.standing(wanted)
    launcher = Local(Local.Config(), threads=1, folder=Path())
    launcher.run(execution.Work(wanted, statuses, lambda item: None, execution.Limits(**limits)))
    return statuses


def test_what_depends_on_a_failed_item_is_blocked_with_its_reason(home):
    make = Item("make", "random", "r", Path("made"), _script(home, "f.py", "raise ValueError('no luck')"))
    use = Item("use", "benchmark", "r", Path("used"), ("never",), after="make")
    statuses = _execute([use, make])
    assert (statuses["make"].state, statuses["use"].state) == ("failed", "blocked")
    assert statuses["use"].reason == "make failed: exit code 1: ValueError: no luck"
    assert json.loads(Path("used/failure.json").read_text())["reason"] == statuses["use"].reason


def test_a_command_that_leaves_no_result_is_a_failure(home):
    item = Item("make", "random", "r", Path("made"), _script(home, "f.py", ""), checkpoint_file=Path("made/x.pth"))
    statuses = _execute([item])
    assert (statuses["make"].state, statuses["make"].reason) == ("failed", "the command ended well but left no result")


def _wait_for(condition, seconds=15.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_suite_leaves_no_process_and_goes_on_where_it_was(home, number):
    measures = {"fake_task": {"options": ["slow"], "trials": 1}}
    _suite(home, benchmarks=measures, checkpoints={"a": {"path": "good.pth"}})
    command = [sys.executable, str(ROOT / "tools" / "run_suite.py"), "suite.yaml", "--out", "out"]
    started = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # CI may start us with it ignored
    )
    _wait_for((home / "calls.txt").exists)
    _wait_for(lambda: list(Path("out").glob("a--*/run/last_checkpoint")))
    started.send_signal(number)
    output, _ = started.communicate(timeout=60)
    assert started.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number], output
    _wait_for(lambda: str(home / "script.py") not in _command_lines())
    assert not list(Path("out").glob("*/result.json"))
    assert not list(Path("out").glob("*/failure.json"))

    (home / "script.py").write_text((home / "script.py").read_text().replace("sleep(60)", "sleep(0)"))
    again = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(list(Path("out").glob("*/result.json"))) == 1
    assert len((home / "calls.txt").read_text().splitlines()) == 2


def _command_lines():
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text())
        except OSError:
            continue
    return "".join(lines)


def test_two_runners_on_one_folder_do_no_item_twice(home):
    _suite(home, trials=3)
    command = [sys.executable, str(ROOT / "tools" / "run_suite.py"), "suite.yaml", "--out", "out"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    outputs = [runner_.communicate(timeout=60)[0] for runner_ in both]
    assert [runner_.returncode for runner_ in both] == [0, 0], outputs
    assert len((home / "calls.txt").read_text().splitlines()) == 6


def test_the_plan_runs_nothing_and_tells_what_is_done(home):
    settings = _suite(home, trials=1, checkpoints={"a": {"path": "good.pth"}})
    with open("plan.txt", "w") as file:
        runner.print_plan(settings, Path("out"), Console(file=file, width=200))
    assert "1 items, 0 done, time left not known" in Path("plan.txt").read_text()
    assert not Path("calls.txt").exists()
    _run(settings)
    with open("plan.txt", "w") as file:
        runner.print_plan(settings, Path("out"), Console(file=file, width=200))
    assert "1 items, 1 done, 0 s left" in Path("plan.txt").read_text()


def test_a_folder_of_another_trial_is_refused(home):
    command = [sys.executable, str(ROOT / "tools" / "run_benchmark.py"), "good.pth", "--benchmark", "fake_task"]
    assert subprocess.run([*command, "--out", "one"], capture_output=True, timeout=30).returncode == 0
    again = subprocess.run([*command, "--trial", "1", "--out", "one"], capture_output=True, text=True, timeout=30)
    assert again.returncode == 2
    assert "one holds a trial of another trial; remove it or choose another folder" in again.stderr


def test_a_random_backbone_is_the_same_file_for_the_same_seed(home, monkeypatch):
    entry = {"random": {"backbone": {"name": "resnet", "depth": 18, "width": 4, "stem": "imagenet"}, "seed": 3}}
    (item, *_) = items.plan(_suite(home, checkpoints={"r": entry}, trials=1), Path("out"))
    monkeypatch.setattr(sys, "argv", list(item.command[2:]))
    random_init.main()
    assert items.finished(item)
    weights = files.read_weights_file(item.checkpoint_file)
    assert weights["config"]["seed"] == 3
    assert weights["backbone"]["conv1.weight"].shape == (4, 3, 7, 7)
    random_init.make(Path("again.pth"), entry["random"]["backbone"], 3)
    again = files.read_weights_file(Path("again.pth"))["backbone"]
    assert all((again[name] == tensor).all() for name, tensor in weights["backbone"].items())


def test_seeds_of_trials_leave_room_for_ranks():
    assert [seed_of(trial) for trial in range(3)] == [1000, 2000, 3000]


def test_framework_commands_are_the_frameworks_own_and_resume_only_a_partial_run(tmp_path):
    protocol, detectron2 = protocol_of("coco_c4")
    command = detectron2.command(protocol, Path("w.pkl"), tmp_path, 1000, ["SOLVER.MAX_ITER", "10"])
    assert command[1:] == [
        *(str(ROOT / "tools/train_net.py"), "--config-file", str(ROOT / protocol.config)),
        *("MODEL.WEIGHTS", "w.pkl", "OUTPUT_DIR", str(tmp_path), "SEED", "1000", "SOLVER.MAX_ITER", "10"),
    ]
    (tmp_path / "last_checkpoint").touch()
    assert "--resume" in detectron2.command(protocol, Path("w.pkl"), tmp_path, 1000)
    protocol, mmseg = protocol_of("voc12_segmentation")
    command = mmseg.command(protocol, Path("w.pth"), tmp_path, 2000, ["a=1"])
    assert command[1:] == [
        *(str(ROOT / "tools/train_seg.py"), str(ROOT / protocol.config), "--weights", "w.pth"),
        *("--work-dir", str(tmp_path), "--seed", "2000", "--resume", "--cfg-options", "a=1"),
    ]


def test_a_failure_is_explained_by_its_last_error_or_its_signal(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("step 1\nTraceback (most recent call last):\n  File\nValueError: first\nerror: no dataset\nbye\n")
    assert process.explain(2, log) == "exit code 2: no dataset"
    assert process.explain(-9, log) == "killed by SIGKILL (out of memory?)"
    assert process.explain(1, tmp_path / "none") == "exit code 1: no output"
