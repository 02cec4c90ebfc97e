"""Write files so that they are never half written, and read untrusted ones without running anything in them."""

import contextlib
import hashlib
import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import InputError


class FileError(InputError):
    """A file is missing, damaged or holds what it must not; the message names it and the next step."""


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; on success it is fsynced and renamed onto ``path``, else removed."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}; choose another folder") from error
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
        if isinstance(error, OSError) and error.errno is not None:
            raise FileError(
                f"cannot write {path}: {error.strerror}; free some space or choose another folder"
            ) from error
        raise
    _sync_folder(path.parent)


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
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))


def read_weights_file(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint (``.pkl`` of arrays, or anything ``torch.save`` wrote) on the CPU without executing it.

    Raises FileError when the file is missing, truncated, holds pickled objects, or is not a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"no checkpoint at {path}; check the path")
    value = _read_arrays(path) if path.suffix == ".pkl" else _read_torch(path)
    if not isinstance(value, dict):
        raise FileError(f"{path} holds a {type(value).__name__}, not a mapping of names to tensors; save a state_dict")
    return value


def _read_torch(path: Path) -> Any:
    import torch  # here, so that tools that read no weights start fast

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        detail = str(error).split("GLOBAL ")[-1].split(" ")[0] if "GLOBAL" in str(error) else ""
        if detail:
            raise FileError(
                f"{path} holds a pickled object ({detail}), which could run code when loaded; "
                "save only tensors and plain values (state_dict) and pass that file"
            ) from error
        raise FileError(f"{path} is truncated or not a checkpoint; copy or download it again") from error
    except (RuntimeError, EOFError, KeyError, ValueError, zipfile.BadZipFile, OSError) as error:
        raise FileError(f"{path} is truncated or not a checkpoint; copy or download it again") from error


class _ArrayUnpickler(pickle.Unpickler):
    """Admit NumPy arrays and plain containers, and nothing that could run code."""

    ADMITTED = frozenset(
        (f"{package}.{module}", name)
        for package in ("numpy.core", "numpy._core")
        for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
    ) | {("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict"), ("_codecs", "encode")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _read_arrays(path: Path) -> Any:
    try:
        with open(path, "rb") as file:
            return _ArrayUnpickler(file, encoding="latin1").load()
    except pickle.UnpicklingError as error:
        if "." in str(error) and " " not in str(error):
            raise FileError(
                f"{path} holds a pickled object ({error}), which could run code when loaded; only arrays are read from .pkl"
            ) from error
        raise FileError(f"{path} is truncated or not a pickle of arrays; copy or download it again") from error
    except (EOFError, AttributeError, IndexError, ValueError, KeyError, TypeError, ImportError) as error:
        raise FileError(f"{path} is truncated or not a pickle of arrays; copy or download it again") from error


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
