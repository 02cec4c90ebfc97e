"""CIFAR as its authors publish it: the binary files, and the Python batches read without running what they hold.

Format (the authors' page, cs.toronto.edu/~kriz/cifar.html): a binary record is one label byte (CIFAR-100: the coarse, then the
fine label) and 3,072 bytes of red, green and blue planes of 32 rows; a Python batch is a pickled dictionary of ``data``
[images, 3072] and ``labels`` (CIFAR-100: ``fine_labels``). Classes are numbered alphabetically in both.
"""

import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.errors import InputError

SIDE = 32
PIXELS = 3 * SIDE * SIDE


class Form(NamedTuple):
    """One of the published forms: its folder, its files by split, label bytes a record (0: Python batches), classes."""

    folder: str
    files: dict[str, list[str]]
    label_bytes: int
    classes: int


FORMS = (
    Form(
        "cifar-10-batches-bin",
        {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]},
        1,
        10,
    ),
    Form("cifar-100-binary", {"train": ["train.bin"], "test": ["test.bin"]}, 2, 100),
    Form("cifar-10-batches-py", {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]}, 0, 10),
    Form("cifar-100-python", {"train": ["train"], "test": ["test"]}, 0, 100),
)


class Records(NamedTuple):
    """Images uint8 [count, 3, 32, 32], one array a file, and all labels; ``files`` names the array's file."""

    parts: list[NDArray[np.uint8]]
    labels: NDArray[np.int64]


def read(root: Path, split: str) -> Records | None:
    """Read a split from ``root`` or from the published folder inside it, binary files first; None when there is none."""
    for form in FORMS:
        for folder in (root / form.folder, root):
            paths = [folder / name for name in form.files[split]]
            if not any(path.is_file() for path in paths):
                continue
            if missing := [path for path in paths if not path.is_file()]:
                raise InputError(f"{missing[0]} is missing beside the other batches; unpack CIFAR again")
            return _read(paths, form)
    return None


def _read(paths: list[Path], form: Form) -> Records:
    read_file = _binary if form.label_bytes else _python
    images, labels = zip(*(read_file(path, form) for path in paths), strict=True)
    for path, numbers in zip(paths, labels, strict=True):
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < form.classes:
            raise InputError(f"{path} holds a label outside 0 to {form.classes - 1}; it is damaged, unpack CIFAR again")
    return Records(list(images), np.concatenate(labels))


def _binary(path: Path, form: Form) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    length, size = form.label_bytes + PIXELS, path.stat().st_size
    if size == 0 or size % length:
        raise InputError(f"{path} has {size} bytes, no multiple of {length}; it is truncated, unpack CIFAR again")
    records = np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, length)  # shared by all workers
    labels = np.asarray(records[:, form.label_bytes - 1], dtype=np.int64)
    return records[:, form.label_bytes :].reshape(-1, 3, SIDE, SIDE), labels


class _Unpickler(pickle.Unpickler):
    """Admit what makes a NumPy array, and nothing that could run code."""

    ADMITTED = frozenset(
        {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
        | {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ADMITTED:
            raise InputError(f"a pickled object ({module}.{name}), which could run code when loaded")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _python(path: Path, form: Form) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        with open(path, "rb") as file:
            batch = _Unpickler(file, encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{path} holds {error}; use the binary version of CIFAR") from error
    except (pickle.UnpicklingError, EOFError, AttributeError, LookupError, ValueError, TypeError, ImportError) as error:
        raise InputError(f"{path} is truncated or no CIFAR batch; use the binary version of CIFAR") from error
    data = batch.get("data") if isinstance(batch, dict) else None
    labels = batch.get("labels" if form.classes == 10 else "fine_labels") if isinstance(batch, dict) else None
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != PIXELS:
        raise InputError(f"{path} has no 'data' of {PIXELS} bytes an image; use the binary version of CIFAR")
    if not isinstance(labels, list) or len(labels) != len(data) or not all(isinstance(n, int) for n in labels):
        raise InputError(f"{path} has not one label an image; use the binary version of CIFAR")
    return data.reshape(-1, 3, SIDE, SIDE), np.array(labels, dtype=np.int64)
