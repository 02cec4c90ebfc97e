"""A folder of image files, nested in any way; the ImageNet layout (one folder a class) is one of them."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from core.config import PluginSettings
from core.data import Images, Labelled, LabelledSettings, Split
from core.decoding import SUFFIXES, DamagedImage, Encoded, decode
from core.errors import InputError
from core.files import datasets_root
from core.provenance import ROOT

MAKE = (
    "unpack the data set with tools/prepare_data.py, or say where it is with data.root (relative to DETECTRON2_DATASETS "
    "or ./datasets)"
)


class ImageFolder(Images):
    """All images below ``root/split``, sorted by path; the first folder below is the class."""

    class Config(PluginSettings):
        """``split`` is a folder below ``root``, as ``train`` or ``val``. ``classes`` keeps these class folders only: a list,
        or a text file of one name a line (``#`` begins a comment); ImageNet-100 is such a list over ImageNet's folders.

        ``damaged`` says what happens at a file that cannot be decoded: use the next image, or stop.
        """

        name: Literal["imagefolder"] = "imagefolder"
        root: Path
        split: str = ""
        classes: tuple[str, ...] | Path | None = None
        damaged: Literal["skip", "refuse"] = "skip"

    class Splits(LabelledSettings):
        """Both splits hold a folder a class, ``root/{train,test}/<class>/*``: ImageNet (``val``), CIFAR as unpacked here.

        ``class_list`` is a file with one class folder a line, below the data sets' folder or the repository's root; its order
        numbers the classes. Without it all are taken, in sorted order.
        """

        name: Literal["folders", "imagefolder"] = "folders"
        root: Path
        train: str = "train"
        test: str = "test"
        class_list: Path | None = None

        def read(self) -> Labelled:
            """List both splits, class by class."""
            root = datasets_root() / self.root
            if self.class_list is None:
                train, test = (_class_folders(root / split) for split in (self.train, self.test))
                if other := set(train) ^ set(test):
                    raise InputError(f"{root}: only one of {self.train} and {self.test} has the class {min(other)}")
                classes = sorted(train)
            else:
                places = (datasets_root() / self.class_list, ROOT / self.class_list)
                classes = class_names(next((path for path in places if path.is_file()), self.class_list))
            train_split, test_split = (_split(root / split, classes) for split in (self.train, self.test))
            return Labelled(tuple(classes), train_split, test_split)

    def __init__(self, config: "ImageFolder.Config") -> None:
        self._list(config.root / config.split, None if config.classes is None else class_names(config.classes))

    def _list(self, root: Path, classes: Sequence[str] | None = None) -> None:
        if not root.is_dir():
            raise InputError(f"no folder {root}; set data.root to a folder of images")
        folders = [root] if classes is None else [_class_folder(root, name, classes) for name in sorted(classes)]
        others: Counter[str] = Counter()
        self.paths = sorted(path for folder in folders for path in _walk(folder, others))
        told = ", ".join(f"{count} {suffix or 'without ending'}" for suffix, count in others.most_common())
        if not self.paths:
            raise InputError(
                f"{root} holds no images ({', '.join(sorted(SUFFIXES))}){f' but {told}' if told else ''}; "
                "set data.root to a folder of images"
            )
        self.left_out = f"{root}: {others.total()} files are no images here and left out ({told})" if told else ""
        groups = [path.relative_to(root).parts[0] if path.parent != root else "" for path in self.paths]
        if classes is not None and (empty := sorted(set(classes) - set(groups))):
            raise InputError(f"{root / empty[0]} holds no images; copy the class again or take it out of data.classes")
        numbers = {group: number for number, group in enumerate(sorted(set(groups)))}
        self.labels = [numbers[group] for group in groups]

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Tensor:
        """Read and decode one file."""
        return decode(*self._file(index))

    def encoded(self, index: int) -> Encoded | None:
        """Read one file."""
        return self._file(index)

    def _file(self, index: int) -> Encoded:
        return _read(self.paths[index])

    def label(self, index: int) -> int:
        """Return the number of the image's top folder."""
        return self.labels[index]


def _read(path: Path) -> Encoded:
    try:
        with open(path, "rb", buffering=0) as file:
            return Encoded(file.read(), path)
    except OSError as error:
        raise DamagedImage(f"{path} cannot be decoded ({error.strerror}); check the link and its rights") from error


def split_of_files(root: Path, files: Sequence[tuple[Path, Any]]) -> Split:
    """Make a split of (file below ``root``, label) pairs; a file is identified by its name, size and time of change."""
    names, identity = [], []
    for path, _ in files:
        status = path.stat()
        names.append(path.relative_to(root).as_posix())
        identity.append(f"{names[-1]} {status.st_size} {status.st_mtime_ns}")
    paths = [path for path, _ in files]
    return Split(names, [label for _, label in files], lambda index: decode(*_read(paths[index])), identity)


def _split(folder: Path, classes: Sequence[str]) -> Split:
    files: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            raise InputError(f"no {folder / name}; {MAKE}")
        found = sorted(_walk(folder / name))
        if not found:
            raise InputError(f"{folder / name} holds no images; {MAKE}")
        files += [(path, label) for path in found]
    return split_of_files(folder, files)


def _class_folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise InputError(f"no {folder}; {MAKE}")
    names = [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if not names:
        raise InputError(f"{folder} holds no class folders; {MAKE}")
    return names


def class_names(classes: Sequence[str] | Path) -> list[str]:
    """Return the class names of a list or of a file; raise InputError for none, a repeated one, or one that is a path."""
    if isinstance(classes, Path):
        try:
            lines = classes.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"cannot read data.classes={classes} ({error}); give a text file of class names"
            ) from error
        source, names = str(classes), [name for line in lines if (name := line.partition("#")[0].strip())]
    else:
        source, names = "data.classes", list(classes)
    if not names:
        raise InputError(f"{source} names no class; write one folder name a line")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{source} names {repeated[0]!r} twice; remove one")
    if paths := [name for name in names if name in (".", "..") or Path(name).name != name]:
        raise InputError(f"{source} holds {paths[0]!r}, which is no folder name; write one folder name a line")
    return names


def _class_folder(root: Path, name: str, classes: Sequence[str]) -> Path:
    if not (root / name).is_dir():
        missing = [other for other in classes if not (root / other).is_dir()]
        raise InputError(
            f"{root} lacks {len(missing)} of the {len(classes)} classes in data.classes, first {missing[0]}; "
            "copy them there or take them out of the list"
        )
    return root / name


def _walk(root: Path, others: Counter[str] | None = None) -> Iterator[Path]:
    """Find image files below ``root``, also behind links, and count the other files by suffix; hidden ones are left out."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = [Path(folder, name) for name in files if not name.startswith(".")]
        yield from (path for path in shown if path.suffix.lower() in SUFFIXES)
        if others is not None:
            others.update(path.suffix.lower() for path in shown if path.suffix.lower() not in SUFFIXES)
