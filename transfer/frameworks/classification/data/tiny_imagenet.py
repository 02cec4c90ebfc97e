"""Tiny-ImageNet as published: ``train/<wnid>/images/*``, ``val/images/*`` with ``val/val_annotations.txt``, ``wnids.txt``."""

from pathlib import Path
from typing import Literal

from core.config import PluginSettings
from core.errors import InputError
from transfer.frameworks.classification.data import Data, Missing, Split, image_files, split_of_files, under_root


class TinyImagenet(Data):
    """200 classes, 64 x 64 pixels; the validation images are the test split, as the test images have no labels."""

    class Config(PluginSettings):
        """``root`` is below the datasets' folder."""

        name: Literal["tiny_imagenet"] = "tiny_imagenet"
        root: Path = Path("tiny-imagenet-200")

    def __init__(self, config: "TinyImagenet.Config") -> None:
        root = under_root(config.root)
        self.classes = tuple(sorted(_lines(root / "wnids.txt")))
        number = {wnid: label for label, wnid in enumerate(self.classes)}
        files: list[tuple[Path, int]] = []
        for wnid in self.classes:
            folder = root / "train" / wnid / "images"
            if not folder.is_dir():
                raise Missing(folder)
            files += [(path, number[wnid]) for path in image_files(folder)]
        self.train = split_of_files(root, files)
        self.test = _test(root, number)


def _test(root: Path, number: dict[str, int]) -> Split:
    files: list[tuple[Path, int]] = []
    for line in _lines(root / "val" / "val_annotations.txt"):
        name, wnid, *_ = (*line.split("\t"), "")
        path = root / "val" / "images" / name
        if wnid not in number:
            raise InputError(f"{root / 'val' / 'val_annotations.txt'}: {line!r} names no class of wnids.txt")
        if not path.is_file():
            raise Missing(path)
        files.append((path, number[wnid]))
    return split_of_files(root, files)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise Missing(path)
    return [line for line in path.read_text().splitlines() if line.strip()]
