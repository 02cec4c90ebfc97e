"""Suites are checked before anything runs, executed in order, survive failures and stops, and never repeat work."""

import io
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_suite
import pytest
from rich.console import Console

from core.errors import InputError
from core.provenance import ROOT
from transfer import results
from transfer.report import assembly, statistics
from transfer.suite import execution, items, process
from transfer.suite import run as runner
from transfer.suite import settings as suite
from transfer.suite.items import Item
from transfer.suite.launchers.local import Local
from transfer.suite.progress import Durations, Progress
from transfer.suite.trial import seed_of


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
