"""What is random in a run is a function of its seed and of a place (a sample, a step), so that a resumed run draws the same.

The frameworks draw from one stream of numbers for all of a process's life, which a killed run cannot find again.
"""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from core.provenance import derive


class Numbered(int):
    """The index of an image in its data set, which also knows its ``number`` in the order of the whole training."""

    number: int

    def __new__(cls, index: int, number: int) -> "Numbered":
        """Make the index ``index`` of sample ``number``."""
        made = super().__new__(cls, index)
        made.number = number
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Numbered, (int(self), self.number)  # it is sent to the processes that load images


def seed_all(seed: int, *place: int | str) -> None:
    """Seed Python, NumPy and PyTorch for a place of a run."""
    drawn = derive(seed, *place)
    random.seed(drawn)
    np.random.seed(drawn % 2**32)
    torch.manual_seed(drawn)


@contextlib.contextmanager
def drawing(seed: int, *place: int | str) -> Iterator[None]:
    """Draw for a place of a run inside, and go on outside as if nothing had been drawn."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    drawn = derive(seed, *place)
    random.seed(drawn)
    np.random.seed(drawn % 2**32)
    torch.default_generator.manual_seed(drawn)  # without the GPU's, which no loader draws from
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


class Seeded(Dataset):
    """A data set whose augmentations of a sample depend on ``seed``, the process's ``rank`` and the sample's number only."""

    def __init__(self, dataset: Any, seed: int, rank: int) -> None:
        self.dataset, self.seed, self.rank = dataset, seed, rank

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        with drawing(self.seed, "sample", self.rank, getattr(index, "number", index)):
            return self.dataset[int(index)]

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # not there yet, while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)
