"""ADE20K of the 2016 scene parsing challenge: ``images`` and ``annotations`` of training and validation.

MMSegmentation reads ``annotations`` (0 is other, 1 to 150 are classes); Detectron2 reads ``annotations_detectron2``, in which
classes count from 0 and other is 255.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.errors import InputError
from transfer.datasets import Counts, files

CLASSES = 150
IMAGES = {"training": 20210, "validation": 2000}
NEXT = "unpack it with: python tools/prepare_data.py ade20k ROOT"


def check(folder: Path) -> Counts:
    """Check both splits: counts as published, label maps and their values."""
    counts: Counts = {}
    for split in IMAGES:
        found = _pairs(folder, split)
        files.check_pairs(found, set(range(CLASSES + 1)), f"ADE20K {split}")
        counts[split] = {"images": len(found)}
        if (folder / "annotations_detectron2").is_dir():
            _pairs(folder, split, "annotations_detectron2")
    return counts


def require(folder: Path, splits: Sequence[str] = (), annotations: str = "annotations") -> None:
    """Raise InputError unless all images of the splits and their label maps are there."""
    for split in splits or IMAGES:
        _pairs(folder, split, annotations)


def write_shifted(folder: Path) -> None:
    """Write ``annotations_detectron2``: every value less one, 0 becomes 255."""
    table = (np.arange(256) - 1) % 256
    sources = sorted((folder / "annotations").rglob("*.png"))
    target = folder / "annotations_detectron2"
    files.rewrite(
        sources, lambda path: target / path.relative_to(folder / "annotations"), table, "annotations_detectron2"
    )


def _pairs(folder: Path, split: str, annotations: str = "annotations") -> list[tuple[Path, Path]]:
    if split not in IMAGES:
        raise InputError(f"ADE20K has no split {split!r}; there are: {', '.join(IMAGES)}")
    images, labels = folder / "images" / split, folder / annotations / split
    found = files.listed(images, labels, lambda path: path.with_suffix(".png"), ".jpg", NEXT)
    if len(found) != IMAGES[split]:
        raise InputError(f"{images} has {len(found)} images, {IMAGES[split]} are published; {NEXT}")
    return found
