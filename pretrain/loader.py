"""Batches of view pairs in an order that depends on (seed, epoch) only, from any step, on any number of processes."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from core.data import Images
from core.decoding import DamagedImage, decode, jpeg_size, reduction_for
from core.provenance import derive
from pretrain.drawing import Kept
from pretrain.views import Box, View, ViewSettings, box_of, colours_of, cut, draw

Pixels = UInt8[np.ndarray, "height width 3"]


class Batch(NamedTuple):
    """One process's rows of a batch: a uint8 crop for each view of an image, and its drawn colour changes (``views.colour``)."""

    crops: Tensor  # [views, batch, 3, size, size] uint8
    colours: Tensor  # [views, batch, 8]
    damaged: list[str]  # files that could not be decoded and were replaced by the next image
    drawn: Sequence[Kept] = ()  # what the branches draw for each micro-batch, where a worker has done so
    labels: Tensor = torch.empty(0, dtype=torch.long)  # [batch], -1 where none is known


KEPT_BYTES = 512 * 2**20  # of decoded images: all of CIFAR fits, and nothing of ImageNet is worth keeping


class Keys(list[tuple[int, int]]):
    """The (epoch, index) pairs of one process's rows of a step's batch."""

    step: int


class Pairs(Dataset):
    """The pair of views of (epoch, index), or the first of them alone; a worker needs nothing else to make it.

    Both views are cut from one decoding. Images of a set that would fit in ``KEPT_BYTES`` are decoded in full size and kept, up
    to that limit; worker processes, which live for one epoch, keep none. Files of larger sets are decoded in half size or
    less where neither view then has less than its own size to be made of; whether they are does not depend on the worker.
    """

    def __init__(self, images: Images, views: ViewSettings, seed: int, skip_damaged: bool, count: int = 2) -> None:
        self.images, self.views, self.seed, self.skip_damaged = images, views, seed, skip_damaged
        self.draw_ahead: Callable[[int], Sequence[Kept]] | None = None  # by step
        self._settings = [views.of_view(view) for view in range(count)]
        self._generator = torch.Generator()
        self._kept: dict[int, tuple[Pixels, list[str]]] = {}
        self._room = KEPT_BYTES
        self._most = KEPT_BYTES // max(1, len(images))  # bytes of an image, for the whole set to fit

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, list[str]]:
        """Return one image's crops [views, 3, size, size], its colour changes [views, 8], and the damaged files before it."""
        batch = self.__getitems__([key])
        return batch.crops[:, 0], batch.colours[:, 0], batch.damaged

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        """Make a whole batch in place; the data loader asks for this."""
        size = self.views.size
        crops = _empty(len(self._settings), len(keys), 3, size, size)
        planes = crops.numpy()
        # first all draws: between two decodings, each step finds the processor's caches without its code
        drawn = [[self._draw(epoch, index, view) for view in range(len(crops))] for epoch, index in keys]
        colours = [
            colours_of(settings, [views[number].unit for views in drawn])
            for number, settings in enumerate(self._settings)
        ]
        flips = [view.flip_probability for view in self._settings]
        damaged: set[str] = set()
        labels = []
        for row, ((_, index), views) in enumerate(zip(keys, drawn, strict=True)):
            image, boxes, skipped = self._image(index, [view.box for view in views])
            if skipped:
                damaged.update(skipped)
            labels.append(self.images.label((index + len(skipped)) % len(self.images)))  # of the image that is shown
            for number, (view, box, flip) in enumerate(zip(views, boxes, flips, strict=True)):
                cut(image, box, view.flip < flip, planes[number, row])
        ahead: Sequence[Kept] = ()
        if self.draw_ahead is not None and isinstance(keys, Keys):
            ahead = self.draw_ahead(keys.step)
        return Batch(crops, torch.from_numpy(np.stack(colours)), sorted(damaged), ahead, torch.tensor(labels))

    def _draw(self, epoch: int, index: int, view: int) -> View:
        return draw(self._generator.manual_seed(derive(self.seed, f"view/{epoch}/{index}/{view}")))

    def _boxes(self, height: int, width: int, drawn: list[list[float]]) -> list[Box]:
        return [box_of(height, width, one.scale, part) for one, part in zip(self._settings, drawn, strict=True)]

    def _image(self, index: int, drawn: list[list[float]]) -> tuple[Pixels, list[Box], list[str]]:
        """Return the image, maybe reduced, the views' boxes in it, and the damaged files before it."""
        if index in self._kept:
            image, damaged = self._kept[index]
        else:
            image, damaged, size = self._read(index, drawn)
            if size != image.shape[:2]:
                return image, [_within(box, size, image.shape[:2]) for box in self._boxes(*size, drawn)], damaged
            if image.nbytes <= min(self._most, self._room) and get_worker_info() is None:
                image = np.ascontiguousarray(image)  # the memory that a box is copied from at once
                self._kept[index] = image, damaged
                self._room -= image.nbytes
        return image, self._boxes(image.shape[0], image.shape[1], drawn), damaged

    def _read(self, index: int, drawn: list[list[float]]) -> tuple[Pixels, list[str], tuple[int, int]]:
        """Decode the image, or the next one that can be decoded; return also the damaged files and its full size."""
        damaged: list[str] = []
        for step in range(len(self.images)):
            number = (index + step) % len(self.images)
            try:
                encoded = self.images.encoded(number)
                if encoded is None:
                    image, size, reduction = self.images.image(number), None, 1
                else:
                    size = jpeg_size(encoded.data)
                    reduction = self._reduction(size, drawn) if size else 1
                    image = decode(*encoded, reduction)
                pixels = image.permute(1, 2, 0).numpy()
                return pixels, damaged, size if size and reduction > 1 else pixels.shape[:2]
            except DamagedImage as error:
                if not self.skip_damaged:
                    raise DamagedImage(f"{error}, or set data.damaged=skip to go on without it") from error
                damaged.append(str(error).split(" cannot be decoded")[0])
        raise DamagedImage(f"none of the {len(self.images)} images can be decoded, the first is {damaged[0]}")

    def _reduction(self, size: tuple[int, int], drawn: list[list[float]]) -> int:
        """Return by how much a JPEG of this size may be reduced, for these draws; 1 in a set that may be kept."""
        if min(size) < 2 * self.views.size or 3 * size[0] * size[1] <= self._most:
            return 1
        return reduction_for(min(side for box in self._boxes(*size, drawn) for side in box[2:]), self.views.size)


def _within(box: Box, full: tuple[int, ...], reduced: tuple[int, ...]) -> Box:
    """Scale a box to a reduced image; its edges go to the nearest whole pixels."""
    (top, bottom), (left, right) = (
        (int(start * small / large + 0.5), int((start + length) * small / large + 0.5))
        for start, length, large, small in zip(box[:2], box[2:], full, reduced, strict=True)
    )
    return top, left, bottom - top, right - left


def _empty(*shape: int) -> Tensor:
    """Return uint8 memory; a worker's is shared, so that the batch is not copied on its way to the main process."""
    if get_worker_info() is None:
        return torch.from_numpy(np.empty(shape, np.uint8))  # NumPy asks for huge pages: fewer of them to be made
    storage = torch.UntypedStorage._new_shared(math.prod(shape))
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)


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
            keys = Keys((self.epoch, index) for index in order[start : start + share])
            keys.step = self.epoch * self.steps + step
            yield keys


def collate(samples: list[tuple[Tensor, Tensor, list[str]]]) -> Batch:
    """Stack samples view by view."""
    crops, colours, damaged = zip(*samples, strict=True)
    return Batch(
        torch.stack(crops, dim=1), torch.stack(colours, dim=1), sorted({name for part in damaged for name in part})
    )


def _as_it_is(batch: Any) -> Batch:
    return batch


def loader(dataset: Pairs, order: EpochOrder, workers: int, pin: bool) -> DataLoader:
    """Make the loader that yields ``Batch`` in the order's sequence."""
    return DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin,
        persistent_workers=False,  # workers must see each epoch's number and first step
        multiprocessing_context="fork" if workers else None,
    )
