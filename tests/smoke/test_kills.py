"""Runners and workers are killed at random moments; the results are those of an undisturbed run, each made once."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_suite
import pytest

from core.provenance import ROOT
from transfer import results
from transfer.suite import process

KILLS = 22
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ITEMS = 8


@pytest.fixture
def home(tmp_path, monkeypatch):
    fake_suite.install(tmp_path, monkeypatch)
    values = {
        "name": "test",
        "checkpoints": {name: {"path": f"{name}.pth"} for name in ("good", "other")},
        "benchmarks": {
            "short": {"name": "fake_task", "file": "rows.yaml", "options": ["lasts=0.5"]},
            "long": {"name": "fake_task", "file": "rows.yaml", "options": ["lasts=2"]},
        },
        "trials": 2,
        "retries": 1,
    }
    (tmp_path / "suite.yaml").write_text(json.dumps(values))
    yield tmp_path
    fake_suite.forget()


@pytest.fixture
def start():
    """Start runners, which end with the test."""
    started = []

    def one(out):
        command = [sys.executable, str(ROOT / "tools" / "run_suite.py"), "suite.yaml", "--jobs", "2", "--out", str(out)]
        interruptible = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
        with open("runners.txt", "a") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=interruptible))
        return started[-1]

    yield one
    for runner in started:
        runner.kill()
        runner.wait()


def _workers(out):
    """Return the processes that work on items, wherever they came from."""
    return [one.pid for folder in out.glob("*--*") for one in process.members(folder)]


def _contents(out):
    return {path: path.read_bytes() for path in out.glob("*/result.json")}


def _essence(out):
    """Return what a result must be whoever made it: everything but times, costs and the machine."""
    found = results.read_folder(out)
    assert found.skipped == []
    return {
        path.parent.name: result.model_dump(include={"benchmark", "protocol", "checkpoint", "trial", "seed", "metrics"})
        for path, result in found.results.items()
    }


def _strike(chance, out, runners, lifetime):
    """Wait for a random share of an item's lifetime and kill a runner or a worker; return which, if one was there."""
    end = time.monotonic() + (10 * lifetime if chance.random() < 0.8 else 0.0)
    while time.monotonic() < end and not _workers(out) and any(runner.poll() is None for runner in runners):
        time.sleep(0.02)
    time.sleep(chance.uniform(0.0, lifetime))
    workers, alive = _workers(out), [runner for runner in runners if runner.poll() is None]
    number = chance.choice(SIGNALS)
    if workers and chance.random() < 0.6:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(workers), number)
            return f"worker {number.name}"
    elif alive:
        chance.choice(alive).send_signal(number)
        return f"runner {number.name}"
    return None


def _disturb(chance, start, out, lifetime, kills):
    """Kill two runners of a suite and their workers, starting them again, until it is finished; return what was struck."""
    struck, kept, runners = [], {}, [start(out), start(out)]
    while len(struck) < kills and len(_contents(out)) < ITEMS:
        if (what := _strike(chance, out, runners, lifetime)) is not None:
            struck.append(what)
        found = _contents(out)
        for path, content in found.items():
            json.loads(content)
            assert kept.setdefault(path, content) == content, f"{path} was written twice"
        assert kept.keys() == found.keys(), "a finished result is gone"
        runners = [runner if runner.poll() is None else start(out) for runner in runners]
    for runner in runners:
        runner.wait(timeout=120)
    assert start(out).wait(timeout=120) == 0, Path("runners.txt").read_text()[-3000:]
    assert all(_contents(out)[path] == content for path, content in kept.items())
    for unwanted in ("*/failure.json", "*/two_at_once", "*/.*.tmp"):
        assert not list(out.glob(unwanted)), unwanted
    assert _workers(out) == []
    return struck


def test_kills_at_random_moments_lose_repeat_and_halve_nothing(home, start):
    begin = time.monotonic()
    assert start(Path("undisturbed")).wait(timeout=120) == 0
    lifetime = min((time.monotonic() - begin) * 2 / ITEMS, 4.0)
    wanted = _essence(Path("undisturbed"))
    assert len(wanted) == ITEMS

    chance, struck = random.Random(5), []
    while len(struck) < KILLS:  # a suite that is finished before the last kill is followed by another
        out = Path(f"out{len(struck)}")
        struck += _disturb(chance, start, out, lifetime, KILLS - len(struck))
        assert _essence(out) == wanted
    assert {what.split()[0] for what in struck} == {"runner", "worker"}
    assert {what.split()[1] for what in struck} == {"SIGKILL", "SIGTERM", "SIGINT"}
