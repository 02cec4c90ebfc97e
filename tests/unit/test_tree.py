"""The tree keeps its own rules."""

import re
import subprocess
import sys
from pathlib import Path

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
