"""The tree keeps its own rules; its tools answer --help without the imports that take seconds."""

import json
import re
import subprocess
import sys
from pathlib import Path

import made_results
import pytest

from core import plugins
from transfer import benchmarks

ROOT = Path(__file__).resolve().parents[2]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
PYTHON = [Path(name) for name in TRACKED if name.endswith(".py") and (ROOT / name).exists()]


def test_no_file_in_a_script_folder_hides_a_standard_module():
    """``python pretrain/run.py`` puts that folder first on sys.path."""
    hiding = [
        p
        for p in PYTHON
        if p.parts[0] in ("pretrain", "tools") and len(p.parts) == 2 and p.stem in sys.stdlib_module_names
    ]
    assert hiding == []


def test_no_file_is_a_drawer_for_everything():
    assert [p for p in PYTHON if p.stem in ("utils", "util", "helpers", "helper", "misc", "common")] == []


def test_no_file_names_a_registry_host():
    hosts = re.compile(
        "|".join(["python" + r"hosted\.org", "pypi" + r"\.org", "deb" + r"\.debian", "registry" + r"\.npmjs"])
    )
    texts = [
        n for n in TRACKED if n.endswith((".py", ".md", ".toml", ".txt", ".yaml", ".cff", ".sh")) or n == "Makefile"
    ]
    assert [n for n in texts if (ROOT / n).exists() and hosts.search((ROOT / n).read_text())] == []


SCRIPTS = sorted(path.name for path in (ROOT / "tools").glob("*.py") if path.name != "checkout.py")
TOOLS = [*(f"tools/{name}" for name in SCRIPTS), "pretrain/run.py"]
HEAVY = ("torch", "torchvision", "detectron2", "mmseg", "mmengine", "mmcv", "cv2", "timm")
SLOW = (*HEAVY, "numpy", "scipy", "PIL", "pydantic", "omegaconf", "rich", "jinja2", "yaml")
CHILD = """
import json, runpy, sys
script, names = sys.argv[1], json.loads(sys.argv[2])
sys.argv = [script, *sys.argv[3:]]
sys.path.insert(0, script.rpartition("/")[0])
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print("imported:", json.dumps([name for name in names if name in sys.modules]))
"""


def imported(script: str, names: tuple[str, ...], *arguments: str) -> list[str]:
    """Run a script in a child process and return which of the modules it imported."""
    command = [sys.executable, "-c", CHILD, script, json.dumps(names), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--help" not in arguments or "usage" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("imported: ")
    return list(json.loads(last.removeprefix("imported: ")))


@pytest.mark.parametrize("script", TOOLS)
def test_help_imports_nothing_that_takes_long(script: str) -> None:
    assert imported(script, SLOW, "--help") == []


def test_a_report_is_written_without_torch(tmp_path: Path) -> None:
    made_results.suite(tmp_path)
    found = imported("tools/write_report.py", HEAVY, str(tmp_path), "--baseline", "MSCN")
    assert found == []
    assert (tmp_path / "report" / "report.html").is_file()


def test_what_there_is_can_be_listed_by_name_and_as_json() -> None:
    command = [sys.executable, "tools/list.py"]
    shown = subprocess.run([*command, "benchmarks"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in shown.splitlines()] == list(benchmarks.shipped())
    listed = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = json.loads(listed)
    assert found["masks"].keys() == set(plugins.names("pretrain.masks"))
    assert all(about for sort in found.values() for about in sort.values())


def test_doctor_leaves_the_import_of_frameworks_to_its_child_processes() -> None:
    code = (
        "import subprocess, sys; sys.path.insert(0, 'tools'); import doctor; sys.argv = ['doctor']; asked = []\n"
        "doctor._run = lambda code: asked.append(code) or subprocess.CompletedProcess(code, 0, 'cpu', '')\n"
        "assert doctor.main() == 0\n"
        "assert 'import torch' in asked\n"
        f"print([name for name in {HEAVY} if name in sys.modules and name != 'cv2'])"
    )  # the layouts of datasets, which it lists, read pictures with OpenCV
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
