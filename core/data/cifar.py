"""CIFAR-10 and CIFAR-100: as class folders of image files, ``root/{train,test}/<class>/*``, or as published.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from core.config import PluginSettings
from core.data import Labelled, LabelledSettings, Split, _cifar_batches
from core.data.imagefolder import ImageFolder
from core.decoding import Encoded
from core.errors import InputError
from core.files import datasets_root, sha256


class Cifar(ImageFolder):
    """One split of CIFAR; ``tools/prepare_data.py cifar10`` makes the folder."""

    class Config(PluginSettings):
        """``root`` holds the folders ``train`` and ``test``, or the published binary files or Python batches."""

        name: Literal["cifar"] = "cifar"
        root: Path = Path("datasets/cifar10")
        split: Literal["train", "test"] = "train"
        damaged: Literal["skip", "refuse"] = "refuse"

    class Splits(LabelledSettings):
        """Class folders, or the published files, which must be whole; ``tools/prepare_data.py cifar10`` makes ``root``."""

        name: Literal["cifar"] = "cifar"
        root: Path

        def read(self) -> Labelled:
            """List both splits of the form that is there."""
            root = datasets_root() / self.root
            if (root / "train").is_dir() or (form := _cifar_batches.check(root)) is None:
                return ImageFolder.Splits(root=self.root).read()  # below the data sets again
            return Labelled(tuple(map(str, range(form.classes))), self._split(root, "train"), self._split(root, "test"))

        def _split(self, root: Path, split: str) -> Split:
            images = Cifar(Cifar.Config(root=root, split=split))
            found = _cifar_batches.find(root, split)
            assert found is not None, "checked before"
            digest = " ".join(map(sha256, found[1]))
            rows = range(len(images))
            names, identity = [f"{split}/{row:05d}" for row in rows], [f"{digest} {row}" for row in rows]
            return Split(names, images.labels, images.image, identity)

    def __init__(self, config: "Cifar.Config") -> None:
        folder = config.root / config.split
        self._records = None if folder.is_dir() else _cifar_batches.read(config.root, config.split)
        if self._records is not None:
            self._starts = torch.tensor([len(part) for part in self._records.parts]).cumsum(0)
            self.labels = self._records.labels.tolist()
            return
        if not folder.is_dir():
            raise InputError(f"no folder {folder}; unpack CIFAR with tools/prepare_data.py, or set data.root")
        self._list(folder)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Tensor:
        """Return one image, uint8 [3, 32, 32] where it comes from the published files."""
        if self._records is None:
            return super().image(index)
        part = int(torch.searchsorted(self._starts, index, right=True))
        before = int(self._starts[part - 1]) if part else 0
        return torch.from_numpy(self._records.parts[part][index - before].copy())

    def encoded(self, index: int) -> Encoded | None:
        """Read one file where there are files."""
        return super().encoded(index) if self._records is None else None
