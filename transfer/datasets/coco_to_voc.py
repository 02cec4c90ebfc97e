"""Rasterise COCO instances into a VOC-layout set of the 20 VOC classes, for segmentation and detection."""

import math
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np

from core.errors import InputError
from core.files import sha256
from core.meter import track
from transfer.datasets import Counts, coco, folders, voc
from transfer.datasets.images import require_image

VERSION = 1
RENAMED = {
    "airplane": "aeroplane", "motorcycle": "motorbike", "couch": "sofa", "potted plant": "pottedplant",
    "dining table": "diningtable", "tv": "tvmonitor",
}  # fmt: skip


def convert(source: Path, folder: Path) -> Counts:
    """Write the COCO folder ``source`` in VOC layout to ``folder``; its train split becomes ``train``, its val split ``val``.

    Every image is kept, also those without a VOC class (all background). Other classes are background, crowds of a VOC class
    are void, small objects lie over large ones. Nothing is done when ``folder`` was made from the same annotations.
    """
    names = {kind: [name for name in coco.splits(source) if name.startswith(kind)] for kind in ("train", "val")}
    for kind, found in names.items():
        if len(found) != 1:
            raise InputError(
                f"{source / 'annotations'} has {len(found)} files instances_{kind}*.json; exactly one is needed"
            )
    splits = {kind: coco.read(source, found[0]) for kind, found in names.items()}
    made_from = {"version": VERSION, **{kind: sha256(split.source) for kind, split in splits.items()}}
    folders.make_once(folder, made_from, lambda path: _write(path, splits))
    return voc.check(folder)


def _write(folder: Path, splits: dict[str, coco.Split]) -> None:
    voc.make_folders(folder)
    train, val = ([Path(image["file_name"]).stem for image in splits[kind].images] for kind in ("train", "val"))
    if len({*train, *val}) < len(train) + len(val):
        raise InputError(f"two images of {splits['train'].source.parent} have the same file name; rename one")
    for split in splits.values():
        _write_split(folder, split)
    voc.write_lists(folder, train, val)


def _write_split(folder: Path, split: coco.Split) -> None:
    names = {record["id"]: str(record["name"]) for record in split.categories}
    categories = {number: RENAMED.get(name, name) for number, name in names.items()}
    by_image: dict[int, list[coco.Record]] = defaultdict(list)
    for annotation in split.annotations:
        if categories[annotation["category_id"]] in voc.CLASSES:
            by_image[annotation["image_id"]].append(annotation)
    for image in track(split.images, f"rasterising {split.name}", len(split.images)):
        photo = split.folder / image["file_name"]
        require_image(photo, split.source.name)
        name, height, width = photo.stem, int(image["height"]), int(image["width"])
        shutil.copyfile(photo, folder / "JPEGImages" / f"{name}.jpg")
        annotations = by_image[image["id"]]
        labels = rasterise(annotations, categories, height, width)
        voc.write_labels(folder / "SegmentationClass" / f"{name}.png", labels)
        boxes = [
            _box(annotation, categories, height, width) for annotation in annotations if not annotation.get("iscrowd")
        ]
        filled = [box for box in boxes if box.left < box.right and box.top < box.bottom]
        voc.write_boxes(folder / "Annotations" / f"{name}.xml", f"{name}.jpg", height, width, filled)


def rasterise(annotations: list[coco.Record], categories: dict[int, str], height: int, width: int) -> voc.Labels:
    """Draw annotations of VOC classes as labels: crowds void, then objects from large to small, then void borders."""
    labels = np.zeros((height, width), dtype=np.uint8)
    instances = np.zeros((height, width), dtype=np.uint16)
    drawn = [(annotation, coco.decode(annotation, height, width)) for annotation in annotations]
    drawn.sort(key=lambda pair: (not pair[0].get("iscrowd"), -int(pair[1].sum()), pair[0]["id"]))
    for number, (annotation, mask) in enumerate(drawn, start=1):
        crowd = bool(annotation.get("iscrowd"))
        labels[mask] = voc.VOID if crowd else voc.CLASSES.index(categories[annotation["category_id"]]) + 1
        instances[mask] = number
    labels[voc.borders(instances)] = voc.VOID
    return labels


def _box(annotation: coco.Record, categories: dict[int, str], height: int, width: int) -> voc.Box:
    """Round a COCO box outwards to whole pixels inside the image."""
    x, y, w, h = annotation["bbox"]
    name = categories[annotation["category_id"]]
    if w <= 0 or h <= 0:
        return voc.Box(name, 0, 0, 0, 0)
    right, bottom = min(width, math.ceil(x + w)), min(height, math.ceil(y + h))
    return voc.Box(name, max(0, math.floor(x)), max(0, math.floor(y)), right, bottom)
