"""Suites are checked whole, become items keyed by what goes into them, run in order, survive stops and never repeat work."""

import hashlib
import io
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import fake_suite
import pytest
import torch
import yaml
from rich.console import Console
from running import small_run

import masktransfer
from core import weights_file
from core.errors import InputError
from core.provenance import ROOT
from transfer import results
from transfer.convert import random_init
from transfer.report import assembly, statistics
from transfer.suite import execution, items, process
from transfer.suite import run as runner
from transfer.suite import settings as suite
from transfer.suite.items import Item
from transfer.suite.launchers.local import Local
from transfer.suite.progress import Durations, Progress
from transfer.suite.trial import run_trial, seed_of


@pytest.fixture
def home(tmp_path, monkeypatch):
    fake_suite.install(tmp_path, monkeypatch)
    yield tmp_path
    fake_suite.forget()


def _suite(home, **changes):
    values = {
        "name": "test",
        "checkpoints": {"a": {"path": "good.pth", "name": "Method A"}, "b": {"path": "other.pth"}},
        "benchmarks": fake_suite.TASK,
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
        ("Method A", 0, 1000, 5.0), ("Method A", 1, 2000, 6.0), ("b", 0, 1000, 6.0), ("b", 1, 2000, 7.0),
    ]  # fmt: skip
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


def test_one_benchmark_can_be_measured_under_two_labels(home):
    measures = {
        "short": {"name": "fake_task", "file": "rows.yaml", "trials": 1},
        "long": {"name": "fake_task", "file": "rows.yaml", "options": ["x"], "trials": 1},
    }
    settings = _suite(home, benchmarks=measures, checkpoints={"a": {"path": "good.pth"}})
    assert _run(settings) == 0
    found = results.read_folder(Path("out")).results.values()
    assert {r.benchmark: r.protocol.options for r in found} == {"short": (), "long": ("x",)}
    assert len({r.protocol.hash for r in found}) == 2


def _script(home, name, text):
    (home / name).write_text(text)
    return (sys.executable, "-S", str(home / name))


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


def test_what_is_killed_after_it_left_its_product_is_done_and_a_torn_product_is_not(home, capsys):
    text = "import os, zipfile; zipfile.ZipFile('made/x.pth', 'w').close(); os.kill(os.getpid(), 9)"
    item = Item("make", "random", "r", Path("made"), _script(home, "f.py", text), checkpoint_file=Path("made/x.pth"))
    statuses = _execute([item])
    assert statuses["make"].state == "done"
    assert not Path("made/failure.json").exists()
    Path("made/x.pth").write_bytes(b"PK torn")
    assert not items.finished(item)
    assert (
        "made/x.pth is truncated or not a checkpoint; copy or download it again; it is made again"
        in capsys.readouterr().err
    )


def _wait_for(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP, signal.SIGUSR1])
def test_a_stopped_suite_leaves_no_process_and_goes_on_where_it_was(home, number):
    measures = {"fake_task": {"file": "rows.yaml", "options": ["slow"], "trials": 1}}
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
    assert started.returncode == (-9 if number == signal.SIGKILL else 128 + number), output
    _wait_for(lambda: str(home / "script.py") not in _command_lines())
    assert not list(Path("out").glob("*/result.json"))
    assert not list(Path("out").glob("*/failure.json"))

    (home / "script.py").write_text((home / "script.py").read_text().replace("sleep(60)", "sleep(0)"))
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
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


def _plan(settings, width=200):
    with open("plan.txt", "w") as file:
        runner.print_plan(settings, Path("out"), Console(file=file, width=width))
    return Path("plan.txt").read_text()


def test_the_plan_runs_nothing_and_tells_costs_and_what_is_done(home):
    one = {"a": {"path": "good.pth"}}
    settings = _suite(home, trials=1, checkpoints=one)
    assert "1 items, 0 done, time left not known" in _plan(settings)
    assert not Path("calls.txt").exists()
    item = items.plan(settings, Path("out"))[0]
    assert str(item.folder) in _plan(settings)
    narrow = _plan(settings, width=60)  # a line an item: the folder is left out
    assert item.name in narrow.splitlines()[3]  # below the recipes
    assert len(narrow.splitlines()) == 5
    _run(settings)
    assert "1 items, 1 done, 0 s left" in _plan(settings)
    (home / "pretrain.yaml").write_text("train: {epochs: 3}\n")
    more = one | {"bad": {"path": "bad.pth"}, "p": {"pretrain": {"config": "pretrain.yaml"}}}
    assert _run(_suite(home, trials=1, checkpoints=one | {"bad": {"path": "bad.pth"}})) == 1
    settings = _suite(home, trials=2, checkpoints=more)
    lines = {line.split("  ")[0]: line.split()[-4:] for line in _plan(settings).splitlines()}
    assert "done     2 s" in _plan(settings)  # the fake framework says 1.5 s
    assert "failed   2 s" in _plan(settings)
    assert lines["p (pre-training)"][1:3] == ["waiting", "?"]
    assert "7 items, 1 done, more than 8 s left (1 items of unknown duration)" in _plan(settings)
    _, _, header, *rows = _plan(
        settings, width=50
    ).splitlines()  # what an item waits for is left out before a line is broken
    assert header.split() == ["item", "state", "about"]
    wanted = items.plan(settings, Path("out"))
    assert [row.split("  ")[0] for row in rows[: len(wanted)]] == [item.name for item in wanted]
    faster = _suite(home, trials=2, checkpoints=more, launcher={"jobs": 2})
    assert "more than 4 s left" in _plan(faster)


def test_the_live_table_counts_states_and_names_what_runs_and_what_failed(home):
    settings = _suite(home, trials=2)
    wanted = items.plan(settings, Path("out"))
    statuses = execution.standing(wanted)
    for item, state in zip(wanted, ("done", "running", "failed", "queued"), strict=True):
        statuses[item.name] = execution.Status(state, "no luck" if state == "failed" else "", time.monotonic() - 65)
    console = Console(file=io.StringIO(), width=120)
    console.print(Progress(wanted, statuses, Path("log"), console).table())
    text = console.file.getvalue()
    assert "Method A    1/2 1✗" in text
    assert "b           0/2 1▶ 1 queued" in text
    assert "▶ b · fake_task · trial 0 · 1 min 05 s" in text
    assert "✗ a · fake_task · trial 1: no luck" in text
    assert "1 running, 1 queued, 1 failed, 1 done · time left not known yet" in text


def test_the_time_left_comes_from_what_a_running_item_says_it_has_done(home):
    settings = _suite(home, trials=1, checkpoints={"a": {"path": "good.pth"}})
    (item,) = items.plan(settings, Path("out"))
    status = execution.Status("running", started=time.monotonic() - 60)
    durations = Durations([item], {item.name: status})
    assert durations.left({item.name: status}, 1) == "time left not known yet"
    item.folder.mkdir(parents=True)
    (item.folder / "log.txt").write_text(
        "detection: 9/100  loss 0.7\nchatter\ndetection: 30/120  loss 0.513  3 min left\nmore\n"
    )
    assert durations.left({item.name: status}, 1) == "about 3 min 00 s left"
    status.started = time.monotonic() - 5  # too early to say
    assert durations.left({item.name: status}, 1) == "time left not known yet"


def test_how_far_a_command_is_is_passed_on_once_and_not_into_its_own_log(home, capfd):
    log = home / "log.txt"
    log.write_text("detection: 3/40\n")
    relay = process.Relay(log)
    relay()
    log.write_text("detection: 3/40\ndetection: 7/40  loss 0.5\nError: 9/9\n")
    relay()
    relay()
    assert capfd.readouterr().err == "detection: 7/40  loss 0.5\n"
    writes = f"import sys; from pathlib import Path; from transfer.suite import process; r = process.Relay(Path({str(log)!r})); "
    more = "print('detection: 8/40', flush=True); r()"
    assert process.run([sys.executable, "-c", writes + more], log) == 0
    assert log.read_text().count("8/40") == 1


def test_a_full_disk_ends_a_suite_with_one_line(home):
    _suite(home, trials=1)
    command = [sys.executable, str(ROOT / "tools" / "run_suite.py"), "suite.yaml", "--out", "out"]
    full = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=30,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),  # every byte is one too many
    )
    assert full.returncode == 1
    assert full.stderr == (
        "error: cannot write out/suite.json: File too large; free some space or choose another folder\n"
    )
    assert [path.name for path in Path("out").iterdir()] == []


def test_a_folder_of_another_trial_is_refused(home):
    command = [
        sys.executable, str(ROOT / "tools" / "run_benchmark.py"), "good.pth", "--benchmark", "rows.yaml:fake_task",
    ]  # fmt: skip
    assert subprocess.run([*command, "--out", "one"], capture_output=True, timeout=30).returncode == 0
    again = subprocess.run([*command, "--trial", "1", "--out", "one"], capture_output=True, text=True, timeout=30)
    assert again.returncode == 2
    assert "one holds a run of other settings (different: trial); choose another folder" in again.stderr


def test_seeds_of_trials_leave_room_for_ranks():
    assert [seed_of(trial) for trial in range(3)] == [1000, 2000, 3000]


def test_a_failure_is_explained_by_its_last_error_or_its_signal(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("step 1\nTraceback (most recent call last):\n  File\nValueError: first\nerror: no dataset\nbye\n")
    assert process.explain(2, log) == "exit code 2: no dataset"
    log.write_text("starting\nerror: x.yaml has 1 problem(s):\n  task.epochs: too few\n")
    assert process.explain(2, log) == "exit code 2: x.yaml has 1 problem(s): task.epochs: too few"
    assert process.explain(-9, log) == "killed by SIGKILL (out of memory?)"
    assert process.explain(1, tmp_path / "none") == "exit code 1: no output"


def test_what_a_pre_training_warned_about_is_said_when_it_ends_and_in_the_end_how_much_of_the_time_was_training(
    tmp_path,
):
    item = items.Item("a (pre-training)", "pretrain", "a", tmp_path, ())
    (tmp_path / "summary.json").write_text(json.dumps({"warnings": ["retrieval fell to 0.02"], "seconds": 0.5}))
    output = io.StringIO()
    statuses = {item.name: execution.Status("running")}
    with Progress([item], statuses, tmp_path / "suite.log", Console(file=output, force_terminal=False)) as progress:
        progress(item)
        assert "warning" not in output.getvalue()
        statuses[item.name] = execution.Status("done", seconds=1.0)
        progress(item)
        progress.begin -= 9
    assert "warning a (pre-training): retrieval fell to 0.02" in output.getvalue()
    assert "ended after 9 s: 1 done; training and tests took 6% of the time of 1 at a time" in output.getvalue()
    assert "retrieval fell to 0.02" in (tmp_path / "suite.log").read_text()


def test_trials_auto_stops_where_a_comparison_is_decided_and_at_the_budget_and_goes_on_after_a_stop(home):
    (home / "far.pth").write_text("f" * 60)
    checkpoints = {name: {"path": f"{file}.pth"} for name, file in (("a", "good"), ("b", "other"), ("far", "far"))}
    settings = _suite(home, checkpoints=checkpoints, trials="auto", budget=4, baseline="a")
    assert _run(settings) == 0
    found = results.read_folder(Path("out")).results.values()
    counts = {name: sum(r.checkpoint.name == name for r in found) for name in checkpoints}
    assert counts == {"a": 4, "b": 4, "far": 3}  # looks after 3 and 4
    report = assembly.build(Path("out"))
    assert [line.rpartition(": ")[2][:9] for line in report.conclusions] == ["undecided", "better."]
    assert report.skipped == []
    calls = (home / "calls.txt").read_text()
    assert _run(settings) == 0
    assert (home / "calls.txt").read_text() == calls


def test_trials_auto_needs_a_baseline_and_no_seeds(home):
    with pytest.raises(InputError, match="auto compares with a baseline"):
        _suite(home, trials="auto")


def test_how_many_trials_a_gap_needs_is_told_from_a_given_spread_before_anything_ran_and_from_the_results_after(home):
    settings = _suite(home, trials=3)
    console = Console(file=io.StringIO(), width=120)
    runner.print_power(settings, Path("out"), 2.0, 1.0, console)
    told = console.file.getvalue().splitlines()[-2].split()
    assert told == ["Fake", "1.00", "0", "–", str(statistics.trials_needed(2.0, 1.0, 1)), "–"]
    assert not Path("out").exists()
    with pytest.raises(InputError, match="run a suite first"):
        runner.print_power(settings, Path("out"), 2.0, None, console)
    assert _run(settings) == 0
    runner.print_power(settings, Path("out"), 2.0, None, console)
    told = console.file.getvalue().splitlines()[-2].split()
    assert told[:3] == ["Fake", "1.00", "3"]


def _calls(home):
    return len((home / "calls.txt").read_text().splitlines())


def test_a_checkpoint_replaced_under_the_same_path_is_a_new_item(home):
    assert _run(_suite(home, trials=1)) == 0
    (home / "good.pth").write_text("better")
    assert _run(_suite(home, trials=1)) == 0
    assert sorted(p.name.split("--")[0] for p in Path("out").glob("*--*")) == ["a", "a", "b"]


def test_a_data_set_edited_after_a_trial_is_measured_anew_and_a_restored_one_is_not(home, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    rows = (home / "rows.yaml").read_text().replace("trials: 2", "trials: 1, sets: [faces]")
    (home / "rows.yaml").write_text(rows)
    (home / "faces").mkdir()
    (home / "faces" / "1.jpg").write_bytes(b"image")
    labels = home / "faces" / "labels.json"
    labels.write_text("[1]")
    settings = _suite(home, checkpoints={"a": {"path": "good.pth"}}, trials=1)
    assert (_run(settings), _calls(home)) == (0, 1)
    (first,) = items.plan(settings, Path("out"))
    assert items.finished(first)
    assert results.read(first.folder / "result.json").data.keys() == {"faces"}
    labels.write_text("[2]")
    (edited,) = items.plan(settings, Path("out"))
    assert edited.folder.name.startswith(f"{first.folder.name}--")
    with pytest.raises(InputError, match=r"different: data"):  # the old number is not returned for the new data
        run_trial(first.job)
    assert (_run(settings), _calls(home)) == (0, 2)
    labels.write_text("[1]")
    assert items.plan(settings, Path("out"))[0].folder == first.folder
    assert (_run(settings), _calls(home)) == (0, 2)


def test_a_changed_protocol_config_is_a_new_item_and_an_unchanged_one_is_not(home):
    names = [item.folder.name for item in items.plan(_suite(home))]
    assert [item.folder.name for item in items.plan(_suite(home))] == names
    (home / "protocol.yaml").write_text("steps: 2\n")
    assert not set(names) & {item.folder.name for item in items.plan(_suite(home))}


def test_all_problems_of_a_suite_are_named_at_once(home):
    with pytest.raises(InputError) as caught:
        _suite(
            home,
            baseline="nobody",
            seeds=[4, 4],
            launcher={"name": "slurm", "minuts": 3},
            retries=-1,
            checkpoints={
                "a": {"path": "hf://nobody"},
                "b": {"path": "good.pth", "random": {"backbone": {"name": "vgg"}}},
                "c/d": {"path": "good.pth"},
                "e": {"pretrain": {"config": "none.yaml"}},
                "f": {"path": "good.pth", "name": "b"},
                "g": {"pretrain": {"config": str(ROOT / "configs/suites/demo.yaml"), "overrides": ["run.folder=x"]}},
            },
            benchmarks=["fake_task", "coco_c5", "fake_task"],
            trials=0,
            extra=1,
        )
    message = str(caught.value)
    for problem in (
        *("vgg", "'c/d'", "none.yaml", "coco_c5", "did you mean coco_c4", "trials", "extra"),
        "checkpoints.a.path: hf://nobody: write hf://owner/name",
        "baseline: 'nobody' is none of the checkpoints a, b, c/d, e, f, g",
        "checkpoints: two checkpoints are named 'b'",
        "checkpoints.g.pretrain: the suite sets run.folder",
        "benchmarks: 'fake_task' twice",
        "seeds: 4 twice",
        "launcher.minuts: no such setting",
        "retries: Input should be greater than or equal to 0",
    ):
        assert problem in message
    assert message.startswith(f"{home / 'suite.yaml'} has {len(message.splitlines()) - 1} problem(s):")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"baseline": "mscn"}, "baseline: 'mscn' is none of the checkpoints a, b"),
        (
            {"checkpoints": {"a": {"path": "good.pth"}, "b": {"path": "bad.pth", "name": "a"}}},
            "two checkpoints are named",
        ),
        ({"benchmarks": ["fake_task", "fake_task"]}, "benchmarks: 'fake_task' twice"),
        ({"trials": 3, "seeds": [0, 1]}, "trials: 3, but seeds names 2; give one of the two"),
        (
            {"seeds": [7], "benchmarks": {"fake_task": {"file": "rows.yaml", "trials": 2}}},
            r"benchmarks.fake_task.trials: 2, but seeds names only 1",
        ),
        ({"threads": 4, "launcher": {"name": "slurm", "cpus": 2}}, "threads: 4, but launcher.cpus gives a job only 2"),
        ({"launcher": {"name": "slrum"}}, "no 'slrum' in transfer.suite.launchers; did you mean slurm"),
        ({"benchmarks": {"fake_task": 3}}, "benchmarks.fake_task: Input should be a valid dictionary"),
        ({"checkpoints": {"a": {"name": "nothing"}}}, "exactly one of path, pretrain and random"),
    ],
)
def test_a_contradiction_in_a_suite_is_refused(home, changes, problem):
    with pytest.raises(InputError, match=problem):
        _suite(home, **changes)


def test_pre_training_comes_first_and_its_command_and_folder_follow_from_its_config(home):
    (home / "pretrain.yaml").write_text("train: {epochs: 3}\n")
    entry = {"pretrain": {"config": "pretrain.yaml", "overrides": ["train.epochs=1"]}}
    settings = _suite(home, checkpoints={"p": entry, "a": {"path": "good.pth"}}, trials=1)
    first, *rest = items.plan(settings, Path("out"))
    assert first.kind == "pretrain"
    assert first.command[-2:] == ("train.epochs=1", f"run.folder={first.folder}")
    assert [item.after for item in rest] == [first.name, ""]
    assert rest[0].job.checkpoint == first.folder / "checkpoints" / "last.pth"


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


def test_a_repeated_random_backbone_draws_one_a_trial_and_seeds_name_the_trials(home):
    backbone = {"name": "resnet", "depth": 18, "width": 4, "stem": "imagenet"}
    entry = {"random": {"backbone": backbone, "seed": 10, "repeat": True}}
    wanted = items.plan(_suite(home, checkpoints={"r": entry}, seeds=[0, 3]))
    made = [item for item in wanted if item.kind == "random"]
    assert [item.name for item in made] == ["r (random 0)", "r (random 3)"]
    assert [item.command[item.command.index("--seed") + 1] for item in made] == ["10", "13"]
    assert len({item.checkpoint_file for item in made}) == 2
    measured = [item for item in wanted if item.kind == "benchmark"]
    assert [(item.trial, item.after) for item in measured] == [(0, "r (random 0)"), (3, "r (random 3)")]
    assert [item.checkpoint_file for item in measured] == [item.checkpoint_file for item in made]


def test_a_benchmark_with_fewer_trials_takes_the_first_of_the_seeds(home):
    measures = {**fake_suite.TASK, "short": {"name": "fake_task", "file": "rows.yaml", "options": ["x"], "trials": 1}}
    wanted = items.plan(_suite(home, checkpoints={"a": {"path": "good.pth"}}, benchmarks=measures, seeds=[5, 2]))
    assert [(item.benchmark, item.trial) for item in wanted] == [("fake_task", 5), ("short", 5), ("fake_task", 2)]


def test_folders_of_items_stay_what_they_were_so_that_old_results_are_found(home, monkeypatch):
    monkeypatch.setattr(items, "protocol_hash", lambda *parts: "rules")
    backbone = {"name": "resnet", "depth": 18}
    entries = {"a": {"path": "good.pth"}, "r": {"random": {"backbone": backbone, "seed": 3}}}
    wanted = items.plan(_suite(home, checkpoints=entries, trials=1), Path("out"))
    content = hashlib.sha256(b"good").hexdigest()
    random = hashlib.sha256(json.dumps({"backbone": backbone, "seed": 3}, sort_keys=True).encode()).hexdigest()
    keys = [hashlib.sha256(json.dumps([key, "rules", 0]).encode()).hexdigest()[:8] for key in (content, random)]
    assert [str(item.folder) for item in wanted] == [
        f"out/checkpoints/r--{random[:8]}",
        f"out/a--fake_task--trial0--{keys[0]}",
        f"out/r--fake_task--trial0--{keys[1]}",
    ]


def test_a_random_backbone_is_the_same_file_for_the_same_seed(home, monkeypatch):
    entry = {"random": {"backbone": {"name": "resnet", "depth": 18, "width": 4, "stem": "imagenet"}, "seed": 3}}
    (item, *_) = items.plan(_suite(home, checkpoints={"r": entry}, trials=1), Path("out"))
    monkeypatch.setattr(sys, "argv", list(item.command[3:]))
    random_init.main()
    assert items.finished(item)
    weights = weights_file.read_weights_file(item.checkpoint_file)
    assert weights["config"]["seed"] == 3
    assert weights["backbone"]["conv1.weight"].shape == (4, 3, 7, 7)
    random_init.make(Path("again.pth"), entry["random"]["backbone"], 3)
    again = weights_file.read_weights_file(Path("again.pth"))["backbone"]
    assert all((again[name] == tensor).all() for name, tensor in weights["backbone"].items())


@pytest.mark.parametrize(
    ("asked", "available", "found"),
    [
        ("auto", 8, (8, 4, 1, 8)),
        ("auto", 3, (3, 3, 1, 3)),
        ("auto", 0, (1, 1, 1, 1)),
        (2, 8, (2, 2, 1, 2)),
        (2, 0, (2, 2, 1, 2)),
    ],
)
def test_an_item_gets_as_many_devices_as_published_or_as_there_are_or_as_asked(home, asked, available, found):
    names = ["voc0712_detection", "voc12_segmentation", "cifar10_knn"]
    config = str(ROOT / "configs/pretrain/imagenet/mocov2_r50_8xb32-200ep_imagenet.yaml")
    settings = _suite(
        home, benchmarks=names, devices=asked, trials=1, checkpoints={"p": {"pretrain": {"config": config}}}
    )
    pretrain, *wanted = items.plan(settings, Path("out"), available)
    assert (*(item.devices for item in wanted), pretrain.devices) == found
    assert all(item.job.devices == item.devices for item in wanted)
    assert ("torch.distributed.run" in pretrain.command) == (pretrain.devices > 1)


@pytest.mark.parametrize("available", [8, 4, 1])
def test_the_plans_recipes_are_the_originals_on_any_number_of_devices(home, available):
    originals = yaml.safe_load((Path(__file__).parent / "originals.yaml").read_text())
    names = ["voc0712_detection", "coco_fpn", "voc12_segmentation"]
    settings = _suite(home, benchmarks=names, trials=1)
    printed = runner._recipes(settings, items.plan(settings, Path("out"), available), available)
    cells = zip(*(column.cells for column in printed.columns), strict=True)
    for name, (label, devices, images, iterations, lr, norm) in zip(names, cells, strict=True):
        original = originals[name]
        assert (label, devices.split()[0]) == (name, str(min(available, 4 if "segmentation" in name else 8)))
        assert images.split()[0] == str(original["batch"])
        assert (iterations, float(lr)) == (f"{original['iterations']:,}", original["lr"])
        assert norm == ("BN" if available == 1 else original["norm"])


def test_a_suite_says_how_many_images_a_device_takes_and_whether_the_schedule_scales(home):
    fit = {"scaling": "linear", "images_per_device": 1}
    settings = _suite(home, benchmarks={"voc0712_detection": fit, "plain": {"name": "voc0712_detection"}}, trials=1)
    wanted = items.plan(settings, Path("out"), 2)
    scaled, plain = wanted[0], wanted[-1]
    assert (scaled.job.scaling, scaled.job.images_per_device) == ("linear", 1)
    assert (plain.job.scaling, plain.job.images_per_device) == ("batch", 0)
    assert scaled.folder.name.split("--")[3] != plain.folder.name.split("--")[3]
    printed = runner._recipes(settings, wanted, 2)
    assert [next(iter(column.cells)) for column in printed.columns[1:5]] == ["2 of 8", "2 (2 × 1)", "192,000", "0.0025"]
    with pytest.raises(InputError, match="Classification has no --images-per-device and --scaling; leave it out"):
        items.plan(_suite(home, benchmarks={"cifar10_knn": fit}), Path("out"), 2)


def test_more_devices_than_an_item_can_have_are_refused(home):
    with pytest.raises(InputError, match=r"benchmarks\.fake_task\.devices: 4, but the launcher has 2 .* or say auto"):
        items.plan(_suite(home, benchmarks={"fake_task": {"file": "rows.yaml", "devices": 4}}), Path("out"), 2)


MAKES = "python tools/prepare_data.py --help says what makes it"


def test_the_plan_names_all_that_would_stop_it_and_running_refuses_it_before_anything_is_done(home, monkeypatch):
    two = dict.fromkeys(("online.layer1.0.conv1.weight", "target.layer1.0.conv1.weight"), torch.zeros(1, 1, 3, 3))
    torch.save(two, home / "two.pth")
    (home / "lfs.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    entries = {
        "small": {"random": {"backbone": {"name": "resnet", "depth": 18, "stem": "cifar"}}},
        "two": {"path": "two.pth"},
        "lfs": {"path": "lfs.pth"},
        "gone": {"path": "gone.pth"},
    }
    settings = _suite(home, checkpoints=entries, benchmarks=["shapes_detection", "cifar10_knn"], trials=1)
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=2**28))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(home / "none"))
    for start in (runner.run, runner.print_plan):
        with pytest.raises(InputError) as caught:
            start(settings, Path("out"), Console(file=io.StringIO()))
        small, ambiguous, pointer, gone, data, disk = str(caught.value).splitlines()[-6:]
        assert small.startswith("checkpoints.small: its backbone has the 3x3 CIFAR stem, detectron2 has a 7x7 one")
        assert ambiguous.startswith("checkpoints.two: two.pth holds 2 backbones; choose with --source")
        assert pointer.startswith("checkpoints.lfs: lfs.pth is a Git LFS pointer")
        assert gone == "checkpoints.gone: no file at gone.pth; check the path"
        assert data == f"benchmarks.cifar10_knn: no data set {home / 'none' / 'cifar10'}; {MAKES}"
        assert disk == f"{home} has 0.2 GiB free, and an item may write 1 GiB; free some, or choose another --out"
        assert not Path("out").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "method.split_bn=8",
            r"fewer than 2 to normalise together in method\.split_bn=8 parts; raise train\.batch_size",
        ),
        ("method.queue=30", r"method\.queue=30 is not a multiple of the 8 keys that enter it at a time"),
        ("train.batch_size=32", "24 images are fewer than one batch of 32; lower train.batch_size"),
    ],
)
def test_the_plan_names_what_a_pretraining_would_refuse(home, override, message):
    (home / "pre.yaml").write_text(small_run())
    made = {"made": {"pretrain": {"config": "pre.yaml", "overrides": [override]}}}
    with pytest.raises(InputError, match=rf"stop it:\nmade \(pre-training\): .*pre\.yaml: .*{message}"):
        runner.print_plan(
            _suite(home, checkpoints=made), Path("out"), Console(file=io.StringIO()), masktransfer.refused
        )
    assert not Path("out").exists()
