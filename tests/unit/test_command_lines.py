"""One way to say things: --out, --weights and key=value in every tool, in any order, beside the frameworks' own spellings."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tool(name: str) -> dict:
    """Return what a script defines, without running it."""
    return runpy.run_path(str(ROOT / "tools" / f"{name}.py"))


@pytest.fixture(autouse=True)
def _tools(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))


@pytest.mark.parametrize(
    "words",
    [
        ["--config-file", "c", "MODEL.WEIGHTS", "w", "OUTPUT_DIR", "o", "SOLVER.MAX_ITER", "9", "--resume"],
        ["SOLVER.MAX_ITER=9", "--out", "o", "--weights", "w", "--resume", "--config-file", "c"],
        ["--resume", "SOLVER.MAX_ITER=9", "--config-file", "c", "--out=o", "OUTPUT_DIR=elsewhere", "--weights=w"],
    ],
)
def test_detectron2s_values_are_said_its_way_or_ours_in_any_order(words):
    train_net = tool("train_net")
    given = train_net["parser"]().parse_intermixed_args(words)
    said = train_net["pairs"](given)
    assert dict(zip(said[::2], said[1::2], strict=True)) == {
        "MODEL.WEIGHTS": "w",
        "OUTPUT_DIR": "o",
        "SOLVER.MAX_ITER": "9",
    }
    assert (given.resume, given.config_file) == (True, "c")


def test_a_value_may_hold_an_equals_sign_and_a_key_without_a_value_is_refused():
    train_net = tool("train_net")
    assert train_net["pairs"](train_net["parser"]().parse_intermixed_args(["A.B", "x=1", "C=-2"])) == [
        "A.B",
        "x=1",
        "C",
        "-2",
    ]
    with pytest.raises(ValueError, match=r"KEY VALUE must come in pairs: SOLVER\.MAX_ITER"):
        train_net["pairs"](train_net["parser"]().parse_intermixed_args(["SOLVER.MAX_ITER"]))


@pytest.mark.parametrize("words", ["c.py --out o a=1 --seed 3", "--work-dir o --seed=3 c.py --cfg-options a=1"])
def test_mmsegmentations_values_are_said_its_way_or_ours_in_any_order(monkeypatch, words):
    calls = []
    train_seg = tool("train_seg")
    monkeypatch.setattr("transfer.frameworks.mmseg.run.run", lambda **given: calls.append(given))
    monkeypatch.setattr("sys.argv", ["train_seg.py", *words.split()])
    train_seg["main"]()
    wanted = {"config": Path("c.py"), "work_dir": Path("o"), "seed": 3, "cfg_options": ["a=1"]}
    assert {key: calls[0][key] for key in wanted} == wanted


def test_a_trials_values_for_the_framework_need_no_option_before_them():
    run_benchmark = tool("run_benchmark")
    words = ["w.pth", "SOLVER.MAX_ITER=9", "--benchmark", "coco_c4", "--out", "o", "SEED=1"]
    job = run_benchmark["job"](run_benchmark["parser"]().parse_intermixed_args(words))
    assert (job.options, job.checkpoint) == (("SOLVER.MAX_ITER=9", "SEED=1"), Path("w.pth"))


def completed(line: str, home: Path) -> set[str]:
    """Return what a shell offers behind ``line``."""
    told = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    told["_ARGCOMPLETE_STDOUT_FILENAME"] = str(home / "found")
    subprocess.run([sys.executable, "-m", "masktransfer"], cwd=ROOT, env={**os.environ, **told}, check=True, timeout=60)
    return {word.strip() for word in (home / "found").read_text().split("\x0b")}


def test_subcommands_and_their_options_are_completed_from_the_parsers(tmp_path):
    assert {"run-suite", "run-benchmark"} <= completed("masktransfer run-", tmp_path)
    assert "--plan" in completed("masktransfer run-suite --pl", tmp_path)
    assert "shapes" in completed("masktransfer prepare-data sha", tmp_path)


def test_a_subcommand_runs_the_script_of_its_name_with_its_own_parser():
    command = [sys.executable, "-m", "masktransfer"]
    listed = subprocess.run([*command, "list", "masks"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert listed.splitlines()[0].startswith("balanced")
    wrong = subprocess.run([*command, "train-net", "A"], cwd=ROOT, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (2, "error: KEY VALUE must come in pairs: A\n")
