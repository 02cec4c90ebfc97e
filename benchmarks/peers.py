"""An environment for the packages we are compared with: ``.tools/peers``, layered over ours and never part of it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from core.errors import InputError  # noqa: E402
from core.files import write_json  # noqa: E402

PEERS = ROOT / ".tools" / "peers"
KORNIA = ("kornia==0.9.0", "kornia-rs==0.2.0")
LIGHTLY = ("lightly==1.6.0", "lightly-utils==0.0.2")


def interpreter(*requirements: str) -> Path:
    """Return a Python that imports the pinned ``requirements``, and everything of ours below them.

    They are installed without their dependencies, so that peers run on our torch; what is missing must be named. A call with
    nothing new takes no time and no network. Raise InputError when something cannot be installed.
    """
    python = PEERS / "bin" / "python"
    PEERS.parent.mkdir(exist_ok=True)
    with FileLock(PEERS.parent / "peers.lock"):
        listed = PEERS / "installed.json"
        installed = json.loads(listed.read_text()) if listed.is_file() else []
        new = sorted(set(requirements) - set(installed))
        if python.is_file() and not new:
            return python
        uv = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
        if not python.is_file():
            _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(PEERS)])
            packages = PEERS / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
            (packages / "below.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        if new:
            _run([uv, "pip", "install", "--quiet", "--no-deps", "--python", str(python), *new])
        names = {requirement.partition("==")[0] for requirement in new}
        kept = [old for old in installed if old.partition("==")[0] not in names]
        write_json(listed, sorted([*kept, *new]))
    return python


def versions(*requirements: str) -> str:
    """Return the pinned requirements as one line for a figure's detail."""
    return ", ".join(requirement.replace("==", " ") for requirement in requirements)


def _run(command: Sequence[str]) -> None:
    environment = os.environ | {"UV_PYTHON_DOWNLOADS": "never", "UV_COMPILE_BYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise InputError(f"cannot make {PEERS} ({done.stderr.strip() or done.stdout.strip()}); check the registry")
