"""What would break on a GPU breaks here: the real scripts on a CUDA runtime that computes nothing; what they ask is counted."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nullcuda
import pytest

from core.plugins import names

ROOT = Path(__file__).resolve().parents[2]
METHODS: dict[str, dict[str, Any]] = {
    "moco": {"queue": 16, "dim": 8, "split_bn": 2},
    "simclr": {"dim": 8},
    "byol": {"dim": 8, "hidden": 16},
    "simsiam": {"dim": 16, "hidden": 16, "bottleneck": 8},
}
GRID = {"cells": 4, "ratio": 0.5}
BRANCHES: dict[str, dict[str, Any]] = {
    "mixmask": {"mask": {"name": "balanced", **GRID, "saliency": {"stage": 2}}},
    "unmix": {},
    "mscn": {"cell": 8, "ratio": [0.0625, 0.25]},
    "saliency": {"cells": 4, "ratio": [0.0625, 0.25], "saliency": {"stage": 2}},
    "mixsiam": {},
    "masked": {"mask": {"name": "block", **GRID}, "fill": {"name": "highpass"}, "sides": "both"},
}
SHAPES = {"name": "shapes", "count": 24, "size": 32, "centred": True}
STEPS, STOP, LOGGED = 6, 4, 2

reason = nullcuda.why_not()
pytestmark = pytest.mark.skipif(reason is not None, reason=str(reason))


@pytest.fixture(scope="session")
def null() -> dict[str, str]:
    """Return the environment of a process on the null runtime."""
    return {**os.environ, **nullcuda.environment(), "PYTHONPATH": str(ROOT)}


def settings(method: str, branch: str, precision: str) -> dict[str, Any]:
    """Return a run of two epochs of three steps with all that a run does."""
    extra = {"hard_negatives": False} if branch == "saliency" and method in ("byol", "simsiam") else {}
    return {
        "backbone": {"name": "resnet", "depth": 18, "width": 4, "stem": "small"},
        "data": SHAPES,
        "views": {"size": 32, "solarize_probability": 0.5},
        "method": {"name": method} | METHODS[method],
        "branches": {"b": {"name": branch} | BRANCHES[branch] | extra},
        "mixed_norm": {"unmix": "joint", "saliency": "auxiliary"}.get(branch, "separate"),
        "train": {"epochs": 2, "batch_size": 8, "workers": 0, "log_every": LOGGED, "precise_bn": 1},
        "optimizer": {"name": "lars" if (method, precision) == ("byol", "fp32") else "sgd", "lr": 0.05, "clip_norm": 1},
        "run": {"precision": precision},
        "monitor": {"every": 1, "k": 5, "limit": 8, "train": SHAPES, "test": SHAPES},
    }


def test_the_tables_name_every_method_and_branch() -> None:
    assert (sorted(METHODS), sorted(BRANCHES)) == (names("pretrain.methods"), names("pretrain.branches"))


@pytest.mark.parametrize("method", METHODS)
def test_every_branch_starts_trains_stops_and_goes_on_and_asks_the_card_for_nothing_between_log_lines(
    method: str, null: dict[str, str], tmp_path: Path
) -> None:
    runs = {f"{b}-{p}": settings(method, b, p) for b in BRANCHES for p in ("fp32", "fp16")}
    done = subprocess.run(
        [sys.executable, str(nullcuda.HERE / "drive.py"), str(tmp_path), str(STOP)],
        input=json.dumps(runs), capture_output=True, text=True, env=null, timeout=300,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [run["name"] for run in found] == list(runs), done.stderr
    for number, run in enumerate(found):
        assert run["ends"] == [128 + 15, 0], run
        folder = tmp_path / run["name"]
        assert {"views.png", "config.yaml", "journal.jsonl", "summary.json"} <= {path.name for path in folder.iterdir()}
        lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [2, 3, 4, 6]
        assert all("knn_top1" in line for line in lines if line["step"] in (3, STEPS))
        assert len(list((folder / "checkpoints").glob("*.pth"))) == 2
        for stretch in run["stretches"]:
            waits = {name: stretch[name] for name in ("d2h", "d2h_bytes", "sync", "event_sync")}
            assert waits == dict.fromkeys(waits, 0), (run["name"], stretch)
            assert stretch["kernels"] > 100
            assert 0 < stretch["h2d"] <= 20 * LOGGED
        if number:  # what the first run allocated serves the others
            assert [stretch["malloc"] for stretch in run["stretches"][1:]] == [0] * (len(run["stretches"]) - 1)
