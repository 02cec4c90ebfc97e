"""CIFAR-10 and CIFAR-100: as class folders, ``root/{train,test}/<class>/*``, or in the authors' binary files."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from core.config import PluginSettings
from core.files import sha256
from transfer.datasets import cifar_binary
from transfer.frameworks.classification.data import Data, Split, under_root
from transfer.frameworks.classification.data.folders import Folders


class Cifar(Data):
    """Both splits of the form that is there."""

    class Config(PluginSettings):
        """``root`` is below the datasets' folder; ``tools/prepare_data.py cifar10`` makes it."""

        name: Literal["cifar"] = "cifar"
        root: Path

    def __init__(self, config: "Cifar.Config") -> None:
        place = cifar_binary.find(under_root(config.root))
        if place is None:
            folders = Folders(Folders.Config(root=config.root))
            self.classes, self.train, self.test = folders.classes, folders.train, folders.test
            return
        cifar_binary.check(place.parent)
        form = cifar_binary.FORMS[place.name]
        self.classes = tuple(str(label) for label in range(form.classes))
        self.train, self.test = (_split(place, form, split) for split in ("train", "test"))


def _split(place: Path, form: cifar_binary.Form, split: str) -> Split:
    length = form.label_bytes + cifar_binary.PIXELS
    paths = [place / name for name in form.files[split]]
    records = np.concatenate([np.fromfile(path, dtype=np.uint8).reshape(-1, length) for path in paths])
    labels = records[:, form.label_bytes - 1].tolist()
    images = torch.from_numpy(records[:, form.label_bytes :].copy()).view(-1, 3, 32, 32)
    names = [f"{split}/{row:05d}" for row in range(len(labels))]
    digest = " ".join(sha256(path) for path in paths)
    return Split(names, labels, lambda index: images[index], [f"{digest} {row}" for row in range(len(labels))])
