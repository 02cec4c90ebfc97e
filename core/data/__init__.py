"""Data: where images come from, for pre-training and for classification.

To add a source, write ``core/data/NAME.py`` with a class named like the file (underscores removed) that extends
``Images`` and has a ``Config``; then name it in a config: ``data: {name: NAME}``. A layout with a training and a test split has
``Splits`` (``LabelledSettings``) as well, by which a classification config names it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from core.config import PluginSettings
from core.decoding import Encoded


class Images(ABC):
    """Images by number. ``image`` and ``encoded`` are called in worker processes, for any number, in any order."""

    Config: ClassVar[type[PluginSettings]]
    left_out: str = ""  # what a user should know of files that are no images here

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
        """Return the class of an image; -1 where none is known."""
        return -1


class Split:
    """Labelled images by number; ``identity`` names each image's content (features of a backbone are kept under it).

    ``labels`` are class numbers [n], or, where an image has several classes, [n, classes]: 1 there, -1 not, 0 to be ignored.
    """

    def __init__(
        self,
        names: Sequence[str],
        labels: Sequence[int] | Sequence[Sequence[int]],
        read: Callable[[int], Tensor],
        identity: Sequence[str],
    ) -> None:
        assert len(names) == len(labels) == len(identity), "one name, label and identity an image"
        self.names, self.labels, self.identity = list(names), torch.tensor(labels), list(identity)
        self._read = read

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Tensor:
        """Return one RGB image, uint8 [3, height, width]; raise DamagedImage naming the file when it cannot be decoded."""
        return self._read(index)

    def part(self, rows: Sequence[int]) -> "Split":
        """Return the split of some of its images, in the order of ``rows``."""
        return Split(
            [self.names[row] for row in rows],
            self.labels[list(rows)].tolist(),
            lambda index: self._read(rows[index]),
            [self.identity[row] for row in rows],
        )


class Labelled(NamedTuple):
    """A training and a test split of the same classes."""

    classes: tuple[str, ...]
    train: Split
    test: Split


class LabelledSettings(PluginSettings, ABC):
    """Where both splits of a layout are; paths are below ``core.files.datasets_root()`` or absolute."""

    @abstractmethod
    def read(self) -> Labelled:
        """List both splits; raise InputError naming what is missing before anything is trained."""
