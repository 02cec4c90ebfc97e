"""Write files so that they are never half written, and read untrusted ones without running anything in them."""

import contextlib
import hashlib
import json
import os
import pickle
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
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


def read_json(path: Path | str) -> Any:
    """Return a JSON file's content; raise FileError naming the file when it is not there or damaged."""
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is not JSON, perhaps cut short ({error}); remove it to have it made again") from error


def sha256(path: Path | str) -> str:
    """Return the hexadecimal sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def datasets_root() -> Path:
    """Return the folder all datasets lie under: ``DETECTRON2_DATASETS`` or ``./datasets``."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))


def read_weights_file(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint on the CPU without executing anything in it.

    ``.safetensors``; ``.pkl`` of arrays; else whatever ``torch.save`` wrote (``.pth``, ``.pt``, ``.ckpt``, ``.tar``), in which
    settings objects become empty stand-ins. A safetensors file's metadata gives ``recipe``, the tensors ``state_dict``.
    Raises FileError when the file is missing, truncated, holds other pickled objects, or is not a mapping.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path} is a folder; give a checkpoint in it")
    if not path.is_file():
        raise FileError(f"no checkpoint at {path}; check the path")
    value = _reader(path)(path)
    if not isinstance(value, dict):
        raise FileError(f"{path} holds a {type(value).__name__}, not a mapping of names to tensors; save a state_dict")
    return value


def _reader(path: Path) -> Callable[[Path], Any]:
    if path.suffix == ".safetensors":
        return _read_safetensors
    if path.suffix != ".pkl":
        return _read_torch
    with open(path, "rb") as file:  # torch.save's own form under a pickle's name
        return _read_torch if file.read(4) == b"PK\x03\x04" else read_arrays


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
            metadata = file.metadata() or {}
        recipe = json.loads(metadata["recipe"]) if "recipe" in metadata else None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise FileError(f"{path} is truncated or not a safetensors file; copy or download it again") from error
    return tensors if recipe is None else {"state_dict": tensors, "recipe": recipe}


@contextlib.contextmanager
def _admitting(globals_: list[Any]) -> Iterator[None]:
    """Let torch.load make these alone: other libraries add to its list, MMEngine even ``getattr``, by which code can run."""
    from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

    before = get_safe_globals()
    clear_safe_globals()
    add_safe_globals(globals_)
    try:
        yield
    finally:
        clear_safe_globals()
        add_safe_globals(before)


MAX_STAND_INS = 100  # a file that names more classes than this is no checkpoint


def _read_torch(path: Path) -> Any:
    import torch  # here, so that tools that read no weights start fast

    from core import unpickling

    damaged = f"{path} is truncated or not a checkpoint; copy or download it again"
    admitted: list[Any] = [(value, name) for name, value in unpickling.ARRAYS.items()]
    while True:
        try:
            with _admitting(admitted), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Detected pickle protocol")  # others than 2 are read as well
                warnings.filterwarnings("ignore", message=".*looks like a TorchScript archive")  # refused just below
                return unpickling.resolved(torch.load(path, map_location="cpu", weights_only=True))
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL (\S+)", str(error))
            if found is None:
                raise FileError(damaged) from error
            name = found[1] if "." in found[1] else f"builtins.{found[1]}"
            stand_in = unpickling.stand_in(name)
            if stand_in is None or len(admitted) > MAX_STAND_INS:
                raise FileError(
                    f"{path} holds a pickled object ({found[1]}), which could run code when loaded; "
                    "save only tensors and plain values (state_dict) and pass that file"
                ) from error
            admitted.append((stand_in, name))
        except Exception as error:  # a damaged pickle can raise anything
            if "TorchScript" in str(error):
                raise FileError(f"{path} is a TorchScript program, not weights; save its state_dict") from error
            raise FileError(damaged) from error


def read_arrays(path: Path) -> Any:
    """Read a pickle of arrays and plain containers; raise FileError for any other object, or when it is damaged."""
    from core import unpickling  # here: it imports NumPy

    try:
        with open(path, "rb") as file:
            return unpickling.resolved(unpickling.ArrayUnpickler(file, encoding="latin1").load())
    except pickle.UnpicklingError as error:
        if "." in str(error) and " " not in str(error):
            raise FileError(
                f"{path} holds a pickled object ({error}), which could run code when loaded; only arrays are read from .pkl"
            ) from error
        raise FileError(f"{path} is truncated or not a pickle of arrays; copy or download it again") from error
    except Exception as error:  # a damaged pickle can raise anything
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
