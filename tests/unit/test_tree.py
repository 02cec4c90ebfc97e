"""The tree keeps its own rules."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_files_stay_short_enough_to_read():
    long = {str(p): n for p in PYTHON if (n := len((ROOT / p).read_text().splitlines())) > 350}
    assert long == {}


def test_no_file_names_a_registry_host():
    hosts = re.compile(
        "|".join(["python" + r"hosted\.org", "pypi" + r"\.org", "deb" + r"\.debian", "registry" + r"\.npmjs"])
    )
    texts = [
        n for n in TRACKED if n.endswith((".py", ".md", ".toml", ".txt", ".yaml", ".cff", ".sh")) or n == "Makefile"
    ]
    assert [n for n in texts if (ROOT / n).exists() and hosts.search((ROOT / n).read_text())] == []


@pytest.mark.parametrize("tool", sorted(p.name for p in (ROOT / "tools").glob("*.py")))
def test_every_tool_explains_itself_without_importing_torch(tool):
    code = (
        "import runpy, sys; sys.path.insert(0, 'tools'); sys.argv = [sys.argv[1], '--help']\n"
        "try: runpy.run_path('tools/' + sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules, 'imports torch'"
    )
    done = subprocess.run([sys.executable, "-c", code, tool], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
