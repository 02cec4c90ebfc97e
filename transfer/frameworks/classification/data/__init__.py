"""Labelled images in a training and a test split.

To add a layout, write ``data/NAME.py`` with a class named like the file (underscores removed) that
extends ``Data`` and has a ``Config``; then name it in a config: ``data: {name: NAME}``.
"""

from abc import ABC
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from core.config import PluginSettings
from core.decoding import SUFFIXES, DamagedImage, decode
from core.errors import InputError
from core.files import datasets_root


class Split:
    """Images by number with their labels; ``identity`` names each image's content (``features`` keys its cache by it)."""

    def __init__(
        self, names: Sequence[str], labels: Sequence[int], read: Callable[[int], Tensor], identity: Sequence[str]
    ) -> None:
        assert len(names) == len(labels) == len(identity), "one name, label and identity an image"
        self.names, self.labels, self.identity = list(names), torch.tensor(labels), list(identity)
        self._read = read

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Tensor:
        """Return one RGB image, uint8 [3, height, width]; raise InputError naming the file when it is damaged."""
        return self._read(index)

    def part(self, rows: Sequence[int]) -> "Split":
        """Return the split of some of its images, in the order of ``rows``."""
        return Split(
            [self.names[row] for row in rows],
            self.labels[list(rows)].tolist(),
            lambda index: self._read(rows[index]),
            [self.identity[row] for row in rows],
        )


class Data(ABC):
    """A data set; making one lists its files, so what is missing is named before anything is trained."""

    Config: ClassVar[type[PluginSettings]]
    classes: tuple[str, ...]
    train: Split
    test: Split


def under_root(path: Path) -> Path:
    """Return a path as it is if absolute, else below ``core.files.datasets_root()``."""
    return path if path.is_absolute() else datasets_root() / path


def image_files(folder: Path) -> list[Path]:
    """List a folder's image files, sorted by name; hidden ones are left out."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted(found)


def split_of_files(root: Path, files: Sequence[tuple[Path, int]]) -> Split:
    """Make a split of (file below ``root``, label) pairs; a file is identified by its name, size and time of change."""
    names, identity = [], []
    for path, _ in files:
        status = path.stat()
        names.append(path.relative_to(root).as_posix())
        identity.append(f"{names[-1]} {status.st_size} {status.st_mtime_ns}")
    paths = [path for path, _ in files]
    return Split(names, [label for _, label in files], lambda index: _read(paths[index]), identity)


def _read(path: Path) -> Tensor:
    try:
        return decode(path.read_bytes(), path)
    except OSError as error:
        raise DamagedImage(f"{path} cannot be read ({error}); copy or download it again") from error


class Missing(InputError):
    """A folder or file of a data set is not there; the message says how to get it."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"no {path}; unpack the data set with tools/prepare_data.py, or say where it is "
            "with data.root (relative to DETECTRON2_DATASETS or ./datasets)"
        )
