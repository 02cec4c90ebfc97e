"""Data: where unlabelled images come from.

To add a source, write ``pretrain/data/NAME.py`` with a class named like the file (underscores removed) that extends
``Images`` and has a ``Config``; then name it in a config: ``data: {name: NAME}``.
"""

import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from core.config import PluginSettings
from core.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"})


class Images(ABC):
    """Images by number. ``image`` is called in worker processes, for any number, in any order."""

    Config: ClassVar[type[PluginSettings]]

    @abstractmethod
    def __len__(self) -> int:
        """Return how many images there are."""

    @abstractmethod
    def image(self, index: int) -> UInt8[Tensor, "3 height width"]:
        """Return one RGB image; raise DamagedImage naming the file when it cannot be decoded."""

    def label(self, index: int) -> int:
        """Return the class of an image, for monitoring only; -1 where none is known."""
        return -1


class DamagedImage(InputError):
    """An image file that cannot be decoded; the message names it."""


def decode(data: bytes, name: Path | str) -> UInt8[Tensor, "3 height width"]:
    """Decode an image file's bytes to RGB; raise DamagedImage when it is truncated or no image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DamagedImage(
            f"{name} cannot be decoded ({error}); replace it, or set data.damaged=skip to go on without it"
        ) from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)
