"""One folder a class in both splits, ``root/{train,test}/<class>/*``: CIFAR as unpacked here, ImageNet (``val``)."""

from pathlib import Path
from typing import Literal

from core.config import PluginSettings
from core.errors import InputError
from core.provenance import ROOT
from transfer.datasets.class_folders import read_classes
from transfer.frameworks.classification.data import Data, Missing, Split, image_files, split_of_files, under_root


class Folders(Data):
    """A class is a folder's name; both splits must have the same ones."""

    class Config(PluginSettings):
        """``root`` is below the datasets' folder; ``class_list`` is a file with one class folder a line, below it too or
        below the repository's root; without it all are taken."""

        name: Literal["folders"] = "folders"
        root: Path
        train: str = "train"
        test: str = "test"
        class_list: Path | None = None

    def __init__(self, config: "Folders.Config") -> None:
        root = under_root(config.root)
        chosen = None if config.class_list is None else _read_list(config.class_list)
        train, test = (_class_folders(root / split) for split in (config.train, config.test))
        if chosen is None and (other := set(train) ^ set(test)):
            raise InputError(f"{root}: only one of {config.train} and {config.test} has the class {min(other)}")
        self.classes = tuple(sorted(train) if chosen is None else chosen)
        self.train = _split(root / config.train, self.classes)
        self.test = _split(root / config.test, self.classes)


def _class_folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise Missing(folder)
    names = [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if not names:
        raise InputError(f"{folder} holds no class folders; unpack the data set with tools/prepare_data.py")
    return names


def _read_list(path: Path) -> tuple[str, ...]:
    return tuple(read_classes(next((p for p in (under_root(path), ROOT / path) if p.is_file()), path)))


def _split(folder: Path, classes: tuple[str, ...]) -> Split:
    files: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            raise Missing(folder / name)
        found = image_files(folder / name)
        if not found:
            raise InputError(f"{folder / name} holds no images; unpack the data set with tools/prepare_data.py")
        files += [(path, label) for path in found]
    return split_of_files(folder, files)
