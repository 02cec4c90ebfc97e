"""Launchers fill their slots, keep items apart, end what takes too much, and lose nothing when Slurm stumbles."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from core import plugins
from core.errors import InputError
from transfer.suite import execution, process, warm
from transfer.suite.execution import Limits, Work
from transfer.suite.items import Item
from transfer.suite.launchers import slurm
from transfer.suite.launchers.local import Local
from transfer.suite.launchers.slurm import Slurm


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("CUDA_VISIBLE_DEVICES", *warm.THREADS):
        monkeypatch.delenv(name, raising=False)


def _item(name, code="", after=""):
    """Return an item that runs a script and then leaves its product."""
    script = Path(f"{name}.py")
    made = Path("out", name, "product")
    script.write_text(f"import os, pathlib, sys, time\n{code}\npathlib.Path({str(made)!r}).touch()\n")
    command = (sys.executable, "-S", str(script))
    return Item(name, "random", name, made.parent, command, after=after, checkpoint_file=made)


def _run(items, jobs=1, **limits):
    said = []
    statuses = execution.standing(items)

    def observe(item):
        if item is not None:
            said.append((item.name, statuses[item.name].state, statuses[item.name].reason))

    launcher = Local(Local.Config(jobs=jobs), threads=1, folder=Path("out"))
    launcher.run(Work(items, statuses, observe, Limits(**limits)))
    return statuses, said


@pytest.mark.parametrize("name", plugins.names("transfer.suite.launchers"))
def test_every_launcher_is_a_class_named_like_its_file_with_settings_that_name_it(name):
    launcher = plugins.find("transfer.suite.launchers", name)
    assert launcher.Config.model_fields["name"].default == name
    assert launcher.__doc__


def local(**config):
    return Local(Local.Config(**config), threads=None, folder=Path())


def test_an_item_sees_its_own_devices_and_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    two = local(devices=(0, 3))
    assert (two.slots(), two.available, two.width) == (["0", "3"], 2, 2)
    assert two.environment(["0"], 1) == {"CUDA_VISIBLE_DEVICES": "0", **dict.fromkeys(warm.THREADS, "6")}
    assert two.environment(["0", "3"], 2)["CUDA_VISIBLE_DEVICES"] == "0,3"
    assert local(devices=("0", "3"), jobs=3).slots() == ["0", "3", "0"]  # two items share the first
    assert local(jobs=1).environment([""], 4)["OMP_NUM_THREADS"] == "3"  # an item of four processes on the CPU


def test_slots_follow_the_devices_that_the_environment_shows_or_use_the_cpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert (local().slots(), local().width) == (["2", "5"], 2)
    assert local(devices=(), jobs=2).environment([""], 1)["CUDA_VISIBLE_DEVICES"] == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" not in local().environment([""], 1)


def test_threads_that_the_user_set_are_left_alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert local(jobs=2).environment([""], 1) == {}


def test_an_item_of_several_devices_waits_for_them_and_is_not_overtaken(monkeypatch):
    note = "open('seen', 'a').write(sys.argv[0] + '=' + os.environ['CUDA_VISIBLE_DEVICES'] + ' '); time.sleep(0.2)"
    items = [_item(name, note) for name in ("small", "large", "late")]
    items[1] = dataclasses.replace(items[1], devices=2)
    statuses = execution.standing(items)
    local(devices=("4", "7")).run(Work(items, statuses, lambda item: None, Limits()))
    assert {status.state for status in statuses.values()} == {"done"}
    assert Path("seen").read_text().split() == ["small.py=4", "large.py=4,7", "late.py=4"]


def test_as_many_items_as_asked_run_at_the_same_time():
    meet = "pathlib.Path(f'{me}.here').touch()\nwhile not pathlib.Path(f'{other}.here').exists(): time.sleep(0.01)"
    items = [_item("a", f"me, other = 'a', 'b'\n{meet}"), _item("b", f"me, other = 'b', 'a'\n{meet}")]
    statuses, said = _run(items, jobs=2)
    assert [status.state for status in statuses.values()] == ["done", "done"]
    assert [what[:2] for what in said][:2] == [("a", "running"), ("b", "running")]


def test_a_free_slot_takes_what_has_become_ready():
    items = [_item("use", after="make"), _item("make"), _item("other")]
    statuses, said = _run(items, jobs=2)
    assert {status.state for status in statuses.values()} == {"done"}
    assert said.index(("make", "done", "")) < said.index(("use", "running", ""))


def test_an_item_above_the_memory_cap_is_ended_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(execution, "MEASURE_EVERY", 0.05)
    child = "import time; held = b'x' * 150_000_000; time.sleep(60)"
    greedy = f"import subprocess\nsubprocess.run([sys.executable, '-S', '-c', {child!r}], start_new_session=True)"
    statuses, _ = _run([_item("greedy", greedy), _item("modest")], memory_gib=0.1)
    assert statuses["modest"].state == "done"
    assert statuses["greedy"].state == "failed"
    assert statuses["greedy"].seconds < 30
    assert statuses["greedy"].reason.startswith("used 0.1")
    assert statuses["greedy"].reason.endswith("GiB of memory, above memory_gib=0.1")
    assert json.loads(Path("out/greedy/failure.json").read_text())["reason"] == statuses["greedy"].reason


def test_a_failed_item_is_tried_again_as_often_as_asked():
    count = "tries = pathlib.Path('tries'); tries.write_text((tries.read_text() if tries.exists() else '') + 'x')"
    item = _item("luck", f"{count}\nif len(tries.read_text()) < 3: sys.exit('RuntimeError: no luck')")
    statuses, said = _run([item], retries=1)
    assert (statuses["luck"].state, statuses["luck"].attempts) == ("failed", 2)
    assert said[1] == ("luck", "waiting", "tried again, since attempt 1 failed: exit code 1: RuntimeError: no luck")
    assert json.loads(Path("out/luck/failure.json").read_text())["attempts"] == 2
    statuses, _ = _run([item], retries=1)
    assert (statuses["luck"].state, statuses["luck"].attempts) == ("done", 1)
    assert not Path("out/luck/failure.json").exists()


def test_what_failed_under_another_runner_is_not_tried_beyond_its_number():
    item, attempted = _item("a"), []
    statuses = execution.standing([item])
    work = Work([item], statuses, attempted.append, Limits(retries=1))
    work.begin -= 10
    execution.record_failure(item, "no luck", attempts=2)
    assert work.take(item, {}) is None
    assert (statuses["a"].state, statuses["a"].reason) == ("failed", "no luck (under another runner)")
    statuses["a"].state = "waiting"
    execution.record_failure(item, "no luck", attempts=1)
    attempt = work.take(item, {})
    assert (statuses["a"].state, statuses["a"].attempts) == ("running", 2)
    attempt.stop()


def test_an_item_that_another_runner_holds_is_not_taken():
    item = _item("a")
    held = execution.hold(item.folder)
    work = Work([item], execution.standing([item]), lambda item: None, Limits())
    assert work.take(item, {}) is None
    held.release()
    attempt = work.take(item, {})
    assert execution.hold(item.folder) is None
    attempt.stop()
    assert execution.hold(item.folder) is not None


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found through Linux's /proc")
def test_the_workers_of_a_killed_runner_get_time_to_end_before_an_item_is_taken_again(monkeypatch):
    item = _item("a")
    item.folder.mkdir(parents=True)
    orphan = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(60)"],
        env={**os.environ, **process.tag(item.folder)},
        start_new_session=True,
    )
    while [one.pid for one in process.members(item.folder)] != [orphan.pid]:
        time.sleep(0.01)
    work = Work([item], execution.standing([item]), lambda item: None, Limits())
    assert work.take(item, {}) is None
    assert orphan.poll() is None
    monkeypatch.setattr(process, "GRACE", 0.0)
    assert work.take(item, {}) is None
    assert orphan.wait(timeout=10) == -9
    attempt = work.take(item, {})
    assert attempt is not None
    attempt.stop()


def test_half_written_files_of_a_killed_attempt_are_removed():
    item = _item("a")
    item.folder.mkdir(parents=True)
    (item.folder / ".result.json.abc_efg1.tmp").write_text("{")
    statuses, _ = _run([item])
    assert statuses["a"].state == "done"
    assert not list(item.folder.glob(".*.tmp"))


def test_a_folder_that_cannot_be_written_is_told_in_one_line():
    Path("out").write_text("a file")
    with pytest.raises(InputError, match=r"cannot write out/a: .*; choose another folder"):
        _run([_item("a")])


# ---- Slurm, with programs that only pretend; the real ones are in tests/smoke/test_slurm.py ----

FAKES = {
    "squeue": "#!/bin/sh\ntest -e down && { echo 'slurm_load_jobs error: no contact' >&2; exit 1; }\ncat queue\n",
    "sbatch": '#!/bin/sh\ncat "$1" >> submitted\ntest -e limit && test $(grep -c bin/bash submitted) -gt $(cat limit) && '
    "{ echo 'job violates limit' >&2; exit 1; }\necho Submitted batch job 7\n",
    "srun": "#!/bin/sh\n",
}


@pytest.fixture
def pretend(monkeypatch):
    Path("bin").mkdir()
    for name, text in FAKES.items():
        Path("bin", name).write_text(text)
        Path("bin", name).chmod(0o755)
    Path("queue").touch()
    monkeypatch.setenv("PATH", f"{Path('bin').absolute()}:{os.environ['PATH']}")


@pytest.fixture
def run_slurm(pretend, monkeypatch):
    """Run the launcher; ``clock`` is called with it and the statuses, instead of sleeping between two looks."""

    def run(items, clock, **settings):
        launcher = Slurm(Slurm.Config(**settings), threads=None, folder=Path("out"))
        statuses = execution.standing(items)
        clockwork = SimpleNamespace(sleep=lambda seconds: clock(launcher, statuses), monotonic=time.monotonic)
        monkeypatch.setattr(
            "transfer.suite.launchers.slurm.time", clockwork
        )  # not time.sleep itself: subprocess sleeps too
        launcher.run(Work(items, statuses, lambda item: None, Limits(memory_gib=1.5)))
        return statuses

    return run


def _make(items):
    for item in items:
        item.checkpoint_file.parent.mkdir(parents=True, exist_ok=True)
        item.checkpoint_file.touch()


def _line(place, state):
    return f"{place[0]}|{place[1]}|{state}\n"


def test_the_queue_is_read_by_job_name_and_array_index():
    text = "masktransfer-1|0|RUNNING\nmasktransfer-1|12|PENDING\nodd|name|N/A|COMPLETED\n"
    assert slurm.read_queue(text) == {
        ("masktransfer-1", 0): "RUNNING",
        ("masktransfer-1", 12): "PENDING",
        ("odd|name", 0): "COMPLETED",
    }


def test_settings_reach_sbatch_and_large_suites_are_cut_into_arrays(run_slurm, monkeypatch):
    monkeypatch.setattr("transfer.suite.launchers.slurm.LARGEST", 2)
    items = [_item(name) for name in "abcde"]

    def clock(launcher, statuses):
        Path("queue").write_text("".join(_line(place, "COMPLETED") for place in launcher.tasks))
        _make(items)

    asked = {"jobs": 3, "minutes": 90, "cpus": 4, "gres": "gpu:1", "partition": "big", "options": {"nice": 5}}
    statuses = run_slurm(items, clock, **asked)
    assert {status.state for status in statuses.values()} == {"done"}
    script = Path("submitted").read_text()
    for line in ("array=0-1%2", "time=90", "cpus-per-task=4", "gres=gpu:1", "partition=big", "nice=5", "mem=1536M"):
        assert f"#SBATCH --{line}\n" in script
    assert script.count("#SBATCH --array=") == 2
    assert script.count("#SBATCH --requeue\n") == 3


def test_jobs_of_several_devices_are_arrays_of_their_own_with_time_after_the_estimate(run_slurm):
    large = [dataclasses.replace(_item(name), devices=4, expected=7200.0) for name in ("two", "three")]
    items = [_item("one"), _item("more"), *large]

    def clock(launcher, statuses):
        Path("queue").write_text("".join(_line(place, "COMPLETED") for place in launcher.tasks))
        _make(items)

    run_slurm(items, clock, devices=8, cpus=3)
    small, big = Path("submitted").read_text().split("#!/bin/bash")[1:]
    for line in ("array=0-1%2", "gpus-per-task=1", "ntasks=1", "cpus-per-task=3", "time=1440"):
        assert f"#SBATCH --{line}\n" in small
    for line in ("array=0-1%2", "gpus-per-task=4", "cpus-per-task=12", "time=360"):
        assert f"#SBATCH --{line}\n" in big


def test_a_limit_on_jobs_in_the_queue_is_waited_for_but_a_refusal_of_all_is_told(run_slurm, monkeypatch):
    monkeypatch.setattr("transfer.suite.launchers.slurm.LARGEST", 1)
    items = [_item("a"), _item("b")]
    seen = []

    def clock(launcher, statuses):
        seen.append({name: status.state for name, status in statuses.items()})
        Path("limit").unlink(missing_ok=True)
        _make(launcher.tasks.values())
        Path("queue").write_text("".join(_line(place, "COMPLETED") for place in launcher.tasks))

    Path("limit").write_text("1")
    statuses = run_slurm(items, clock)
    assert seen[0] == {"a": "queued", "b": "waiting"}
    assert {(status.state, status.attempts) for status in statuses.values()} == {("done", 1)}

    Path("limit").write_text("0")
    with pytest.raises(InputError, match=r"Slurm refused the jobs: job violates limit"):
        run_slurm([_item("c")], clock)


def test_a_controller_outlives_slurms_and_adopts_what_an_earlier_one_submitted(run_slurm):
    items = [_item(name) for name in "abc"]
    known = Path("out/slurm/masktransfer-old/items.json")
    known.parent.mkdir(parents=True)
    known.write_text(json.dumps(["gone", "b", "a"]))
    Path("queue").write_text("masktransfer-old|1|RUNNING\nmasktransfer-old|2|COMPLETED\nother|0|RUNNING\n")
    seen = []

    def clock(launcher, statuses):
        seen.append({name: status.state for name, status in statuses.items()})
        if len(seen) == 1:
            Path("down").touch()  # Slurm's controller is away: nothing is lost
        if len(seen) == 2:
            Path("down").unlink()
            Path("queue").write_text("")
            _make(items[::2])
        if len(seen) == 6:  # b's job vanished without a trace and is submitted again
            _make(items[1:2])

    statuses = run_slurm(items, clock)
    assert seen[0] == {"a": "queued", "b": "running", "c": "queued"}
    assert seen[1] == seen[0]
    lists = [json.loads(path.read_text()) for path in Path("out/slurm").glob("*/items.json")]
    assert sorted(lists) == [["a", "c"], ["b"], ["gone", "b", "a"]]
    assert {status.state for status in statuses.values()} == {"done"}


def test_a_job_that_vanishes_is_a_failure_with_its_state_as_the_reason(run_slurm):
    item = _item("a")

    def clock(launcher, statuses):
        Path("queue").write_text("".join(_line(place, "NODE_FAIL") for place in launcher.tasks))

    statuses = run_slurm([item], clock)
    assert (statuses["a"].state, statuses["a"].reason) == ("failed", "Slurm ended its job: NODE_FAIL")
    assert json.loads(Path("out/a/failure.json").read_text())["reason"] == "Slurm ended its job: NODE_FAIL"


# ---- the warm process ----

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks on request are for Linux")


def _warm(name, code, modules=("fractions",)):
    item = _item(name, code)
    return dataclasses.replace(item, command=(sys.executable, f"{name}.py", "given"), modules=modules)


@linux
def test_commands_of_a_warm_process_are_forks_that_have_imported_what_they_need_and_processes_of_their_own():
    own = (
        "assert 'fractions' in sys.modules and sys.argv[1:] == ['given'] and os.getsid(0) == os.getpid()\n"
        "assert os.environ['MASKTRANSFER_ITEM'] == str(pathlib.Path('out', pathlib.Path(sys.argv[0]).stem).resolve())\n"
        "assert f'MASKTRANSFER_ITEM={os.environ[\"MASKTRANSFER_ITEM\"]}\\0' in open('/proc/self/environ').read()\n"
        "assert open('/proc/self/comm').read().strip() == pathlib.Path(sys.argv[0]).stem\n"
        "import random; print('drew', random.random(), flush=True)"
    )
    statuses, _ = _run([_warm("a", own), _warm("b", own), _warm("c", "sys.exit('RuntimeError: no luck')")], jobs=2)
    assert {name: status.state for name, status in statuses.items()} == {"a": "done", "b": "done", "c": "failed"}
    assert statuses["c"].reason == "exit code 1: RuntimeError: no luck"
    drawn = [Path("out", name, execution.LOG).read_text().partition("drew ")[2] for name in "ab"]
    assert drawn[0] != drawn[1]
    statuses, _ = _run(
        [_warm("d", "assert 'fractions' not in sys.modules")]
    )  # not worth a warm process: there is one item
    assert statuses["d"].state == "done"


@linux
def test_a_fork_ends_with_whoever_asked_for_it_and_tells_the_signal_that_ended_it():
    Path("sleep.py").write_text("import time; time.sleep(60)")
    Path("asker.py").write_text(
        "import sys, time\nfrom pathlib import Path\nfrom transfer.suite import process\n"
        "made = process.start([sys.executable, 'sleep.py'], Path('asked.log'))\n"
        "print(type(made).__name__, made.pid, flush=True)\ntime.sleep(60)"
    )
    with warm.kept(["json"], {"OMP_NUM_THREADS": "1"}) as place:
        environment = {**os.environ, **place, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(execution.ROOT)}
        asker = subprocess.Popen([sys.executable, "asker.py"], stdout=subprocess.PIPE, text=True, env=environment)
        with asker.stdout as said:
            kind, pid = said.readline().split()
        assert kind == "Forked"
        asker.kill()
        asker.wait()
        deadline = time.monotonic() + 20
        while process.psutil.pid_exists(int(pid)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        made = process.start([sys.executable, "sleep.py"], Path("log"), environment)
        assert made.poll() is None
        process.stop(made)
        assert made.returncode == -15


@linux
def test_what_the_warm_process_cannot_serve_is_started_by_itself():
    Path("quick.py").write_text("print('done')")
    command = [sys.executable, "quick.py"]
    with warm.kept(["json"], {"OMP_NUM_THREADS": "1"}) as place:
        other = process.start(
            command, Path("log"), {**place, "OMP_NUM_THREADS": "2"}
        )  # is read when libraries are loaded
        assert (type(other), other.wait(30)) == (subprocess.Popen, 0)
        code = process.start([sys.executable, "-c", "print(1)"], Path("log"), {**place, "OMP_NUM_THREADS": "1"})
        assert (type(code), code.wait(30)) == (subprocess.Popen, 0)
    late = process.start(command, Path("log"), {**place, "OMP_NUM_THREADS": "1"})
    assert (type(late), late.wait(30)) == (subprocess.Popen, 0)
    assert Path("log").read_text().split() == ["done", "1", "done"]
