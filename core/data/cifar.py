"""CIFAR-10 and CIFAR-100: as class folders of image files, ``root/{train,test}/<class>/*``, or as published.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from core.config import PluginSettings
from core.data import _cifar_batches
from core.data.imagefolder import ImageFolder
from core.decoding import Encoded
from core.errors import InputError


class Cifar(ImageFolder):
    """One split of CIFAR; ``tools/prepare_data.py cifar10`` makes the folder."""

    class Config(PluginSettings):
        """``root`` holds the folders ``train`` and ``test``, or the published binary files or Python batches."""

        name: Literal["cifar"] = "cifar"
        root: Path = Path("datasets/cifar10")
        split: Literal["train", "test"] = "train"
        damaged: Literal["skip", "refuse"] = "refuse"

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
