"""Write files so that they are never half written."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import MACHINE, InputError

LEFT = re.compile(
    r"\..+\.[a-z0-9_]{8}\.tmp"
)  # what a process that was killed while writing leaves: ``tempfile``'s names


class FileError(InputError):
    """A file is missing, damaged or holds what it must not; the message names it and the next step."""


class Unwritable(FileError):
    """The disk is full, read-only or failing, or a limit is reached: the run stops, and goes on once there is room."""

    code = 1


def unwritable(path: Path | str, error: OSError, step: str = "choose another folder") -> FileError:
    """Return the error of a file or folder that cannot be written."""
    kind = Unwritable if error.errno in MACHINE else FileError
    return kind(f"cannot write {path}: {error.strerror}; {step}")


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; on success it is fsynced and renamed onto ``path``, else removed."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if (folder := path.parent.absolute()) not in _swept:
            _swept.add(folder)
            sweep(folder)
        name, descriptor = _held(
            lambda: tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)[::-1]
        )
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        if (reason := _of_the_disk(error)) is not None:
            raise unwritable(path, reason, "free some space or choose another folder") from error
        raise
    _sync_folder(path.parent)


def _of_the_disk(error: BaseException | None) -> OSError | None:
    """Return why a file could not be written: torch raises a RuntimeError of its own in the course of the system's."""
    torn = isinstance(error, RuntimeError) and "PytorchStreamWriter" in str(error)
    while isinstance(error, OSError | RuntimeError):
        if isinstance(error, OSError) and error.errno is not None:
            return error
        error = error.__cause__ or error.__context__
    return OSError(errno.EIO, os.strerror(errno.EIO)) if torn else None


@contextlib.contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Give a folder in ``parent`` that goes when the block ends; what a killed process left is removed by the next one's."""

    def make() -> tuple[str, int]:
        made = tempfile.mkdtemp(prefix=f".{name}.", suffix=".tmp", dir=parent)
        return made, os.open(made, os.O_RDONLY)

    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    made, descriptor = _held(make)
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(descriptor)


_swept: set[Path] = set()  # folders that this process has written into


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders of processes that are gone: what is being written is locked by its writer."""
    with os.scandir(folder) as entries:
        left = [entry.path for entry in entries if LEFT.fullmatch(entry.name)]
    for path in left:
        with contextlib.suppress(OSError):  # gone by now, of another user, or in use
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
            finally:
                os.close(descriptor)


def _held(make: Callable[[], tuple[str, int]]) -> tuple[str, int]:
    """Make a temporary file or folder and lock it; make another where a sweep came between."""
    while True:
        name, descriptor = make()
        with contextlib.suppress(OSError):  # a file system without locks, where nothing is swept either
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.path.exists(name):
            return name, descriptor
        os.close(descriptor)


def require_room(folder: Path, needed: float, what: str) -> None:
    """Raise Unwritable before long work whose files (``needed`` bytes) the disk cannot hold."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if needed > (free := shutil.disk_usage(place).free):
        raise Unwritable(
            f"{folder} has {free / 2**30:.1f} GiB free, {needed / 2**30:.1f} are needed for {what}; free some or choose "
            "another folder"
        )


def write_atomic(path: Path | str, data: bytes | str) -> None:
    """Write ``data`` to ``path`` whole or not at all."""
    with replacing(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all; NaN is refused, use None."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def sha256(path: Path | str) -> str:
    """Return the hexadecimal sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def datasets_root() -> Path:
    """Return the folder all datasets lie under: ``DETECTRON2_DATASETS`` or ``./datasets``."""
    return Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
