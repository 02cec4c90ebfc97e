"""What tools do with their command line, their errors and their install: one way to say things, one way to end."""

import errno
import importlib.util
import itertools
import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from core.errors import InputError, cli
from core.meter import track
from masktransfer import __main__ as subcommands
from transfer.results import SILENT

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


@pytest.mark.parametrize(
    ("name", "words", "options"),
    [
        ("prepare_data", ["dtd", "A", "B"], ["--check"]),
        ("run_suite", ["s.yaml", "a=1", "b=2"], ["--plan", "--jobs=3"]),
        ("write_report", ["A", "B"], ["--out=o", "--baseline=c"]),
        ("run_benchmark", ["a.pth", "a=1", "b=2"], ["--tiny", "--benchmark=b"]),
        ("predict", ["run", "a.jpg", "b.jpg"], ["--out=o"]),
        ("convert_to_d2", ["a.pth", "b.pkl"], ["--show", "--json=p"]),
    ],
)
def test_options_stand_anywhere_among_a_tools_other_words(name, words, options):
    parser = tool(name)["parser"]()
    parse = parser.parse_args if name in ("prepare_data", "convert_to_d2") else parser.parse_intermixed_args
    first = int(name == "prepare_data")  # its subcommand
    found = {str(parse([*words[:place], *options, *words[place:]])) for place in range(first, len(words) + 1)}
    assert len(found) == 1


def test_a_value_may_hold_an_equals_sign_and_a_key_without_a_value_is_refused():
    train_net = tool("train_net")
    assert train_net["pairs"](train_net["parser"]().parse_intermixed_args(["A.B", "x=1", "C=-2"])) == [
        "A.B", "x=1", "C", "-2",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"KEY VALUE must come in pairs: SOLVER\.MAX_ITER"):
        train_net["pairs"](train_net["parser"]().parse_intermixed_args(["SOLVER.MAX_ITER"]))


@pytest.mark.parametrize(("seconds", "told"), [(1.5, ""), (3.0, "reading: 3/3 in 3.0 s\n")])
def test_what_reports_do_is_told_only_when_it_takes_over_two_seconds(monkeypatch, capsys, seconds, told):
    clock = itertools.count()
    monkeypatch.setattr("core.meter.time.monotonic", lambda: next(clock) * seconds / 5)
    assert list(track("abc", "reading", 3, SILENT)) == ["a", "b", "c"]
    assert capsys.readouterr().err == told


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
    for words in ("--tiny w.pth SEED=1", "w.pth --tiny SEED=1", "SEED=1 --tiny w.pth", "w.pth SEED=1 --tiny"):
        given = run_benchmark["parser"]().parse_intermixed_args(
            [*words.split(), "--benchmark", "coco_c4", "--out", "o"]
        )
        job = run_benchmark["job"](given)
        assert (job.options, job.checkpoint, job.tiny) == (("SEED=1",), Path("w.pth"), "shapes")


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
    for name in subcommands.scripts():
        subcommands.parser(name).format_help()


def test_a_subcommand_runs_the_script_of_its_name_with_its_own_parser():
    command = [sys.executable, "-m", "masktransfer"]
    listed = subprocess.run([*command, "list", "masks"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert listed.splitlines()[0].startswith("balanced")
    told = subprocess.run([*command, "convert", "-h"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told.startswith("usage: masktransfer convert [-h] ")
    assert "--target" in told
    wrong = subprocess.run([*command, "train-net", "A"], cwd=ROOT, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (2, "error: KEY VALUE must come in pairs: A\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("set data.root"), "error: set data.root\n"),
        (
            PermissionError(13, "Permission denied", "runs/ro"),
            "error: runs/ro: permission denied; check the path, or choose another one\n",
        ),
        (FileNotFoundError("no checkpoint at x.pth"), "error: no checkpoint at x.pth\n"),
    ],
)
def test_what_the_user_got_wrong_is_one_line_and_exit_code_two(error, said, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        cli(main)
    assert (ended.value.code, capsys.readouterr().err) == (2, said)


def ended(error, capsys):
    """Return the exit code of a tool that raises ``error``, and the lines that it prints."""

    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        cli(main)
    return caught.value.code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    "error", [ValueError("not enough values to unpack"), KeyError("x"), AssertionError(), OSError("odd")]
)
def test_a_fault_of_ours_is_said_to_be_one_and_shows_its_traceback(error, capsys):
    code, lines = ended(error, capsys)
    assert code == 1
    assert lines[0].startswith("fault: this is a mistake of ours, not of your input; please report what stands below")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1].startswith(type(error).__name__)


def test_a_full_disk_is_one_line_and_exit_code_one(capsys):
    error = OSError(errno.ENOSPC, "No space left on device", "runs/a.pth")
    line = "error: runs/a.pth: no space left on device; free some space, then start the same command again"
    assert ended(error, capsys) == (1, [line])


@pytest.mark.parametrize(("given", "seen"), [("~/sets/", "/home/me/sets"), ("/data", "/data"), ("/", "/"), ("", "")])
def test_the_root_of_the_data_sets_may_begin_at_home_and_end_with_a_slash(monkeypatch, given, seen):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DETECTRON2_DATASETS", given)
    with pytest.raises(SystemExit):
        cli(lambda: None)
    assert os.environ["DETECTRON2_DATASETS"] == seen


ROOT = Path(__file__).resolve().parents[2]


def test_a_wheel_without_configs_and_tools_is_refused_with_how_to_install(monkeypatch):
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    interface = ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = object  # the environment has no hatchling: it is fetched for the build
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / hook["custom"]["path"])
    built = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(built)
    assert built.CheckoutOnly().initialize("editable", {}) is None
    with pytest.raises(SystemExit, match="git clone it, then `make setup` there, or `pip install --editable"):
        built.CheckoutOnly().initialize("standard", {})
