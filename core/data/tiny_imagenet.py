"""Tiny-ImageNet-200 in its own layout (Le and Yang, Stanford CS231n, 2015).

``wnids.txt``, ``train/<wnid>/images/*.JPEG``, ``val/images/*.JPEG`` with ``val/val_annotations.txt``, ``test/images/*.JPEG``.
"""

from pathlib import Path
from typing import Literal

from core import bounds
from core.config import PluginSettings
from core.data import Labelled, LabelledSettings
from core.data.imagefolder import ImageFolder, split_of_files
from core.errors import InputError
from core.files import FileError, datasets_root

NEXT = "unpack it again with: python tools/prepare_data.py tiny-imagenet"


class TinyImagenet(ImageFolder):
    """One split; classes are numbered by sorted wnid, the same in ``train`` and ``val``; ``test`` has no labels (-1)."""

    class Config(PluginSettings):
        """``root`` is the folder ``tiny-imagenet-200``."""

        name: Literal["tiny_imagenet"] = "tiny_imagenet"
        root: Path = Path("datasets/tiny-imagenet-200")
        split: Literal["train", "val", "test"] = "train"
        damaged: Literal["skip", "refuse"] = "refuse"

    class Splits(LabelledSettings):
        """200 classes, 64 x 64 pixels; the validation images are the test split, as the test images have no labels."""

        name: Literal["tiny_imagenet"] = "tiny_imagenet"
        root: Path = Path("tiny-imagenet-200")

        def read(self) -> Labelled:
            """List ``train`` and ``val``."""
            root = datasets_root() / self.root
            both = (TinyImagenet(TinyImagenet.Config(root=root, split=split)) for split in ("train", "val"))
            parts = (split_of_files(root, list(zip(one.paths, one.labels, strict=True))) for one in both)
            return Labelled(tuple(_wnids(root)), *parts)

    def __init__(self, config: "TinyImagenet.Config") -> None:
        root = config.root
        wnids = _wnids(root)
        if config.split == "train":
            self._list(root / "train", wnids)
            return
        self._list(root / config.split / "images")
        if config.split == "test":
            self.labels = [-1] * len(self.paths)
            return
        classes = _annotations(root / "val" / "val_annotations.txt", wnids)
        if absent := [path.name for path in self.paths if path.name not in classes]:
            raise InputError(f"{root / 'val/val_annotations.txt'} does not name {absent[0]}; {NEXT}")
        if len(classes) > len(self.paths):
            absent = sorted(set(classes) - {path.name for path in self.paths})
            raise InputError(f"{root / 'val/images' / absent[0]} is missing but val_annotations.txt names it; {NEXT}")
        self.labels = [classes[path.name] for path in self.paths]


def _wnids(root: Path) -> list[str]:
    return sorted(_text(root / "wnids.txt").split())


def _text(path: Path) -> str:
    try:
        return bounds.text(path, "a list of Tiny-ImageNet")
    except FileError as error:
        raise InputError(f"cannot read {path} ({error.__cause__ or error}); {NEXT}") from error


def _annotations(path: Path, wnids: list[str]) -> dict[str, int]:
    """Read lines of file name, wnid and a box; return file name -> class number."""
    numbers = {wnid: number for number, wnid in enumerate(wnids)}
    lines = _text(path).splitlines()
    classes = {}
    for number, line in enumerate(lines, start=1):
        parts = line.split("\t")
        if len(parts) < 2 or parts[1] not in numbers:
            raise InputError(f"line {number} of {path} is {line!r}, not a file name and a wnid of wnids.txt; {NEXT}")
        classes[parts[0]] = numbers[parts[1]]
    return classes
