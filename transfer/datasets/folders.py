"""Make a dataset folder whole or not at all, once, and remember what it was made from."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.files import sha256, write_json

MANIFEST = "manifest.json"


def make_once(folder: Path, made_from: dict[str, Any], make: Callable[[Path], None]) -> bool:
    """Run ``make`` on a temporary folder and rename it to ``folder``, unless one made from the same is there.

    Processes that ask at the same time wait for the first. A folder made from something else is replaced; one that this
    function did not make is refused. Returns whether it was made now.
    """
    if _is_current(folder, made_from):
        return False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.parent / f".{folder.name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the system when the process ends, however it ends
            if _is_current(folder, made_from):
                return False
            _make(folder, made_from, make)
    except OSError as error:
        if error.errno is None:
            raise
        what = f"cannot write {folder} ({error.strerror}: {error.filename})"
        raise InputError(f"{what}; free some space or choose another folder") from error
    return True


def _make(folder: Path, made_from: dict[str, Any], make: Callable[[Path], None]) -> None:
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a killed process: the lock is ours
        shutil.rmtree(left)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        make(temporary)
        names = sorted(path.relative_to(temporary).as_posix() for path in temporary.rglob("*") if path.is_file())
        files = {name: sha256(temporary / name) for name in names}
        write_json(temporary / MANIFEST, {"made_from": made_from, "sha256": digest(files), "files": files})
        os.chmod(temporary, 0o755)
        os.sync()  # one for all files, before the name says that they are whole
        if folder.exists():
            os.rename(folder, temporary.with_suffix(".old.tmp"))
        os.rename(temporary, folder)
        shutil.rmtree(temporary.with_suffix(".old.tmp"), ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def digest(files: dict[str, str]) -> str:
    """Return one sha256 for a set of files, given as relative name -> sha256."""
    return hashlib.sha256("".join(f"{value}  {name}\n" for name, value in sorted(files.items())).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what a made folder was made from (``made_from``), its ``files`` and their common ``sha256``."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if not isinstance(manifest["files"], dict) or not isinstance(manifest["made_from"], dict):
            raise TypeError
    except FileNotFoundError as error:
        raise InputError(f"no {folder / MANIFEST}; make the folder with tools/prepare_data.py") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / MANIFEST} is damaged; remove the folder {folder} and make it again") from error
    return manifest


def verify(folder: Path) -> None:
    """Compare every file of a made folder with its sha256; raise InputError naming the first that differs."""
    for name, expected in read_manifest(folder)["files"].items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path} is missing; remove the folder {folder} and make it again")
        if sha256(path) != expected:
            raise InputError(f"{path} was changed or is damaged; remove the folder {folder} and make it again")


def _is_current(folder: Path, made_from: dict[str, Any]) -> bool:
    """Tell whether the folder was made from the same and still has all its files."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder} exists and was not made by this tool; move it away or choose another folder")
    manifest = read_manifest(folder)
    same = bool(manifest["made_from"] == json.loads(json.dumps(made_from)))
    return same and all((folder / name).is_file() for name in manifest["files"])
