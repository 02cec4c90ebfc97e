"""The COCO layout: ``annotations/instances_SPLIT.json`` beside one image folder per split."""

import json
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from core import bounds
from core.errors import InputError
from core.files import temporary_folder
from core.meter import track
from transfer.datasets import Counts
from transfer.datasets.files import Faults, require_files, require_image, size

Record = dict[str, Any]
NEXT = "fetch it with: python tools/prepare_data.py coco ROOT, or link a copy: prepare_data.py link-coco SOURCE FOLDER"
KINDS = ("zero-area boxes", "boxes outside", "crowd-only images")
SLACK = 1.0  # pixels by which a published box may leave its image
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
    """Check a COCO folder: files, ids, image files and their sizes, boxes, outlines; return counts per split."""
    counts: Counts = {}
    for name in splits(root):
        split = read(root, name)
        _require_images(split)
        for image in track(split.images, f"checking {split.folder}", len(split.images)):
            path, told = split.folder / image["file_name"], (image["width"], image["height"])
            require_image(path, split.source.name)
            if (found := size(path)) != told:
                raise InputError(
                    f"{path} is {found} pixels, {split.source.name} says {told} (width, height); copy the right image"
                )
        counts[name] = {
            "images": len(split.images),
            "objects": len(split.annotations),
            "classes": len(split.categories),
            "crowds": sum(bool(annotation.get("iscrowd")) for annotation in split.annotations),
            **_faults(split),
        }
    return counts


def require(root: Path, names: Sequence[str] = ()) -> None:
    """Raise InputError unless the annotations of the splits (none: of all) can be read and their images are there."""
    known = splits(root)
    for name in names or known:
        if name not in known:
            raise InputError(f"no {root / 'annotations'}/instances_{name}.json; {NEXT}")
        _require_images(read(root, name))


def _require_images(split: Split) -> None:
    require_files(split.folder, (image["file_name"] for image in split.images), split.source.name)


def _faults(split: Split) -> dict[str, int]:
    """Count what training leaves out; raise InputError when it is more than a few."""
    faults = Faults(split.source, *KINDS)
    sides = {image["id"]: (image["width"], image["height"]) for image in split.images}
    usable: dict[Any, bool] = {}
    for annotation in split.annotations:
        (x, y, w, h), (width, height) = annotation["bbox"], sides[annotation["image_id"]]
        where = f"{annotation['bbox']} of annotation {annotation['id']}"
        if w <= 0 or h <= 0:
            faults.add("zero-area boxes", where)
        if x < -SLACK or y < -SLACK or x + w > width + SLACK or y + h > height + SLACK:
            faults.add("boxes outside", f"{where} in an image of {width} x {height}")
        image = annotation["image_id"]
        usable[image] = usable.get(image, False) or not annotation.get("iscrowd")
    for image, good in usable.items():
        if not good:
            faults.add("crowd-only images", f"image {image}")
    return faults.settled(len(split.annotations), len(split.annotations), len(usable))


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
        content = json.loads(bounds.regular(source, bounds.JSON_TEXT, "COCO's annotations"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
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
    for image in sides.values():
        if not isinstance(image["file_name"], str) or not all(_is_side(image[side]) for side in ("height", "width")):
            raise InputError(
                f"image {image['id']} in {split.source} needs a file_name, and height and width in pixels; repair it"
            )
    for annotation in split.annotations:
        where = f"annotation {annotation['id']} in {split.source}"
        if not all(isinstance(annotation[key], int | str) for key in ("image_id", "category_id")):
            raise InputError(f"{where} has an image_id or category_id that is no number; remove or repair it")
        if annotation["image_id"] not in sides:
            raise InputError(
                f"{where} belongs to image {annotation['image_id']}, which is not listed; remove or repair it"
            )
        if annotation["category_id"] not in categories:
            raise InputError(f"{where} has the unknown category {annotation['category_id']}; remove or repair it")
        if not _is_outline(annotation["segmentation"]):
            raise InputError(
                f"{where} has a segmentation that is neither polygons nor run lengths; remove or repair it"
            )
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
        if not isinstance(record["id"], int | str):
            raise InputError(f"{where} has the id {record['id']!r}; ids are numbers")
        if record["id"] in found:
            raise InputError(f"{where} repeats the id {record['id']}; ids must differ")
        found[record["id"]] = record
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _is_outline(value: Any) -> bool:
    """Tell whether this is a list of polygons of at least three corners, or run lengths; an empty list is no outline."""
    if isinstance(value, dict):
        return isinstance(value.get("counts"), list | str) and isinstance(value.get("size"), list)
    return isinstance(value, list) and all(
        isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0 for part in value
    )


def link(source: Path, target: Path, *, copy: bool = False) -> Counts:
    """Check the COCO folder ``source`` and place it at ``target`` as a symbolic link, or as a copy."""
    counts = check(source)
    if target.is_symlink() and not copy:
        target.unlink()  # a link is ours to replace
    elif target.exists():
        raise InputError(f"{target} exists; remove it or choose another place")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not copy:
            target.symlink_to(source.resolve(), target_is_directory=True)
            return counts
        with temporary_folder(target.parent, target.name) as place:
            shutil.copytree(source, place / "copy")
            (place / "copy").chmod(0o755)  # the source may be read-only
            (place / "copy").rename(target)
    except (OSError, shutil.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write {target} ({reason}); free some space or choose another place") from error
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
