"""CIFAR-10 and CIFAR-100 as class folders of image files: ``root/{train,test}/<class>/*``."""

from pathlib import Path
from typing import Literal

from core.config import PluginSettings
from core.errors import InputError
from pretrain.data.imagefolder import ImageFolder


class Cifar(ImageFolder):
    """One split of an unpacked CIFAR; ``tools/prepare_data.py cifar10`` makes the folders."""

    class Config(PluginSettings):
        """``root`` holds the folders ``train`` and ``test``."""

        name: Literal["cifar"] = "cifar"
        root: Path = Path("datasets/cifar10")
        split: Literal["train", "test"] = "train"
        damaged: Literal["skip", "refuse"] = "refuse"

    def __init__(self, config: "Cifar.Config") -> None:
        folder = config.root / config.split
        if not folder.is_dir():
            raise InputError(f"no folder {folder}; unpack CIFAR with tools/prepare_data.py, or set data.root")
        self._list(folder)
