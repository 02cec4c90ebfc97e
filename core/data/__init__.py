"""Data: where unlabelled images come from.

To add a source, write ``core/data/NAME.py`` with a class named like the file (underscores removed) that extends
``Images`` and has a ``Config``; then name it in a config: ``data: {name: NAME}``.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import UInt8
from torch import Tensor

from core.config import PluginSettings
from core.decoding import Encoded


class Images(ABC):
    """Images by number. ``image`` and ``encoded`` are called in worker processes, for any number, in any order."""

    Config: ClassVar[type[PluginSettings]]

    @abstractmethod
    def __len__(self) -> int:
        """Return how many images there are."""

    @abstractmethod
    def image(self, index: int) -> UInt8[Tensor, "3 height width"]:
        """Return one RGB image; raise DamagedImage naming the file when it cannot be decoded."""

    def encoded(self, index: int) -> Encoded | None:
        """Return one image's file, so that it can be decoded in the size that is needed; None where images are no files."""
        return None

    def label(self, index: int) -> int:
        """Return the class of an image, for monitoring only; -1 where none is known."""
        return -1
