"""A folder of image files, nested in any way; the ImageNet layout (one folder a class) is one of them."""

import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, overload

from torch import Tensor

from core import bounds
from core.config import PluginSettings
from core.data import Images, Labelled, LabelledSettings, Split
from core.decoding import SUFFIXES, DamagedImage, Encoded, decode
from core.errors import InputError
from core.files import FileError, datasets_root
from core.provenance import ROOT

MAKE = (
    "unpack the data set with tools/prepare_data.py, or say where it is with data.root (relative to DETECTRON2_DATASETS "
    "or ./datasets)"
)


class Files(Sequence[Path]):
    """Files below a folder, given by their names there: one block of bytes, for a million paths would take half a gigabyte."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self.root = root
        self._names = b"".join(encoded)
        self._ends = array("I" if len(self._names) < 2**32 else "Q", accumulate(map(len, encoded)))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...
    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        start = self._ends[number - 1] if number else 0
        return self.root / os.fsdecode(self._names[start : self._ends[number]])


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
        names = sorted(_names(root, folders, others), key=_parts)
        told = ", ".join(f"{count} {suffix or 'without ending'}" for suffix, count in others.most_common())
        if not names:
            raise InputError(
                f"{root} holds no images ({', '.join(sorted(SUFFIXES))}){f' but {told}' if told else ''}; "
                "set data.root to a folder of images"
            )
        self.left_out = f"{root}: {others.total()} files are no images here and left out ({told})" if told else ""
        groups = [name.partition(os.sep)[0] if os.sep in name else "" for name in names]
        if classes is not None and (empty := sorted(set(classes) - set(groups))):
            raise InputError(f"{root / empty[0]} holds no images; copy the class again or take it out of data.classes")
        numbers = {group: number for number, group in enumerate(sorted(set(groups)))}
        self.paths: Sequence[Path] = Files(root, names)
        self.labels: Sequence[int] = array("i", [numbers[group] for group in groups])

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
        found = sorted(map(Path, _walk(folder / name)))
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
            lines = bounds.text(classes, "class names").splitlines()
        except FileError as error:
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


def _names(root: Path, folders: Sequence[Path], others: Counter[str]) -> Iterator[str]:
    start = len(os.path.join(root, ""))
    for folder in folders:
        for path in _walk(folder, others):
            yield path[start:]


def _parts(path: str) -> str:
    """Return a key by which texts sort as paths do: folder by folder."""
    return path.replace(os.sep, "\0")


def _walk(root: Path, others: Counter[str] | None = None) -> Iterator[str]:
    """Find image files below ``root``, also behind links, and count the other files by suffix; hidden ones are left out."""
    seen = set()
    for folder, folders, files in os.walk(os.path.join(root, ""), followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith("."):
                continue
            suffix = os.path.splitext(name)[1].lower()
            if suffix in SUFFIXES:
                yield os.path.join(folder, name)
            elif others is not None:
                others[suffix] += 1
