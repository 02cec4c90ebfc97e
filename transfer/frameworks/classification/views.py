"""What the network sees of an image: a fixed test view, or a random training view that is a function of its place."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from core.config import Settings
from core.errors import InputError
from core.provenance import derive
from transfer.frameworks.classification.data import Split

Augment = Literal["none", "flip_copies", "pad_flip", "crop_flip"]
CACHED = ("none", "flip_copies")  # every epoch sees the same images


class ViewSettings(Settings):
    """``size`` of the view in pixels; ``resize`` of the shorter side before the test view's centre crop, None for neither.

    Training views: ``none``; ``flip_copies`` (each image and its mirror image, every epoch); ``pad_flip`` (pad by an eighth,
    crop, flip: CIFAR's custom); ``crop_flip`` (random resized crop, flip: ImageNet's).
    """

    size: int = Field(224, ge=8)
    resize: int | None = Field(256, ge=8)


class Views(Dataset):
    """Views as uint8 [3, size, size] by number; ``place`` (seed, epoch) decides what is random in them."""

    def __init__(
        self, split: Split, settings: ViewSettings, augment: Augment = "none", place: Sequence[int | str] = ()
    ) -> None:
        self.split, self.settings, self.place = split, settings, tuple(place)
        self.transform = _transform(settings, augment)
        self.random = augment not in CACHED

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, rows: list[int]) -> Tensor:
        """Make a batch, uint8 [rows, 3, size, size]; the data loader asks for this."""
        return torch.stack([self[row] for row in rows])

    def __getitem__(self, index: int) -> Tensor:
        image = self.split.image(index)
        if self.transform is None:
            view = image
        elif self.random:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(derive(0, *self.place, self.split.names[index]))
                view = self.transform(image)
        else:
            view = self.transform(image)
        size = self.settings.size
        if view.shape[1:] != (size, size):
            height, width = view.shape[1:]
            raise InputError(
                f"{self.split.names[index]} is {width}x{height} pixels, not {size}x{size}; set views.resize to scale images"
            )
        return view


def _transform(settings: ViewSettings, augment: Augment) -> v2.Transform | None:
    size = settings.size
    if augment == "crop_flip":
        return v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()])
    test: list[v2.Transform] = []
    if settings.resize is not None:
        test = [v2.Resize(settings.resize, antialias=True), v2.CenterCrop(size)]
    if augment == "pad_flip":
        return v2.Compose([*test, v2.RandomCrop(size, padding=size // 8), v2.RandomHorizontalFlip()])
    return v2.Compose(test) if test else None


def batches(views: Views, order: Sequence[int], size: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (uint8 images [size, 3, h, w], their rows) in the order asked for."""
    loader = DataLoader(
        views,
        batch_sampler=_chunks(order, size),
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
    )
    for rows, images in zip(_chunks(order, size), loader, strict=True):
        yield images, torch.tensor(rows)


def _as_it_is(batch: Any) -> Any:
    return batch


def _chunks(order: Sequence[int], size: int) -> list[list[int]]:
    return [list(order[start : start + size]) for start in range(0, len(order), size)]


def shuffled(count: int, seed: int, epoch: int) -> Tensor:
    """Return the order of an epoch's images, a function of seed and epoch alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive(seed, "order", epoch)))
