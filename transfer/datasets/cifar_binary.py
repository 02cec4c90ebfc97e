"""CIFAR-10 and CIFAR-100 in the authors' binary files (cs.toronto.edu/~kriz/cifar.html), as core.data.cifar reads them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.errors import InputError
from transfer.datasets import Counts

PIXELS = 3 * 32 * 32  # bytes of one image


class Form(NamedTuple):
    """The files of each split, label bytes of a record (the last one counts), classes, and records of each file."""

    files: dict[str, list[str]]
    label_bytes: int
    classes: int
    records: dict[str, int]


FORMS = {
    "cifar-10-batches-bin": Form(
        {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]},
        1,
        10,
        {"train": 10_000, "test": 10_000},
    ),
    "cifar-100-binary": Form({"train": ["train.bin"], "test": ["test.bin"]}, 2, 100, {"train": 50_000, "test": 10_000}),
}


def find(folder: Path) -> Path | None:
    """Return the published folder inside ``folder``, if there is one."""
    return next((folder / name for name in FORMS if (folder / name).is_dir()), None)


def check(folder: Path) -> Counts:
    """Check the bytes and labels of all files below ``folder``; every class has equally many images."""
    place = find(folder)
    if place is None:
        raise InputError(
            f"no folder {' or '.join(FORMS)} in {folder}; fetch it with: python tools/prepare_data.py cifar10 ROOT"
        )
    form = FORMS[place.name]
    counts: Counts = {}
    for split, names in form.files.items():
        found = np.zeros(form.classes, dtype=np.int64)
        for name in names:
            found += _labels(place / name, form, form.records[split])
        if found.min() != found.max():
            raise InputError(
                f"{place}: classes of '{split}' have {found.min()} to {found.max()} images; {_again(place)}"
            )
        counts[split] = {"images": int(found.sum()), "classes": form.classes}
    return counts


def _labels(path: Path, form: Form, records: int) -> np.ndarray:
    """Return how many records each class has."""
    length = form.label_bytes + PIXELS
    if not path.is_file():
        raise InputError(f"{path} is missing; {_again(path.parent)}")
    if path.stat().st_size != length * records:
        raise InputError(f"{path} has {path.stat().st_size} bytes, not {length * records}; {_again(path.parent)}")
    labels = np.fromfile(path, dtype=np.uint8).reshape(records, length)[:, form.label_bytes - 1]
    if labels.max() >= form.classes:
        raise InputError(
            f"{path} holds the label {labels.max()}, there are {form.classes} classes; {_again(path.parent)}"
        )
    return np.bincount(labels, minlength=form.classes)


def _again(folder: Path) -> str:
    return f"remove {folder.parent} and make it again with tools/prepare_data.py"
