"""Batches of view pairs in an order that depends on (seed, epoch) only, from any step, on any number of processes."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from core.provenance import derive
from pretrain.data import DamagedImage, Images
from pretrain.views import ViewSettings, crop, draw_colour


class Batch(NamedTuple):
    """One process's rows of a batch: two uint8 crops an image and their drawn colour changes (``views.colour``)."""

    crops: Tensor  # [2, batch, 3, size, size] uint8
    colours: Tensor  # [2, batch, 8]
    damaged: list[str]  # files that could not be decoded and were replaced by the next image


KEPT_BYTES = 512 * 2**20  # of decoded images: all of CIFAR fits, and nothing of ImageNet is worth keeping


class Pairs(Dataset):
    """The pair of views of (epoch, index); a worker needs nothing else to make it.

    Decoded images are kept up to ``KEPT_BYTES``, so that a small set is decoded once; worker processes, which live for one
    epoch, keep none.
    """

    def __init__(self, images: Images, views: ViewSettings, seed: int, skip_damaged: bool) -> None:
        self.images, self.views, self.seed, self.skip_damaged = images, views, seed, skip_damaged
        self._kept: dict[int, tuple[Tensor, list[str]]] = {}
        self._room = KEPT_BYTES

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, list[str]]:
        epoch, index = key
        image, damaged = self._image(index)
        crops, colours = [], []
        for view in range(2):
            generator = torch.Generator().manual_seed(derive(self.seed, "view", epoch, index, view))
            settings = self.views.of_view(view)
            crops.append(crop(image, settings, generator))
            colours.append(draw_colour(settings, generator))
        return torch.stack(crops), torch.stack(colours), damaged

    def _image(self, index: int) -> tuple[Tensor, list[str]]:
        if index in self._kept:
            return self._kept[index]
        image, damaged = self._read(index)
        if image.nbytes <= self._room and get_worker_info() is None:
            self._kept[index] = image, damaged
            self._room -= image.nbytes
        return image, damaged

    def _read(self, index: int) -> tuple[Tensor, list[str]]:
        damaged: list[str] = []
        for step in range(len(self.images)):
            try:
                return self.images.image((index + step) % len(self.images)), damaged
            except DamagedImage as error:
                if not self.skip_damaged:
                    raise
                damaged.append(str(error).split(" cannot be decoded")[0])
        raise DamagedImage(f"none of the {len(self.images)} images can be decoded, the first is {damaged[0]}")


class EpochOrder:
    """The keys of one epoch's batches for one process: rows ``rank`` of each global batch, from ``first`` on."""

    def __init__(self, count: int, batch: int, seed: int, rank: int, world: int) -> None:
        self.count, self.batch, self.seed, self.rank, self.world = count, batch, seed, rank, world
        self.epoch, self.first = 0, 0

    @property
    def steps(self) -> int:
        """Return the number of full batches in an epoch; the rest is left out, another part each epoch."""
        return self.count // self.batch

    def __len__(self) -> int:
        return self.steps - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(derive(self.seed, "order", self.epoch))
        order = torch.randperm(self.count, generator=generator).tolist()
        share = self.batch // self.world
        for step in range(self.first, self.steps):
            start = step * self.batch + self.rank * share
            yield [(self.epoch, index) for index in order[start : start + share]]


def collate(samples: list[tuple[Tensor, Tensor, list[str]]]) -> Batch:
    """Stack samples view by view."""
    crops, colours, damaged = zip(*samples, strict=True)
    return Batch(
        torch.stack(crops, dim=1), torch.stack(colours, dim=1), sorted({name for part in damaged for name in part})
    )


def loader(dataset: Pairs, order: EpochOrder, workers: int, pin: bool) -> DataLoader:
    """Make the loader that yields ``Batch`` in the order's sequence."""
    return DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        persistent_workers=False,  # workers must see each epoch's number and first step
        multiprocessing_context="fork" if workers else None,
    )
