"""Which images the network sees (all, or a part of them with labels), and what of each: a test view or a random one."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from core import bounds
from core.config import Settings
from core.data import Split
from core.errors import InputError
from core.files import datasets_root
from core.provenance import derive

Augment = Literal["none", "flip_copies", "pad_flip", "crop_flip"]
CACHED = ("none", "flip_copies")  # every epoch sees the same images


class ViewSettings(Settings):
    """``size`` of the view in pixels; ``resize`` of the shorter side before the test view's centre crop, None for neither.

    ``stretch``, VISSL's: the shorter side becomes 8/7 of ``size``, then the whole image ``size`` x ``size``, whatever its form.
    Training views: ``none``; ``flip_copies`` (each image and its mirror image, every epoch); ``pad_flip`` (pad by an eighth,
    crop, flip: CIFAR's custom); ``crop_flip`` (random resized crop, flip: ImageNet's).
    """

    size: int = Field(224, ge=8)
    resize: Annotated[int, Field(ge=8)] | Literal["stretch"] | None = 256


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
    if settings.resize == "stretch":
        test = [v2.Resize(round(size * 8 / 7), antialias=True), v2.Resize((size, size), antialias=True)]
    elif settings.resize is not None:
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


class Subset(Settings):
    """``share`` of every class's images (at least one), drawn anew in each trial, or the images that the file ``list`` names.

    ``list`` has one image a line, as ``class/name`` or by its file name alone (SimCLR's lists for ImageNet).
    """

    share: float = Field(1.0, gt=0, le=1)
    list: Path | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.list is not None and self.share != 1:
            raise InputError("give share or list, not both")
        return self


def choose(split: Split, subset: Subset, seed: int) -> Split:
    """Return the part of a split that ``subset`` describes; trials with the same seed get the same images."""
    if subset != Subset() and split.labels.ndim > 1:
        raise InputError("subset draws images of a class, and these have several; leave it out")
    if subset.list is not None:
        return split.part(listed(split.names, datasets_root() / subset.list))
    return split if subset.share == 1 else split.part(balanced(split.labels.tolist(), subset.share, seed))


def balanced(labels: list[int], share: float, seed: int) -> list[int]:
    """Return the sorted rows of ``round(share * count)``, at least one, of every class, drawn without replacement."""
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        rows_of[label].append(row)
    chosen: list[int] = []
    for label, rows in rows_of.items():
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(derive(seed, "subset", label)))
        chosen += [rows[index] for index in order[: max(1, round(share * len(rows)))].tolist()]
    return sorted(chosen)


def listed(names: list[str], path: Path) -> list[int]:
    """Return the sorted rows of the images that a file names; raise InputError for one that is not there or not unique."""
    if not path.is_file():
        raise InputError(f"no list of images at {path}; set subset.list, or subset.share for a drawn part")
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        for key in {name, name.rsplit("/", 1)[-1]}:
            rows_of[key].append(row)
    chosen: set[int] = set()
    for line in filter(None, map(str.strip, bounds.text(path, "a list of images").splitlines())):
        if len(found := rows_of.get(line, [])) != 1:
            problem = "is no training image" if not found else f"is the name of {len(found)} images; write class/name"
            raise InputError(f"{path}: {line} {problem}")
        chosen.add(found[0])
    if not chosen:
        raise InputError(f"{path} names no image; write one a line")
    return sorted(chosen)
