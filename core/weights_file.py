"""Read weights files without running anything in them; a file's form is told by its first bytes, not by its name."""

import contextlib
import gc
import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from core import bounds, remote
from core.files import FileError, sha256

MAX_STAND_INS = 100  # a file that names more classes than this is no checkpoint
LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save's magic number before PyTorch 1.6 (torch/serialization.py)
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.(safetensors|bin)$")  # of transformers and huggingface_hub
UNPACK = "is an archive; unpack it and give the checkpoint inside"

# how a file begins that is no checkpoint -> what it is, with the next step
OTHERS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "is a Git LFS pointer, not the weights; fetch them with `git lfs pull` in its repository",
    ),
    (b"<", "is a web page, not weights; download the file itself (on Hugging Face /resolve/, not /blob/)"),
    (b"\x1f\x8b", UNPACK),
    (b"BZh", UNPACK),
    (b"\xfd7zXZ", UNPACK),
    (b"7z\xbc\xaf", UNPACK),
    (b"Rar!", UNPACK),
    (b"\x28\xb5\x2f\xfd", UNPACK),
    (b"\x89HDF", "is an HDF5 file of Keras; its networks are not carried: give a PyTorch checkpoint"),
)


def read_weights_file(path: Path | str, *, own: bool = False) -> dict[str, Any]:
    """Read a checkpoint on the CPU without executing anything in it.

    safetensors; pickles of arrays; whatever ``torch.save`` wrote, in which settings objects become empty stand-ins; the index of
    a sharded file, or a Hugging Face folder. A safetensors file's metadata gives ``recipe``, the tensors ``state_dict``. ``own``
    is a file that this process wrote and whose every tensor is compared afterwards: its checksums are left out. Raises FileError
    when the file is missing, truncated, damaged, something else, holds other pickled objects, or is not a mapping.
    """
    path = whole(path)
    reader = _reader(path)
    collecting = gc.isenabled()
    gc.disable()  # reading makes many objects and no cycles; a collection would go through all that was ever imported
    try:
        value = (UNCHECKED.get(reader, reader) if own else reader)(path)
    finally:
        if collecting:
            gc.enable()
    if not isinstance(value, dict):
        raise FileError(f"{path} holds a {type(value).__name__}, not a mapping of names to tensors; save a state_dict")
    seal = value.pop(SEAL, None)
    if seal is not None and not own and not _fits(value.get("model", value.get("state_dict")), seal):
        raise FileError(f"{path} is damaged: its tensors' checksum does not fit; copy or convert it again")
    return value


def whole(path: Path | str) -> Path:
    """Return the file to read: the path itself, or what a Hugging Face folder holds; raise FileError for others."""
    path = Path(path)
    if path.is_dir():
        found = remote.local(path)
        if found == path and (path / ".metadata").exists():
            raise FileError(
                f"{path} is a distributed checkpoint; join its parts with "
                f"`python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} whole.pth`"
            )
        if found == path:
            raise FileError(f"{path} is a folder; give a checkpoint in it")
        return found
    if not path.is_file():
        raise FileError(f"no checkpoint at {path}; check the path")
    return path


def shards(index: Path) -> list[Path]:
    """Return the files that the index of a sharded checkpoint names; raise FileError when one is missing."""
    try:
        files = sorted(set(bounds.json_value(index, "an index", bounds.TEXT)["weight_map"].values()))
        if any("/" in name or "\\" in name for name in files):
            raise ValueError("a shard elsewhere")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{index} is no index of a sharded checkpoint; give the checkpoint itself") from error
    if missing := [name for name in files if not (index.parent / name).is_file()]:
        raise FileError(f"{index} names {len(files)} shards, of which {missing[0]} is not there; download all of them")
    return [index.parent / name for name in files]


SEAL = "tensors_sha256"  # entry of our files in forms that have no checksum of their own


def tensors_sha256(tensors: Mapping[str, Any]) -> str:
    """Return the sha256 of names, shapes and fp32 values in the order of names; it does not depend on the file's form."""
    import numpy as np

    found = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        array = value if isinstance(value, np.ndarray) else value.detach().cpu().float().numpy()
        found.update(f"{name}{tuple(array.shape)}".encode())
        found.update(np.asarray(array, np.float32, order="C").data)
    return found.hexdigest()


def _fits(tensors: Any, seal: Any) -> bool:
    try:
        return tensors_sha256(tensors) == seal
    except Exception:  # what a damaged file holds instead of tensors can raise anything
        return False


def digest(path: Path | str) -> str:
    """Return the sha256 of a checkpoint; of a sharded one, that of its index and its shards' digests."""
    path = whole(path)
    if not path.name.endswith(".index.json"):
        return sha256(path)
    return hashlib.sha256("".join(map(sha256, [path, *shards(path)])).encode()).hexdigest()


def _reader(path: Path) -> Callable[[Path], Any]:
    with open(path, "rb") as file:
        head = file.read(512)
    if SHARD.search(path.name):
        raise FileError(f"{path} is one shard of a checkpoint; give the index beside it (*.index.json), or the folder")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return _read_safetensors
    for start, reason in OTHERS:
        if head.lstrip()[: len(start)] == start:
            raise FileError(f"{path} {reason}")
    if head[257:262] == b"ustar":
        raise FileError(f"{path} {UNPACK}")
    if path.suffix == ".onnx" or (head[:1] == b"\x08" and b"pytorch" in head[:64]):
        raise FileError(f"{path} is an ONNX graph, not named weights; give the checkpoint that it was exported from")
    if head.lstrip()[:1] == b"{":
        return _read_index
    if head[:4] == b"PK\x03\x04":
        return _read_zip
    if LEGACY in head[:32]:
        return _read_torch
    if path.suffix == ".safetensors":
        return _read_safetensors
    return read_arrays if path.suffix in (".pkl", ".pickle") else _read_torch


def _read_zip(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        names = ["data.pkl"]  # a damaged one, of which torch says more
    if not any(name.endswith("data.pkl") for name in names):
        raise FileError(f"{path} {UNPACK}")
    if not any(name.endswith("constants.pkl") for name in names):  # a program, which torch refuses by name
        bounds.check_zip(path)
    return _read_torch(path)


def _read_index(path: Path) -> Any:
    tensors: dict[str, Any] = {}
    for file in shards(path):
        tensors |= (_read_safetensors if file.suffix == ".safetensors" else _read_torch)(file)
    return tensors


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
            metadata = file.metadata() or {}
        if "recipe" in metadata:
            seal = {SEAL: metadata[SEAL]} if SEAL in metadata else {}
            return {"state_dict": tensors, "recipe": bounds.loads(metadata["recipe"])} | seal
        return tensors
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(f"{path} is truncated or not a safetensors file; copy or download it again") from error


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


def _read_torch(path: Path) -> Any:
    import torch  # here, so that tools that read no weights start fast

    from core import unpickling

    damaged = f"{path} is truncated or not a checkpoint; copy or download it again"
    admitted: list[Any] = [(value, name) for name, value in unpickling.ARRAYS.items()]
    options: dict[str, Any] = {}
    bounds.check_pickles(path)
    while True:
        try:
            with _admitting(admitted), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Detected pickle protocol")  # others than 2 are read as well
                warnings.filterwarnings("ignore", message=".*looks like a TorchScript archive")  # refused just below
                warnings.filterwarnings("ignore", message="Validating sparse tensor")  # which ours refuses by name
                warnings.filterwarnings("ignore", message="pickle_load_args only works")  # they do work
                value = unpickling.resolved(torch.load(path, map_location="cpu", weights_only=True, **options))
            bounds.check_tensors(value, path)
            return value
        except FileError:
            raise
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL (\S+)|(DTensor)", str(error))
            if found is None:
                named = ", ".join(name for _, name in admitted[len(unpickling.ARRAYS) :])
                into = named and re.search("Can only|unrecognized", str(error))  # what is done to a stand-in
                raise FileError(f"{path} {_refused(named)}" if into else damaged) from error
            if found[2]:
                raise FileError(f"{path} {_refused(found[2])}") from error
            name = found[1] if "." in found[1] else f"builtins.{found[1]}"
            stand_in = unpickling.stand_in(name)
            if stand_in is None or len(admitted) > MAX_STAND_INS:
                raise FileError(f"{path} {_refused(found[1])}") from error
            admitted.append((stand_in, name))
        except UnicodeDecodeError as error:  # written by Python 2, whose text is bytes
            if options:
                raise FileError(damaged) from error
            options = {"encoding": "latin1"}
        except Exception as error:  # a damaged pickle can raise anything
            if "TorchScript" in str(error):
                raise FileError(f"{path} is a TorchScript program, not weights; save its state_dict") from error
            raise FileError(damaged) from error


def _refused(name: str) -> str:
    if "DTensor" in name or "ShardedTensor" in name:
        return (
            "holds tensors that are spread over processes (DTensor); save them whole, with "
            "torch.distributed.checkpoint.state_dict's get_model_state_dict and full_state_dict=True"
        )
    return (
        f"holds a pickled object ({name}), which could run code when loaded; "
        "save only tensors and plain values (state_dict) and pass that file"
    )


def read_arrays(path: Path) -> Any:
    """Read a pickle of arrays and plain containers; raise FileError for any other object, or when it is damaged."""
    bounds.check_pickles(path)
    return _read_pickle(path)


def _read_pickle(path: Path) -> Any:
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


UNCHECKED: dict[Callable[[Path], Any], Callable[[Path], Any]] = {_read_zip: _read_torch, read_arrays: _read_pickle}
