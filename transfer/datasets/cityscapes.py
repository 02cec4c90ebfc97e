"""Cityscapes as both frameworks expect it: ``leftImg8bit`` and ``gtFine`` of train and val, with ``labelTrainIds`` maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.errors import InputError
from transfer.datasets import Counts, files

# Label id -> training id, from the table of labels of the dataset's authors (cityscapesScripts); all others are void.
TRAIN_IDS = dict(zip((7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33), range(19), strict=True))
VOID = 255
IMAGES = {"train": 2975, "val": 500}
NEXT = "unpack it with: python tools/prepare_data.py cityscapes ROOT"


def select(name: str) -> str | None:
    """Keep the images and label maps of the archives, and leave their licence and readme out."""
    return name if name.startswith(("gtFine/", "leftImg8bit/")) else None


def check(folder: Path) -> Counts:
    """Check train and val: counts as published, label maps and their values."""
    counts: Counts = {}
    for split in IMAGES:
        found = _pairs(folder, split)
        files.check_pairs(found, {*TRAIN_IDS.values(), VOID}, f"Cityscapes {split}")
        counts[split] = {"images": len(found), "cities": len({image.parent for image, _ in found})}
    return counts


def require(folder: Path, splits: Sequence[str] = ()) -> None:
    """Raise InputError unless all images of the splits and their label maps are there."""
    for split in splits or IMAGES:
        _pairs(folder, split)


def write_train_ids(folder: Path) -> None:
    """Write ``*_gtFine_labelTrainIds.png`` beside each ``*_gtFine_labelIds.png``: 19 classes, 255 for all else."""
    table = np.full(256, VOID)
    table[list(TRAIN_IDS)] = list(TRAIN_IDS.values())
    for split in IMAGES:
        sources = sorted((folder / "gtFine" / split).rglob("*_gtFine_labelIds.png"))
        files.rewrite(
            sources, lambda path: path.with_name(path.name.replace("labelIds", "labelTrainIds")), table, "train ids"
        )


def _pairs(folder: Path, split: str) -> list[tuple[Path, Path]]:
    if split not in IMAGES:
        raise InputError(f"Cityscapes has no labelled split {split!r}; there are: {', '.join(IMAGES)}")
    images, labels = folder / "leftImg8bit" / split, folder / "gtFine" / split
    found = files.listed(
        images,
        labels,
        lambda path: path.with_name(path.name.replace("_leftImg8bit.png", "_gtFine_labelTrainIds.png")),
        "_leftImg8bit.png",
        NEXT,
    )
    if len(found) != IMAGES[split]:
        raise InputError(f"{images} has {len(found)} images, {IMAGES[split]} are published; {NEXT}")
    return found
