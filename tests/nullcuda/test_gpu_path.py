"""What would break on a GPU breaks here: the real scripts on a CUDA runtime that computes nothing; what they ask is counted."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nullcuda
import numpy as np
import pytest
from PIL import Image

from core import checkpoint
from core.plugins import names
from pretrain.upload import can_compile
from transfer.convert import random_init
from transfer.convert.convert import convert

ROOT = Path(__file__).resolve().parents[2]
METHODS: dict[str, dict[str, Any]] = {
    "moco": {"queue": 16, "dim": 8, "split_bn": 2}, "simclr": {"dim": 8}, "byol": {"dim": 8, "hidden": 16},
    "simsiam": {"dim": 16, "hidden": 16, "bottleneck": 8}, "supervised": {"classes": 8},
}  # fmt: skip
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
    return {
        **os.environ,
        **nullcuda.environment(),
        "PYTHONPATH": str(ROOT),
        "TORCH_COMPILE_DISABLE": "1",
    }  # it takes minutes


def settings(method: str, branch: str, precision: str) -> dict[str, Any]:
    """Return a run of two epochs of three steps with all that a run does."""
    extra = {"hard_negatives": False} if branch == "saliency" and method not in ("moco", "simclr") else {}
    extra |= {"sides": "query"} if branch in ("mscn", "masked") and method == "supervised" else {}
    return {
        "backbone": {"name": "resnet", "depth": 18, "width": 4, "stem": "small"}, "data": SHAPES,
        "views": {"size": 32, "solarize_probability": 0.5}, "method": {"name": method} | METHODS[method],
        "branches": {"b": {"name": branch} | BRANCHES[branch] | extra},
        "mixed_norm": {"unmix": "joint", "saliency": "auxiliary"}.get(branch, "separate"),
        "train": {"epochs": 2, "batch_size": 8, "workers": 0, "log_every": LOGGED, "precise_bn": 1},
        "optimizer": {"name": "lars" if (method, precision) == ("byol", "fp32") else "sgd", "lr": 0.05, "clip_norm": 1},
        "run": {"precision": precision, "graphs": precision == "fp16"},
        "monitor": {"every": 1, "k": 5, "limit": 8, "train": SHAPES, "test": SHAPES},
    }  # fmt: skip


def drive(
    runs: dict[str, Any], null: dict[str, str], folder: Path, *launcher: str, stop: int = STOP
) -> list[dict[str, Any]]:
    """Return what each run, or each rank of it, says of its ends and what was counted."""
    (folder / "runs.json").write_text(json.dumps(runs))
    script = [str(nullcuda.HERE / "drive.py"), str(folder), str(stop), str(folder / "runs.json")]
    done = subprocess.run(
        [sys.executable, *launcher, *script], capture_output=True, text=True, env=null, cwd=folder, timeout=300
    )
    print(done.stderr, file=sys.stderr)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {run["name"] for run in found} == set(runs)
    return found


def test_the_tables_name_every_method_and_branch() -> None:
    assert (sorted(METHODS), sorted(BRANCHES)) == (names("pretrain.methods"), names("pretrain.branches"))


@pytest.mark.parametrize("method", METHODS)
def test_every_branch_starts_trains_stops_and_goes_on_and_asks_the_card_for_nothing_between_log_lines(
    method: str, null: dict[str, str], tmp_path: Path
) -> None:
    fitting = [branch for branch in BRANCHES if (method, branch) != ("supervised", "mixsiam")]  # it is refused
    runs = {f"{b}-{p}": settings(method, b, p) for p in ("fp32", "fp16") for b in fitting}
    found = drive(runs, null, tmp_path)
    for number, run in enumerate(found):
        assert run["ends"] == [128 + 15, 0], run
        folder = tmp_path / run["name"]
        assert {"views.png", "config.yaml", "journal.jsonl", "summary.json"} <= {path.name for path in folder.iterdir()}
        lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [2, 3, 4, 6]
        assert all("knn_top1" in line for line in lines if line["step"] in (3, STEPS))
        assert len(list((folder / "checkpoints").glob("*.pth"))) == 2
        captured = [stretch for stretch in run["stretches"] if stretch["nodes"]]
        played = [stretch for stretch in run["stretches"] if stretch["graphs"] and not stretch["nodes"]]
        assert (len(captured), bool(played)) == ((2, True) if run["name"].endswith("fp16") else (0, False)), run
        for stretch in run["stretches"]:
            if stretch in captured:  # it is compared with the same step launched kernel by kernel
                continue
            waits = {name: stretch[name] for name in ("d2h", "d2h_bytes", "sync")}  # events: the writer's thread
            assert waits == dict.fromkeys(waits, 0), (run["name"], stretch)
            if stretch in played:  # the momentum update is launched apart
                assert (stretch["graphs"], stretch["h2d"], stretch["malloc"]) == (1, 2, 0), (run["name"], stretch)
                assert stretch["launches"] <= 4
            else:
                assert stretch["kernels"] > 100
            assert 0 < stretch["h2d"] <= 2 * LOGGED
            count = 1 if method == "supervised" else 2
            views = count * (8 * 3 * 32 * 32 + 8 * 42 * 4)  # uint8 crops, and what is to be done to their colours
            steps = stretch["h2d_bytes"] // views
            assert 0 < stretch["h2d_bytes"] - steps * views < steps * 6000  # a mask of pixels would be 8,192 bytes
        kept = checkpoint.load(folder / "checkpoints/last.pth")["rng"]
        assert [state["cuda"].shape for state in kept] == [(16,)]  # seed and offset of the card's generator
        if number and not captured:  # after an epoch, and what ends it, all memory is found
            assert run["stretches"][2]["malloc"] == 0


OWN = """
import os, time
import torch
from pretrain.branches import Draws
from pretrain.branches.unmix import Unmix
from pretrain.upload import upload

class Reading(Unmix):
    class Config(Unmix.Config):
        name: str = "own"

    def mix(self, query, key, draws, features=None):
        if query.is_cuda:
            query.sum().item()
        return super().mix(query, key, draws, features)

class Failing(Unmix):
    Config = Reading.Config

    def mix(self, query, key, draws, features=None):
        if query.is_cuda and draws.step == 3:
            if os.environ["RANK"] == "1":
                raise RuntimeError("out of paper")
            time.sleep(300)  # as in a collective of the real NCCL, which no signal ends
        return super().mix(query, key, draws, features)

class Drawing(Unmix):
    Config = Reading.Config

    def mix(self, query, key, draws, features=None):
        upload(torch.rand(1, generator=draws.rows(len(query), "own")[0]), query.device)
        return super().mix(query, key, draws, features)
"""


def test_a_step_that_cannot_be_captured_goes_on_kernel_by_kernel_and_says_why(
    null: dict[str, str], tmp_path: Path, capsys
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    runs = {
        name: settings("moco", "unmix", p) for name, p in (("Reading", "fp16"), ("Drawing", "fp32"), ("unmix", "fp32"))
    }
    for name, run in runs.items():
        run["branches"]["b"]["name"] = f"own:{name}" if name != "unmix" else name
        run["run"]["graphs"] = "auto"
    found = drive(runs, null | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}, tmp_path, stop=0)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("run.graphs: no CUDA graph, ")]
    assert len(said) == 2
    assert "operation not permitted" in said[0] or "captur" in said[0]
    assert "a captured step cannot draw b/0/own/rows on the host" in said[1]
    assert [run["stretches"][1]["graphs"] for run in found] == [0, 0, 1]
    for run, waits in zip(found[:2], (1, 0), strict=True):
        assert run["ends"] == [0, 0], run
        for stretch in run["stretches"][1:]:
            assert (stretch["graphs"], stretch["kernels"] > 100) == (0, True)
            assert stretch["d2h"] <= waits * LOGGED


START = 60  # seconds that two ranks may take to import and build what they need
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def test_two_ranks_train_over_nccl_stop_and_go_on_and_copy_no_gradient(null: dict[str, str], tmp_path: Path) -> None:
    runs = {"moco": settings("moco", "mixmask", "fp16")}
    for stop, code, last in ((STOP, 128 + 15, 5), (0, 0, STEPS)):  # the ranks agree on a stop one step late
        found = drive(runs, null | {"NULLCUDA_DEVICES": "2"}, tmp_path, *TORCHRUN, stop=stop)
        assert [run["ends"] for run in found] == [[code], [code]], found
        for run in found:
            steady = run["stretches"][-1]
            assert steady["until"] == last
            assert steady["nccl"] > 0
            assert (steady["d2h"], steady["sync"]) == (0, 0)
            if stop:  # the other start has seen one step only
                assert steady["malloc"] == 0
                assert steady["d2d"] <= 12  # of the keys that are exchanged
    kept = json.loads((tmp_path / "moco" / "environment.json").read_text())
    assert (kept["world_size"], kept["devices"]) == (2, ["NULL H100"] * 2)
    assert {"cuda", "cudnn", "nccl", "driver"} <= kept.keys()


def test_a_rank_that_fails_ends_the_job_within_a_minute_its_own_message_first(
    null: dict[str, str], tmp_path: Path, capsys
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    runs = {"failing": settings("moco", "unmix", "fp32")}
    runs["failing"]["branches"]["b"]["name"] = "own:Failing"
    given = null | {"NULLCUDA_DEVICES": "2", "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    began = time.monotonic()
    (failed,) = drive(runs, given, tmp_path, *TORCHRUN, stop=0)  # the other one has no word
    said = capsys.readouterr().err
    assert time.monotonic() - began < 60 + START
    assert "RuntimeError: out of paper" in failed["ends"][0]
    assert said.index("out of paper") < said.index("another process of this run failed, its message says why")


def test_synchronised_norms_train_on_two_ranks(null: dict[str, str], tmp_path: Path) -> None:
    runs, two = {"simclr": settings("simclr", "unmix", "fp32")}, {"NULLCUDA_DEVICES": "2"}
    run, other = drive(runs, null | two, tmp_path, *TORCHRUN, stop=0)
    assert run["ends"] == other["ends"] == [0]
    assert run["stretches"][-1]["nccl"] > 100  # two a layer, and the gradients


CHOOSE = """
import os, sys
from core import config
from core.errors import cli
from pretrain.config import PretrainSettings
from pretrain.setup import choose_device
settings = config.parse(PretrainSettings, config.load(sys.argv[1]))
os.environ["SLURM_GPUS_PER_TASK"] = "1"
print(choose_device(settings))
del os.environ["SLURM_GPUS_PER_TASK"]
cli(lambda: choose_device(settings))
"""


def test_more_processes_than_gpus_are_refused_in_one_line(null: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(json.dumps(settings("moco", "mixmask", "fp32")))
    command = [sys.executable, "-c", CHOOSE, str(config)]
    done = subprocess.run(command, capture_output=True, text=True, env=null | {"LOCAL_RANK": "1"})
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: process 1 of this machine has no GPU of its own: there are 1; start as many")
    assert done.stdout == "cuda:0\n"  # where Slurm gives each task a GPU that it sees alone


CLASSIFY = """
import json, os, sys, traceback
from pathlib import Path
from transfer.frameworks.classification import features
from transfer.frameworks.classification.run import run
features.Frozen.check = lambda self: 100  # compares on the card, which computes nothing
configs, weights, out = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
for name, options in json.loads(sys.argv[4]).items():
    try:
        found = run(configs / name, weights, out / name, options=["workers=0", *options])
        print(json.dumps([name, found["device"], sorted(found["metrics"])]), flush=True)
    except Exception:
        print(json.dumps([name, traceback.format_exc(), []]), flush=True)
os._exit(0)
"""
SMALL = ["task.epochs=2", "task.milestones=[1]", "views.size=16", "views.resize=20"]


def test_knn_linear_probe_and_fine_tuning_measure_on_the_card(null: dict[str, str], tmp_path: Path) -> None:
    for label in ("bright", "dim"):
        for number in range(10):
            image = Image.fromarray(np.full((32, 32, 3), 20 * number + (label == "dim"), np.uint8))
            for place in ("cifar10/train", "cifar10/test", "imagenet/train", "imagenet/val"):
                (tmp_path / place / label).mkdir(parents=True, exist_ok=True)
                image.save(tmp_path / place / label / f"{number}.png")
    random_init.make(tmp_path / "random.pth", {"depth": 18, "width": 4, "stem": "cifar"}, seed=0)
    convert(tmp_path / "random.pth", tmp_path / "w.pth", target="classification")
    tasks = {
        "knn_cifar10.yaml": ["task.neighbours=[1,5]"], "linear-sgd-100ep_imagenet.yaml": SMALL,
        "finetune-20ep_imagenet.yaml": [*SMALL, "amp=float16"],
    }  # fmt: skip
    configs = ROOT / "configs/transfer/classification"
    command = [sys.executable, "-c", CLASSIFY, str(configs), str(tmp_path / "w.pth"), str(tmp_path), json.dumps(tasks)]
    given = null | {"DETECTRON2_DATASETS": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=given, timeout=300)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert [(name, device) for name, device, _ in found] == [(name, "cuda") for name in tasks], done.stderr
    assert all(metrics for *_, metrics in found)


@pytest.mark.skipif(reason is not None, reason=str(reason))
@pytest.mark.skipif(not can_compile(), reason="no Triton here, without which nothing is compiled for a card")
def test_what_is_fused_compiles_for_a_card(null: dict[str, str], tmp_path: Path) -> None:
    """Triton needs no card to refuse a kernel: it did the noise's, which multiplied 32-bit places by 64-bit numbers."""
    compiled = {**null, "TORCH_COMPILE_DISABLE": "0", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "kernels")}
    run = settings("moco", "mixmask", "fp16")
    run["branches"]["noise"] = {"name": "mscn"} | BRANCHES["mscn"]
    (found,) = drive({"all": run}, compiled, tmp_path)
    assert found["ends"] == [128 + 15, 0]
    made = {path.name.partition("_fused_")[2] for path in (tmp_path / "kernels").rglob("*.cubin")}
    assert any("rshift" in name for name in made), made  # the noise's
    assert len(made) > 20


def test_the_proof_runs_to_its_end_and_says_that_nothing_is_proven(tmp_path: Path) -> None:
    null = {**os.environ, **nullcuda.environment(), "PYTHONPATH": str(ROOT), "TORCH_COMPILE_DISABLE": "1"}
    command = [sys.executable, str(ROOT / "tools/prove_gpu.py"), "--short", "--out", str(tmp_path / "proof.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=null, cwd=tmp_path, timeout=400)
    proof = json.loads((tmp_path / "proof.json").read_text())
    missed = [check for check in proof["checks"] if check["verdict"] == "missed"]
    assert missed == [], done.stderr
    assert (proof["summary"]["met"], proof["facts"]["device"]) == (0, "NULL H100")
    proven = {check["what"] for check in proof["checks"] if check["verdict"] == "not proven"}
    assert len(proven) > 20
    assert {"stop and resume equal a whole run", "FCN R50-D8: 20 iterations with AMP", "moco + mixmask, fp16"} <= proven
    graph = "moco + mixmask, fp16: steps as one CUDA graph"
    assert graph in proven
    assert "moco: two NCCL ranks equal one process with two groups" in proven


def test_a_machine_without_a_gpu_is_told_so_in_one_line(run_tool) -> None:
    done = run_tool("tools/prove_gpu.py", check=2)
    assert done.stderr.startswith(
        "error: no GPU is available here, so nothing can be proven; run this on a machine with one"
    )
