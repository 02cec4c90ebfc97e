"""The COCO layout: ``annotations/instances_SPLIT.json`` beside one image folder per split."""

import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from core.errors import InputError
from transfer.datasets import Counts
from transfer.datasets.images import require_image
from transfer.datasets.progress import track

Record = dict[str, Any]
NEXT = "link COCO there with: python tools/prepare_data.py link-coco SOURCE FOLDER"
ZOOM = 4  # outlines are traced on an enlarged mask, so that they run within 1/8 pixel of the pixels' edges


@dataclass(frozen=True)
class Split:
    """The records of one ``instances_*.json`` and the folder of its images."""

    name: str
    source: Path
    folder: Path
    images: list[Record]
    annotations: list[Record]
    categories: list[Record]


def check(root: Path) -> Counts:
    """Check a COCO folder: files, ids, image files, boxes; return counts per split, zero-area boxes among them."""
    counts: Counts = {}
    for name in splits(root):
        split = read(root, name)
        for image in track(split.images, f"checking {split.folder}", len(split.images)):
            require_image(split.folder / image["file_name"], split.source.name)
        boxes = [annotation["bbox"] for annotation in split.annotations]
        counts[name] = {
            "images": len(split.images),
            "objects": len(boxes),
            "classes": len(split.categories),
            "crowds": sum(bool(annotation.get("iscrowd")) for annotation in split.annotations),
            "zero-area boxes": sum(box[2] <= 0 or box[3] <= 0 for box in boxes),
        }
    return counts


def splits(root: Path) -> list[str]:
    """List the splits (``train2017``, ...) of a COCO folder, the training ones first."""
    if not root.is_dir():
        raise InputError(f"no folder {root}; {NEXT}")
    names = [path.stem.removeprefix("instances_") for path in (root / "annotations").glob("instances_*.json")]
    if not names:
        raise InputError(f"no {root / 'annotations'}/instances_*.json; {NEXT}")
    return sorted(names, key=lambda name: (not name.startswith("train"), name))


def read(root: Path, name: str) -> Split:
    """Read one split and check its records; raise InputError naming the file and the first bad record."""
    source = root / "annotations" / f"instances_{name}.json"
    if not (root / name).is_dir():
        raise InputError(f"no folder {root / name} for the images of {source.name}; {NEXT}")
    try:
        content = json.loads(source.read_bytes())
    except ValueError as error:
        raise InputError(f"{source} is truncated or not JSON ({error}); copy or download it again") from error
    parts = [content.get(key) if isinstance(content, dict) else None for key in ("images", "annotations", "categories")]
    for key, part in zip(("images", "annotations", "categories"), parts, strict=True):
        if not isinstance(part, list):
            raise InputError(f"{source} has no list '{key}'; it is not a COCO instances file")
    split = Split(name, source, root / name, *parts)  # type: ignore[arg-type]
    if not split.images:
        raise InputError(f"{source} lists no images; copy or download it again")
    _check_records(split)
    return split


def _check_records(split: Split) -> None:
    sides = _by_id(split, split.images, "images", ("file_name", "height", "width"))
    categories = _by_id(split, split.categories, "categories", ("name",))
    _by_id(split, split.annotations, "annotations", ("image_id", "category_id", "bbox", "segmentation"))
    for annotation in split.annotations:
        where = f"annotation {annotation['id']} in {split.source}"
        if annotation["image_id"] not in sides:
            raise InputError(
                f"{where} belongs to image {annotation['image_id']}, which is not listed; remove or repair it"
            )
        if annotation["category_id"] not in categories:
            raise InputError(f"{where} has the unknown category {annotation['category_id']}; remove or repair it")
        box = annotation["bbox"]
        if not (isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)):
            raise InputError(f"{where} has the box {box}, not four numbers (x, y, width, height); remove or repair it")


def _by_id(split: Split, records: Iterable[Any], key: str, needed: tuple[str, ...]) -> dict[Any, Record]:
    found: dict[Any, Record] = {}
    for number, record in enumerate(records):
        where = f"record {number} of '{key}' in {split.source}"
        missing = [name for name in ("id", *needed) if not isinstance(record, dict) or name not in record]
        if missing:
            raise InputError(f"{where} has no {', '.join(missing)}; remove or repair it")
        if record["id"] in found:
            raise InputError(f"{where} repeats the id {record['id']}; ids must differ")
        found[record["id"]] = record
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def link(source: Path, target: Path, *, copy: bool = False) -> Counts:
    """Check the COCO folder ``source`` and place it at ``target`` as a symbolic link, or as a copy."""
    counts = check(source)
    if target.is_symlink() and not copy:
        target.unlink()
    elif target.exists():
        raise InputError(f"{target} exists; remove it or choose another place")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not copy:
        target.symlink_to(source.resolve(), target_is_directory=True)
        return counts
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    temporary.chmod(0o755)  # the source may be read-only
    temporary.rename(target)
    return counts


def decode(annotation: Record, height: int, width: int) -> NDArray[np.bool_]:
    """Return an annotation's mask [height, width] from its polygons or its run lengths."""
    outline = annotation["segmentation"]
    if isinstance(outline, list):
        outline = rle.merge(rle.frPyObjects(outline, height, width)) if outline else None
    elif isinstance(outline["counts"], list):
        outline = rle.frPyObjects(outline, height, width)
    if outline is None:
        return np.zeros((height, width), dtype=np.bool_)
    return np.asarray(rle.decode(outline), dtype=np.bool_)


def polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Trace a mask as COCO polygons [x, y, x, y, ...]; a part with a hole is cut in two there, as polygons have none."""
    large = np.repeat(np.repeat(mask.astype(np.uint8), ZOOM, axis=0), ZOOM, axis=1)
    contours, hierarchy = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for contour, (_, _, _, parent) in zip(contours, hierarchy[0] if len(contours) else (), strict=True):
        if parent >= 0:
            x, _, width, _ = cv2.boundingRect(contour)
            cut = np.arange(mask.shape[1]) < (x + width // 2) // ZOOM
            return polygons(mask & cut) + polygons(mask & ~cut)
    return [((contour.reshape(-1) + 0.5) / ZOOM).tolist() for contour in contours]
