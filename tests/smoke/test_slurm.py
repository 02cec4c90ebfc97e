"""Suites run on a real Slurm cluster of one node; what Slurm or a kill interrupts is gone on with, and not repeated."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fake_suite
import one_node_slurm
import pytest

from core.provenance import ROOT
from transfer import results

pytestmark = pytest.mark.slurm
OUT = Path("out")


@pytest.fixture(scope="module")
def cluster():
    home = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))  # munge's socket needs a short path
    try:
        started = one_node_slurm.Cluster(home)
    except one_node_slurm.Unavailable as reason:
        shutil.rmtree(home)
        pytest.skip(f"no Slurm here: {reason}")
    yield started
    started.stop()
    shutil.rmtree(home)


@pytest.fixture
def home(tmp_path, monkeypatch, cluster):
    fake_suite.install(tmp_path, monkeypatch)
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    yield tmp_path
    cluster.call("scancel", "--me")
    fake_suite.forget()


def _write(options=(), checkpoints=("good", "other"), trials=2, **launcher):
    values = {
        "name": "test",
        "checkpoints": {name: {"path": f"{name}.pth"} for name in checkpoints},
        "benchmarks": {"fake_task": {"file": "rows.yaml", "options": list(options)}},
        "trials": trials,
        "memory_gib": 0.4,
        "launcher": {"name": "slurm", "minutes": 5, "poll_seconds": 0.3, "partition": "small"} | launcher,
    }
    Path("suite.yaml").write_text(json.dumps(values))


def _start():
    command = [sys.executable, str(ROOT / "tools" / "run_suite.py"), "suite.yaml", "--out", str(OUT)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _end(controller, code=0):
    output, _ = controller.communicate(timeout=120)
    assert controller.returncode == code, output
    return output


def _wait_for(condition, what, seconds=60.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"timed out: {what}"
        time.sleep(0.1)
    return found


def _running(cluster, field="%A"):
    """Return the ids of the running jobs."""
    return cluster.call("squeue", "--noheader", "--array", "--states=RUNNING", f"--format={field}").split()


def _begun():
    """Return how many items' commands have begun and not ended."""
    return len(list(OUT.glob("*/run/last_checkpoint"))) - len(list(OUT.glob("*/result.json")))


def _calls():
    return Path("calls.txt").read_text().splitlines() if Path("calls.txt").exists() else []


def _results():
    found = results.read_folder(OUT).results.values()
    return sorted((r.checkpoint.name, r.trial, r.metrics["x/AP"]) for r in found)


def test_an_item_of_two_devices_asks_for_both_and_has_the_node_to_itself(home, cluster):
    (home / "rows.yaml").write_text((home / "rows.yaml").read_text().replace("trials: 2", "trials: 2, devices: 2"))
    _write(["until=release"], checkpoints=("good",), devices=2)
    controller = _start()
    _wait_for(lambda: _begun() == 1, "an item begins")
    asked = cluster.call("scontrol", "show", "job", *_running(cluster))
    for part in ("gpu:2", "NumCPUs=2", "CPUs/Task=2"):
        assert part in asked
    time.sleep(1)
    assert _begun() == 1  # the other waits for the devices
    Path("release").touch()
    _end(controller)
    assert len(_results()) == 2


def test_a_suite_survives_requeue_pre_emption_and_the_kill_of_its_controller(home, cluster):
    _write(["until=release"], gres="toy:1")
    controller = _start()
    _wait_for(lambda: _begun() == 2, "two items begin")
    requeued, preempted = _running(cluster)
    asked = cluster.call("scontrol", "show", "job", requeued)
    for part in ("Partition=small", "TimeLimit=00:05:00", "gres:toy:1", "mem=410M", "Requeue=1"):
        assert part in asked

    cluster.call("scontrol", "requeue", requeued)
    _wait_for(lambda: len(_calls()) == 3, "another item takes the place of the requeued one")
    controller.kill()
    controller.communicate()
    cluster.call("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    _wait_for(lambda: preempted not in _running(cluster), "the urgent job pre-empts")

    controller = _start()
    _wait_for(lambda: "queued" in (OUT / "suite.log").read_text().split("already done")[-1], "jobs are adopted")
    Path("release").touch()
    _end(controller)
    assert _results() == [("good", 0, 5.0), ("good", 1, 6.0), ("other", 0, 6.0), ("other", 1, 7.0)]
    assert len(list((OUT / "slurm").glob("*/items.json"))) == 1, "the second controller submitted jobs again"
    assert len(_calls()) > 4, "nothing was interrupted"
    assert not list(OUT.glob("*/two_at_once"))
    assert not list(OUT.glob("*/failure.json"))


def test_a_job_that_nears_its_time_limit_stops_its_item_and_is_requeued_as_often_as_asked(home, cluster):
    _write(["until=release"], checkpoints=["good"], trials=1, timeouts=1)
    controller = _start()
    _wait_for(lambda: _begun() == 1, "the item begins")
    (job,) = _running(cluster)
    cluster.call("scancel", "--signal=USR2", job)  # what Slurm sends before the limit
    _wait_for(lambda: len(_calls()) == 2, "the item begins again")
    assert "Restarts=1" in cluster.call("scontrol", "show", "job", job)
    cluster.call("scancel", "--signal=USR2", job)
    assert "reached the time limit of 5 minutes 2 times" in _end(controller, code=1)

    Path("release").touch()
    _end(_start())
    assert _results() == [("good", 0, 5.0)]
    assert not list(OUT.glob("*/two_at_once"))


def test_failed_and_cancelled_items_are_told_with_their_reason_and_tried_again(home, cluster):
    _write(["until=release"], checkpoints=["bad", "good"], trials=1)
    controller = _start()
    _wait_for(lambda: _begun() == 2, "both begin")
    (array,) = {job.split("_")[0] for job in _running(cluster, "%i")}
    cluster.call("scancel", f"{array}_1")
    Path("release").touch()
    output = _end(controller, code=1)
    assert "Slurm ended its job: CANCELLED" in output
    assert "RuntimeError: the weights are bad" in output
    assert _results() == []
    output = _end(_start(), code=1)
    assert "Slurm ended" not in output
    assert _results() == [("good", 0, 5.0)]
    (failure,) = OUT.glob("*/failure.json")
    assert "RuntimeError: the weights are bad" in json.loads(failure.read_text())["reason"]


def test_what_slurm_refuses_is_told_in_one_line(home):
    _write(partition="nowhere")
    output = _end(_start(), code=2)
    assert "error: Slurm refused the jobs" in output
    assert "invalid partition" in output.lower()


def test_a_machine_outside_a_cluster_is_told_so(home, monkeypatch):
    _write()
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    assert "no sbatch here; start the suite on a machine of the cluster" in _end(_start(), code=2)
