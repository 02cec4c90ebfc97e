"""A folder of image files, nested in any way; the ImageNet layout (one folder a class) is one of them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from core.config import PluginSettings
from core.data import Images
from core.decoding import SUFFIXES, DamagedImage, Encoded, decode
from core.errors import InputError


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

    def __init__(self, config: "ImageFolder.Config") -> None:
        self._list(config.root / config.split, None if config.classes is None else _names(config.classes))

    def _list(self, root: Path, classes: Sequence[str] | None = None) -> None:
        if not root.is_dir():
            raise InputError(f"no folder {root}; set data.root to a folder of images")
        folders = [root] if classes is None else [_class_folder(root, name, classes) for name in sorted(classes)]
        self.paths = sorted(path for folder in folders for path in _walk(folder))
        if not self.paths:
            raise InputError(
                f"{root} holds no images ({', '.join(sorted(SUFFIXES))}); set data.root to a folder of images"
            )
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
        path = self.paths[index]
        try:
            with open(path, "rb", buffering=0) as file:
                return Encoded(file.read(), path)
        except OSError as error:
            raise DamagedImage(f"{path} cannot be decoded ({error.strerror}); check the link and its rights") from error

    def label(self, index: int) -> int:
        """Return the number of the image's top folder."""
        return self.labels[index]


def _names(classes: Sequence[str] | Path) -> list[str]:
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


def _walk(root: Path) -> Iterator[Path]:
    """Find image files below ``root``, also behind links; hidden files and folders are left out."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder, n) for n in files if Path(n).suffix.lower() in SUFFIXES and not n.startswith("."))
