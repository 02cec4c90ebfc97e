"""Tests run on one thread: two processes with two threads each on two cores are slower than with one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from running import Run, completed

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for every subprocess

# The same examples on every run, few of them, no clock, nothing kept on disk.
hypothesis.settings.register_profile("project", max_examples=40, deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("project")

ROOT = Path(__file__).resolve().parent.parent
FRAMEWORKS = (
    "pretrain.setup", "transfer.convert.convert", "transfer.frameworks.classification.run",
    "transfer.frameworks.detectron2.run", "transfer.frameworks.mmseg.run",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers of tests that need more than Python."""
    config.addinivalue_line("markers", "slurm: starts a Slurm cluster of one node (Debian: slurm-wlm and munge)")


@pytest.fixture(autouse=True)
def _single_thread() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def warm_place() -> Iterator[dict[str, str]]:
    """Keep a process that has imported torch and the frameworks, from which tools are forked: starting each costs seconds."""
    from transfer.suite import warm  # here: not every test needs it

    with warm.kept(FRAMEWORKS, {"OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]}) as place:
        yield place


@pytest.fixture
def run_tool(tmp_path: Path, warm_place: dict[str, str]) -> Run:
    """Run one of the project's scripts as a user would, from a folder of its own, and return what it printed."""

    def run(script: str, *arguments: object, check: int | None = 0, **environment: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / script), *map(str, arguments)]
        done = completed(command, tmp_path, {**warm_place, **environment})
        assert check is None or done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run
