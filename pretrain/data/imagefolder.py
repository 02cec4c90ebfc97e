"""A folder of image files, nested in any way; the ImageNet layout (one folder a class) is one of them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from torch import Tensor

from core.config import PluginSettings
from core.errors import InputError
from pretrain.data import SUFFIXES, DamagedImage, Images, decode


class ImageFolder(Images):
    """All images below ``root``, sorted by path; the first folder below ``root`` is the class."""

    class Config(PluginSettings):
        """``damaged`` says what happens at a file that cannot be decoded: use the next image, or stop."""

        name: Literal["imagefolder"] = "imagefolder"
        root: Path
        damaged: Literal["skip", "refuse"] = "skip"

    def __init__(self, config: "ImageFolder.Config") -> None:
        self._list(config.root)

    def _list(self, root: Path) -> None:
        if not root.is_dir():
            raise InputError(f"no folder {root}; set data.root to a folder of images")
        self.paths = sorted(_walk(root))
        if not self.paths:
            raise InputError(
                f"{root} holds no images ({', '.join(sorted(SUFFIXES))}); set data.root to a folder of images"
            )
        groups = [path.relative_to(root).parts[0] if path.parent != root else "" for path in self.paths]
        numbers = {group: number for number, group in enumerate(sorted(set(groups)))}
        self.labels = [numbers[group] for group in groups]

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Tensor:
        """Read and decode one file."""
        path = self.paths[index]
        try:
            return decode(path.read_bytes(), path)
        except OSError as error:
            raise DamagedImage(f"{path} cannot be decoded ({error.strerror}); check the link and its rights") from error

    def label(self, index: int) -> int:
        """Return the number of the image's top folder."""
        return self.labels[index]


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
