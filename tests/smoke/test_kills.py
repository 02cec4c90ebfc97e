"""Runners and workers are killed at random moments; the results are those of an undisturbed run, each made once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import fake_suite
import pytest

from core.provenance import ROOT
from transfer import family, results

KILLS = 22
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
OUT = Path("out")


@pytest.fixture
def home(tmp_path, monkeypatch):
    fake_suite.install(tmp_path, monkeypatch)
    values = {
        "name": "test",
        "checkpoints": {name: {"path": f"{name}.pth"} for name in ("good", "other")},
        "benchmarks": {"short": {"name": "fake_task"}, "long": {"name": "fake_task", "options": ["x"]}},
        "trials": 3,
        "retries": 1,
    }
    (tmp_path / "suite.yaml").write_text(json.dumps(values))
    yield tmp_path
    fake_suite.forget()


def _start(out=OUT):
    command = [sys.executable, str(ROOT / "tools" / "run_suite.py"), "suite.yaml", "--jobs", "2", "--out", str(out)]
    with open("runners.txt", "a") as log:
        interruptible = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
        return subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=interruptible)


def _workers():
    """Return the processes that work on items, wherever they came from."""
    return [pid for folder in OUT.glob("*--*") for pid in family.members(folder)]


def _contents():
    return {path: path.read_bytes() for path in OUT.glob("*/result.json")}


def _essence(folder):
    """Return what a result must be whoever made it: everything but times, costs and the machine."""
    found = results.read_folder(folder)
    assert found.skipped == []
    return {
        path.parent.name: result.model_dump(include={"benchmark", "protocol", "checkpoint", "trial", "seed", "metrics"})
        for path, result in found.results.items()
    }


def _wait_for_work(chance, runners):
    """Wait until there is a worker, mostly, and then for a moment; sometimes only for a moment."""
    end = time.monotonic() + (5.0 if chance.random() < 0.8 else 0.0)
    while time.monotonic() < end and not _workers() and any(runner.poll() is None for runner in runners):
        time.sleep(0.02)
    time.sleep(chance.uniform(0.0, 0.4))


def _strike(chance, runners):
    """Kill a runner or one of the workers; tell which."""
    workers = _workers()
    number = chance.choice(SIGNALS)
    if workers and chance.random() < 0.6:
        try:
            os.kill(chance.choice(workers), number)
        except ProcessLookupError:
            return None
        return f"worker {number.name}"
    alive = [runner for runner in runners if runner.poll() is None]
    if not alive:
        return None
    chance.choice(alive).send_signal(number)
    return f"runner {number.name}"


def test_kills_at_random_moments_lose_repeat_and_halve_nothing(home):
    chance = random.Random(5)
    struck, kept = Counter(), {}
    runners = [_start(), _start()]
    while sum(struck.values()) < KILLS:
        _wait_for_work(chance, runners)
        if (what := _strike(chance, runners)) is not None:
            struck[what] += 1
        for path, content in _contents().items():
            assert kept.setdefault(path, content) == content, f"{path} was written twice"
            json.loads(content)
        assert kept.keys() == _contents().keys(), "a finished result is gone"
        ended = [runner for runner in runners if runner.poll() is not None]
        runners = [runner for runner in runners if runner not in ended] + [_start() for _ in ended]
    for runner in runners:
        runner.wait(timeout=120)
    last = _start()
    assert last.wait(timeout=120) == 0, Path("runners.txt").read_text()[-3000:]
    assert len({what.split()[0] for what in struck}) == 2
    assert len({what.split()[1] for what in struck}) == 3

    undisturbed = _start(Path("undisturbed"))
    assert undisturbed.wait(timeout=120) == 0
    assert _essence(OUT) == _essence(Path("undisturbed"))
    assert len(_essence(OUT)) == 12
    assert all(_contents()[path] == content for path, content in kept.items())
    for unwanted in ("*/failure.json", "*/two_at_once", "*/.*.tmp"):
        assert not list(OUT.glob(unwanted)), unwanted
    assert _workers() == []
