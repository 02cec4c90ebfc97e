"""CIFAR-10 and CIFAR-100: as class folders of image files, ``root/{train,test}/<class>/*``, or as published.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009. Published are binary files, and Python batches, which
are read without running what they hold. Format (the authors' page, cs.toronto.edu/~kriz/cifar.html): a binary record is one label
byte (CIFAR-100: the coarse, then the fine label) and 3,072 bytes of red, green and blue planes of 32 rows; a Python batch is a
pickled dictionary of ``data`` [images, 3072] and ``labels`` (CIFAR-100: ``fine_labels``). Classes are numbered alphabetically in
both.
"""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.config import PluginSettings
from core.data import Labelled, LabelledSettings, Split
from core.data.imagefolder import ImageFolder
from core.decoding import Encoded
from core.errors import InputError
from core.files import FileError, datasets_root, sha256
from core.weights_file import read_arrays

SIDE = 32
PIXELS = 3 * SIDE * SIDE
AGAIN = "remove the folder and make it again with tools/prepare_data.py"


class Form(NamedTuple):
    """One of the published forms: its folder, files and records by split, label bytes a record (0: Python batches), classes."""

    folder: str
    files: dict[str, list[str]]
    records: dict[str, int]
    label_bytes: int
    classes: int


CIFAR10, CIFAR100 = {"train": 50_000, "test": 10_000}, {"train": 50_000, "test": 10_000}
FORMS = [
    Form(
        "cifar-10-batches-bin",
        {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]},
        CIFAR10, 1, 10,
    ),
    Form("cifar-100-binary", {"train": ["train.bin"], "test": ["test.bin"]}, CIFAR100, 2, 100),
    Form(
        "cifar-10-batches-py",
        {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]},
        CIFAR10, 0, 10,
    ),
    Form("cifar-100-python", {"train": ["train"], "test": ["test"]}, CIFAR100, 0, 100),
]  # fmt: skip


class Records(NamedTuple):
    """Images uint8 [count, 3, 32, 32], one array a file, and all labels."""

    parts: list[NDArray[np.uint8]]
    labels: NDArray[np.int64]


def find(root: Path, split: str) -> tuple[Form, list[Path]] | None:
    """Return a split's form and files in ``root`` or the published folder in it, binary first; None when there are none."""
    for form in FORMS:
        for folder in (root / form.folder, root):
            paths = [folder / name for name in form.files[split]]
            if not any(path.is_file() for path in paths):
                continue
            if missing := [path for path in paths if not path.is_file()]:
                raise InputError(f"{missing[0]} is missing beside the other batches; {AGAIN}")
            return form, paths
    return None


def read(root: Path, split: str) -> Records | None:
    """Read a split's published files; None when there are none."""
    found = find(root, split)
    return None if found is None else _read(found[1], found[0])


def check(root: Path) -> Form | None:
    """Check that both splits have their published size and equally many images a class; None when there are no such files."""
    places = {split: find(root, split) for split in ("train", "test")}
    for split, found in places.items():
        if found is None:
            continue
        form, paths = found
        counts = np.bincount(_read(paths, form).labels, minlength=form.classes)
        if (total := int(counts.sum())) != form.records[split]:
            raise InputError(f"{paths[0].parent} has {total} images in '{split}', not {form.records[split]}; {AGAIN}")
        if counts.min() != counts.max():
            told = f"classes of '{split}' have {counts.min()} to {counts.max()} images"
            raise InputError(f"{paths[0].parent}: {told}; {AGAIN}")
    if None in places.values() and any(places.values()):
        raise InputError(f"{root} has CIFAR's files of one split only; {AGAIN}")
    return None if places["train"] is None else places["train"][0]


def _read(paths: list[Path], form: Form) -> Records:
    read_file = _binary if form.label_bytes else _python
    images, labels = zip(*(read_file(path, form) for path in paths), strict=True)
    for path, numbers in zip(paths, labels, strict=True):
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < form.classes:
            raise InputError(f"{path} holds a label outside 0 to {form.classes - 1}; it is damaged; {AGAIN}")
    return Records(list(images), np.concatenate(labels))


def _binary(path: Path, form: Form) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    length, size = form.label_bytes + PIXELS, path.stat().st_size
    if size == 0 or size % length:
        raise InputError(f"{path} has {size} bytes, no multiple of {length}; it is truncated; {AGAIN}")
    records = np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, length)  # shared by all workers
    labels = np.asarray(records[:, form.label_bytes - 1], dtype=np.int64)
    return records[:, form.label_bytes :].reshape(-1, 3, SIDE, SIDE), labels


def _python(path: Path, form: Form) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        batch = read_arrays(path)
    except FileError as error:
        raise InputError(f"{error}; or use the binary version of CIFAR") from error
    data = batch.get("data") if isinstance(batch, dict) else None
    labels = batch.get("labels" if form.classes == 10 else "fine_labels") if isinstance(batch, dict) else None
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != PIXELS:
        raise InputError(f"{path} has no 'data' of {PIXELS} bytes an image; use the binary version of CIFAR")
    if not isinstance(labels, list) or len(labels) != len(data) or not all(isinstance(n, int) for n in labels):
        raise InputError(f"{path} has not one label an image; use the binary version of CIFAR")
    return data.reshape(-1, 3, SIDE, SIDE), np.array(labels, dtype=np.int64)


class Cifar(ImageFolder):
    """One split of CIFAR; ``tools/prepare_data.py cifar10`` makes the folder."""

    class Config(PluginSettings):
        """``root`` holds the folders ``train`` and ``test``, or the published binary files or Python batches."""

        name: Literal["cifar"] = "cifar"
        root: Path = Path("datasets/cifar10")
        split: Literal["train", "test"] = "train"
        damaged: Literal["skip", "refuse"] = "refuse"

    class Splits(LabelledSettings):
        """Class folders, or the published files, which must be whole; ``tools/prepare_data.py cifar10`` makes ``root``."""

        name: Literal["cifar"] = "cifar"
        root: Path

        def read(self) -> Labelled:
            """List both splits of the form that is there."""
            root = datasets_root() / self.root
            if (root / "train").is_dir() or (form := check(root)) is None:
                return ImageFolder.Splits(root=self.root).read()  # below the data sets again
            return Labelled(tuple(map(str, range(form.classes))), self._split(root, "train"), self._split(root, "test"))

        def _split(self, root: Path, split: str) -> Split:
            images = Cifar(Cifar.Config(root=root, split=split))
            found = find(root, split)
            assert found is not None, "checked before"
            digest = " ".join(map(sha256, found[1]))
            rows = range(len(images))
            names, identity = [f"{split}/{row:05d}" for row in rows], [f"{digest} {row}" for row in rows]
            return Split(names, images.labels, images.image, identity)

    def __init__(self, config: "Cifar.Config") -> None:
        folder = config.root / config.split
        self._records = None if folder.is_dir() else read(config.root, config.split)
        if self._records is not None:
            self._starts = torch.tensor([len(part) for part in self._records.parts]).cumsum(0)
            self.labels = self._records.labels.tolist()
            return
        if not folder.is_dir():
            raise InputError(f"no folder {folder}; unpack CIFAR with tools/prepare_data.py, or set data.root")
        self._list(folder)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Tensor:
        """Return one image, uint8 [3, 32, 32] where it comes from the published files."""
        if self._records is None:
            return super().image(index)
        part = int(torch.searchsorted(self._starts, index, right=True))
        before = int(self._starts[part - 1]) if part else 0
        return torch.from_numpy(self._records.parts[part][index - before].copy())

    def encoded(self, index: int) -> Encoded | None:
        """Read one file where there are files."""
        return super().encoded(index) if self._records is None else None
