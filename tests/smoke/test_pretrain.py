"""The real script in subprocesses: stopped in every way and resumed, on one process and on two."""

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from running import begin, small_run

from core.checkpoint import load
from core.journal import read

ROOT = Path(__file__).resolve().parents[2]
CONFIG = small_run(images=64, epochs=4)
STEPS = 32


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def start(tmp_path, warm_place):
    """Return a function that starts a pre-training, whose output ``finish`` reads."""

    def begun(config: Path, folder: Path, *overrides: str, torchrun: bool = False) -> Any:
        script = [str(ROOT / "pretrain/run.py"), str(config), f"run.folder={folder}", *overrides]
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"] if torchrun else []
        with tempfile.NamedTemporaryFile(dir=tmp_path, suffix=".log", delete=False) as log:
            process = begin([sys.executable, *launcher, *script], warm_place, log)
        process.log = Path(log.name)
        return process

    return begun


def finish(process: Any, code: int = 0) -> str:
    ended, said = process.wait(timeout=300), process.log.read_text()
    assert ended == code, said
    return said


def wait_for_steps(folder: Path, steps: int) -> None:
    journal = folder / "journal.jsonl"
    for _ in range(6000):
        if journal.exists() and len(journal.read_text().splitlines()) >= steps:
            return
        time.sleep(0.05)
    raise AssertionError(f"{journal} did not reach {steps} lines")


def state(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.pth", weights_only=True)


def journal(folder: Path) -> list[dict]:
    lines = read(folder / "journal.jsonl")
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    first, second = state(one), state(other)
    assert first["method"].keys() == second["method"].keys()
    different = [key for key, value in first["method"].items() if not torch.equal(value, second["method"][key])]
    assert different == []
    momenta = [[entry["momentum_buffer"] for entry in s["optimizer"]["state"].values()] for s in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))
    assert first["progress"] == second["progress"]
    assert journal(one) == journal(other)


def test_a_run_killed_or_stopped_and_resumed_equals_the_uninterrupted_one_bit_for_bit(config, tmp_path, start):
    whole = tmp_path / "whole"
    finish(start(config, whole))
    assert [line["step"] for line in journal(whole)] == list(range(1, STEPS + 1))
    assert json.loads((whole / "summary.json").read_text())["status"] == "finished"

    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        folder = tmp_path / number.name
        process = start(config, folder)
        wait_for_steps(folder, 11)
        os.kill(process.pid, number)
        finish(process, code)
        reached = state(folder)["progress"]["step"]
        assert 0 < reached < STEPS
        assert reached % 8 == 0 or number == signal.SIGTERM  # SIGTERM saves where it stands
        if number == signal.SIGTERM:
            assert json.loads((folder / "summary.json").read_text())["status"] == "stopped"
        assert f"going on at step {reached} of {STEPS}" in finish(start(config, folder))
        assert_same_run(whole, folder)
        assert not list(folder.rglob("*.tmp"))


def test_two_gloo_processes_equal_one_with_the_batch_split_in_two_and_go_on_bit_for_bit_after_a_stop(
    config, tmp_path, start
):
    """After two steps losses agree to 1e-6 and tensors to 1e-3; rounding grows tenfold with each further step."""
    quick = (
        "train.epochs=6", "train.keep_every=1", "train.batch_size=32", "method.split_bn=2", "method.queue=64",
        "views.size=64", "data.size=64",
    )  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    finish(start(config, one, *quick))
    finish(start(config, two, *quick, torchrun=True))
    losses = [[line["loss/filled"] for line in journal(folder)[:2]] for folder in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    first, second = (load(folder / "checkpoints" / "epoch_0001.pth")["method"] for folder in (one, two))
    for key, value in first.items():
        if value.is_floating_point():
            torch.testing.assert_close(
                value, second[key], atol=1e-3, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}"
            )
    assert torch.equal(first["queue_pointer"], second["queue_pointer"])

    stopped = tmp_path / "stopped"
    process = start(config, stopped, *quick, torchrun=True)
    wait_for_steps(stopped, 1)
    os.kill(process.pid, signal.SIGTERM)  # torchrun passes it on to both, and ends with its own code
    finish(process, 1)
    assert 0 < (reached := state(stopped)["progress"]["step"]) < 12
    assert f"going on at step {reached} of 12" in finish(start(config, stopped, *quick, torchrun=True))
    assert_same_run(two, stopped)


def test_bf16_and_channels_last_are_switches_that_train(config, tmp_path, start):
    folder = tmp_path / "fast"
    finish(
        start(config, folder, "train.epochs=1", "run.precision=bf16", "run.channels_last=true", "data.count=16")
    )  # fmt: skip
    assert len(journal(folder)) == 2
    assert all(line["loss"] < 20 for line in journal(folder))


def test_a_mistake_of_the_user_is_one_line_and_exit_code_2(config, tmp_path, run_tool):
    done = run_tool("pretrain/run.py", config, "method.name=mooco", check=2)
    assert "method: no 'mooco' in pretrain.methods; did you mean moco?" in done.stderr
    assert "Traceback" not in done.stderr
    done = run_tool("pretrain/run.py", tmp_path / "none.yaml", check=2)
    assert done.stderr.startswith("error: no config at")
