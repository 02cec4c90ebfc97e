"""Tiny-ImageNet-200 in its own layout (Le and Yang, Stanford CS231n, 2015).

``wnids.txt``, ``train/<wnid>/images/*.JPEG``, ``val/images/*.JPEG`` with ``val/val_annotations.txt``, ``test/images/*.JPEG``.
"""

from pathlib import Path
from typing import Literal

from core.config import PluginSettings
from core.data.imagefolder import ImageFolder
from core.errors import InputError

NEXT = "unpack it again with: python tools/prepare_data.py tiny-imagenet"


class TinyImagenet(ImageFolder):
    """One split; classes are numbered by sorted wnid, the same in ``train`` and ``val``; ``test`` has no labels (-1)."""

    class Config(PluginSettings):
        """``root`` is the folder ``tiny-imagenet-200``."""

        name: Literal["tiny_imagenet"] = "tiny_imagenet"
        root: Path = Path("datasets/tiny-imagenet-200")
        split: Literal["train", "val", "test"] = "train"
        damaged: Literal["skip", "refuse"] = "refuse"

    def __init__(self, config: "TinyImagenet.Config") -> None:
        root = config.root
        try:
            wnids = sorted((root / "wnids.txt").read_text().split())
        except OSError as error:
            raise InputError(f"cannot read {root / 'wnids.txt'} ({error.strerror}); {NEXT}") from error
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


def _annotations(path: Path, wnids: list[str]) -> dict[str, int]:
    """Read lines of file name, wnid and a box; return file name -> class number."""
    numbers = {wnid: number for number, wnid in enumerate(wnids)}
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); {NEXT}") from error
    classes = {}
    for number, line in enumerate(lines, start=1):
        parts = line.split("\t")
        if len(parts) < 2 or parts[1] not in numbers:
            raise InputError(f"line {number} of {path} is {line!r}, not a file name and a wnid of wnids.txt; {NEXT}")
        classes[parts[0]] = numbers[parts[1]]
    return classes
