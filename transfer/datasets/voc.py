"""The PASCAL VOC layout: ``JPEGImages``, ``Annotations``, ``SegmentationClass`` and ``ImageSets/{Main,Segmentation}``."""

import math
import os
import shutil
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core import bounds
from core.errors import InputError
from core.files import sha256, temporary_folder, write_atomic
from core.meter import track
from transfer.datasets import Counts, coco
from transfer.datasets.download import below, unpack
from transfer.datasets.files import Faults, make_once, require_files, require_image, size

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOID = 255
SPLITS = ("train", "val", "trainval", "test")
AUGMENTED = ("aug", "trainaug")  # lists whose masks are in SegmentationClassAug
SLACK = 1.0  # pixels by which a published box may leave its image
NEXT = "fetch VOC with: python tools/prepare_data.py voc ROOT, or make a set: prepare_data.py coco-to-voc COCO FOLDER"

Labels = NDArray[np.uint8]  # [height, width]: 0 background, 1 + class index, 255 void


class Box(NamedTuple):
    """An object's class name and box in pixels; right and bottom are exclusive."""

    name: str
    left: int
    top: int
    right: int
    bottom: int


def check(root: Path, classes: Sequence[str] = CLASSES) -> Counts:
    """Check a VOC folder: lists, images, XML boxes, palette PNGs; return counts per list."""
    if not root.is_dir():
        raise InputError(f"no folder {root}; {NEXT}")
    if not (root / "JPEGImages").is_dir():
        raise InputError(f"no folder {root / 'JPEGImages'}; {NEXT}")
    counts: Counts = {}
    for kind in ("Main", "Segmentation"):
        for path in (root / "ImageSets" / kind / f"{split}.txt" for split in (*SPLITS, *AUGMENTED)):
            if path.is_file():
                counts[f"{kind}/{path.stem}"] = _check_list(root, path, classes)
    if not counts:
        raise InputError(f"no {root / 'ImageSets'}/{{Main,Segmentation}}/{{{','.join(SPLITS)}}}.txt; {NEXT}")
    return counts


def require(root: Path, lists: Sequence[str] = ()) -> None:
    """Raise InputError unless all files of the lists (as ``Main/trainval``; none: of all) are there."""
    for folder in (root, root / "JPEGImages"):
        if not folder.is_dir():
            raise InputError(f"no folder {folder}; {NEXT}")
    every = [f"{kind}/{split}" for kind in ("Main", "Segmentation") for split in (*SPLITS, *AUGMENTED)]
    found = lists or [name for name in every if (root / "ImageSets" / f"{name}.txt").is_file()]
    if not found:
        raise InputError(f"no {root / 'ImageSets'}/{{Main,Segmentation}}/{{{','.join(SPLITS)}}}.txt; {NEXT}")
    for name in found:
        path = root / "ImageSets" / f"{name}.txt"
        names = read_list(path)
        labels = root / _labels_folder(path)
        if not labels.is_dir():
            raise InputError(f"no folder {labels} for {path}; {NEXT}")
        require_files(root / "JPEGImages", (f"{name}.jpg" for name in names), str(path))
        require_files(
            labels, (f"{name}{'.xml' if labels.name == 'Annotations' else '.png'}" for name in names), str(path)
        )


def read_list(path: Path) -> list[str]:
    """Return the image names of a list, one a line; raise InputError when there are none."""
    if not path.is_file():
        raise InputError(f"no list {path}; {NEXT}")
    names = [line.split()[0] for line in bounds.text(path, "a list", bounds.JSON_TEXT).splitlines() if line.strip()]
    if not names:
        raise InputError(f"{path} lists no images; make or unpack the set again")
    return names


def _labels_folder(path: Path) -> str:
    if path.parent.name == "Main":
        return "Annotations"
    return "SegmentationClassAug" if path.stem in AUGMENTED else "SegmentationClass"


def _check_list(root: Path, path: Path, classes: Sequence[str]) -> dict[str, int]:
    names = read_list(path)
    folder = root / _labels_folder(path)
    if folder.name != "Annotations":
        seen: set[int] = set()
        for name in track(names, f"checking {path}", len(names)):
            image = root / "JPEGImages" / f"{name}.jpg"
            require_image(image, str(path))
            seen |= _check_labels(folder / f"{name}.png", image, len(classes))
        return {"images": len(names), "classes seen": len(seen)}
    objects, faults = 0, Faults(path, "boxes outside", "wrong sizes")
    for name in track(names, f"checking {path}", len(names)):
        image = root / "JPEGImages" / f"{name}.jpg"
        require_image(image, str(path))
        objects += _check_boxes(folder / f"{name}.xml", image, classes, faults)
    return {"images": len(names), "objects": objects, **faults.settled(objects, len(names))}


def _check_labels(path: Path, image: Path, classes: int) -> set[int]:
    """Check a palette PNG against its image; return the classes it shows."""
    require_image(path, "an ImageSets/Segmentation list")
    with bounds.image(path, ("PNG",)) as labels, bounds.image(image) as photo:
        if labels.mode != "P":
            raise InputError(
                f"{path} is a PNG of mode {labels.mode}, not a palette PNG (P); convert it with the VOC colours"
            )
        if labels.size != photo.size:
            raise InputError(f"{path} is {labels.size}, its image {photo.size} pixels (width, height); make it again")
        values = np.unique(np.asarray(labels))
    bad = values[(values > classes) & (values != VOID)]
    if len(bad):
        raise InputError(f"{path} holds the value {bad[0]}; allowed are 0 to {classes} and {VOID} (void)")
    return set(values[(values > 0) & (values <= classes)].tolist())


def _check_boxes(path: Path, image: Path, classes: Sequence[str], faults: Faults) -> int:
    """Check an XML annotation against its image; return how many objects it has, and note boxes that leave the image."""
    if not path.is_file():
        raise InputError(f"{path} is missing but an ImageSets/Main list names it; copy it there or remove the line")
    try:
        record_of_image = bounds.xml(bounds.regular(path, bounds.TEXT, "an annotation"), path)
    except ET.ParseError as error:
        raise InputError(f"{path} is not XML ({error}); copy or make it again") from error
    objects = record_of_image.findall("object")
    width, height = size(image)
    told = tuple(record_of_image.findtext(f"size/{side}") for side in ("width", "height"))
    if None not in told and told != (str(width), str(height)):
        faults.add("wrong sizes", f"{path} says {' x '.join(map(str, told))}, {image.name} has {width} x {height}")
    for number, record in enumerate(objects):
        if record.findtext("name") not in classes:
            raise InputError(
                f"object {number} of {path} is a '{record.findtext('name')}'; classes are: {', '.join(classes)}"
            )
        try:
            xmin, ymin, xmax, ymax = (float(record.findtext(f"bndbox/{key}", "")) for key in _CORNERS)
        except ValueError as error:
            raise InputError(f"object {number} of {path} lacks a corner of its bndbox; repair or remove it") from error
        if not (xmin <= xmax and ymin <= ymax):
            raise InputError(f"object {number} of {path} has an empty bndbox; repair or remove it")
        if xmin < 1 - SLACK or ymin < 1 - SLACK or xmax > width + SLACK or ymax > height + SLACK:
            corners = ", ".join(f"{value:g}" for value in (xmin, ymin, xmax, ymax))
            faults.add("boxes outside", f"({corners}) of object {number} in {path}, whose image is {width} x {height}")
    return len(objects)


_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def palette() -> list[int]:
    """Return the VOC colour map as 256 x (red, green, blue): the bits of the index dealt out to the channels."""
    index = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.int64)
    for step in range(8):
        for channel in range(3):
            colours[:, channel] |= (index >> (3 * step + channel) & 1) << (7 - step)
    return colours.reshape(-1).tolist()


def write_labels(path: Path, labels: Labels, compress_level: int = 6) -> None:
    """Write labels as a palette PNG in the VOC colours."""
    image = Image.fromarray(labels)
    image.putpalette(palette())
    image.save(path, compress_level=compress_level)


def write_boxes(
    path: Path, image_name: str, height: int, width: int, boxes: Sequence[Box], difficult: Sequence[bool] = ()
) -> None:
    """Write an annotation XML; VOC counts pixels from 1, both corners inside. Objects are easy if nothing is said."""
    root = ET.Element("annotation")
    for tag, text in (("folder", "VOC"), ("filename", image_name), ("segmented", "1")):
        ET.SubElement(root, tag).text = text
    size = ET.SubElement(root, "size")
    for tag, value in (("width", width), ("height", height), ("depth", 3)):
        ET.SubElement(size, tag).text = str(value)
    for box, hard in zip(boxes, difficult or [False] * len(boxes), strict=True):
        record = ET.SubElement(root, "object")
        cut = box.left <= 0 or box.top <= 0 or box.right >= width or box.bottom >= height
        for tag, text in (
            ("name", box.name),
            ("pose", "Unspecified"),
            ("truncated", str(int(cut))),
            ("difficult", str(int(hard))),
        ):
            ET.SubElement(record, tag).text = text
        corners = ET.SubElement(record, "bndbox")
        for tag, value in zip(_CORNERS, (box.left + 1, box.top + 1, box.right, box.bottom), strict=True):
            ET.SubElement(corners, tag).text = str(value)
    ET.indent(root)
    path.write_bytes(ET.tostring(root) + b"\n")


def write_lists(root: Path, train: Sequence[str], val: Sequence[str]) -> None:
    """Write train, val and trainval lists of image names for detection and segmentation."""
    for kind in ("Main", "Segmentation"):
        (root / "ImageSets" / kind).mkdir(parents=True, exist_ok=True)
        for split, names in (("train", train), ("val", val), ("trainval", [*train, *val])):
            (root / "ImageSets" / kind / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


def make_folders(root: Path) -> None:
    """Create the folders that hold one file per image."""
    for name in ("JPEGImages", "Annotations", "SegmentationClass"):
        (root / name).mkdir(parents=True, exist_ok=True)


def borders(instances: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Mark the pixels beside a change of instance number, as VOC voids them: about 1/125 of the image side in all."""
    side = 2 * max(1, max(instances.shape) // 250) + 1
    square = np.ones((side, side), dtype=np.uint8)
    return np.asarray(cv2.dilate(instances, square) != cv2.erode(instances, square), dtype=np.bool_)


VERSION = 1
RENAMED = {
    "airplane": "aeroplane", "motorcycle": "motorbike", "couch": "sofa", "potted plant": "pottedplant",
    "dining table": "diningtable", "tv": "tvmonitor",
}  # fmt: skip


def from_coco(source: Path, folder: Path) -> Counts:
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
    _refuse_empty(splits["train"])
    made_from = {"version": VERSION, **{kind: sha256(split.source) for kind, split in splits.items()}}
    make_once(folder, made_from, lambda path: _write_set(path, splits))
    return check(folder)


def _refuse_empty(split: coco.Split) -> None:
    """Raise InputError for a set that would be all background."""
    names = {record["id"]: str(record["name"]) for record in split.categories}
    known = {number for number, name in names.items() if RENAMED.get(name, name) in CLASSES}
    if not any(annotation["category_id"] in known for annotation in split.annotations):
        raise InputError(
            f"{split.source} has no object of VOC's classes (it has {', '.join(sorted(names.values())[:5])}), so all would be "
            "background; train on it as it is with --data (docs/your-data.md)"
        )


def _write_set(folder: Path, splits: dict[str, coco.Split]) -> None:
    make_folders(folder)
    train, val = ([Path(image["file_name"]).stem for image in splits[kind].images] for kind in ("train", "val"))
    if len({*train, *val}) < len(train) + len(val):
        raise InputError(f"two images of {splits['train'].source.parent} have the same file name; rename one")
    for split in splits.values():
        _write_split(folder, split)
    write_lists(folder, train, val)


def _write_split(folder: Path, split: coco.Split) -> None:
    names = {record["id"]: str(record["name"]) for record in split.categories}
    categories = {number: RENAMED.get(name, name) for number, name in names.items()}
    by_image: dict[int, list[coco.Record]] = defaultdict(list)
    for annotation in split.annotations:
        if categories[annotation["category_id"]] in CLASSES:
            by_image[annotation["image_id"]].append(annotation)
    for image in track(split.images, f"rasterising {split.name}", len(split.images)):
        photo = split.folder / image["file_name"]
        require_image(photo, split.source.name)
        name, height, width = photo.stem, int(image["height"]), int(image["width"])
        shutil.copyfile(photo, folder / "JPEGImages" / f"{name}.jpg")
        annotations = by_image[image["id"]]
        labels = rasterise(annotations, categories, height, width)
        write_labels(folder / "SegmentationClass" / f"{name}.png", labels)
        boxes = [
            _box(annotation, categories, height, width) for annotation in annotations if not annotation.get("iscrowd")
        ]
        filled = [box for box in boxes if box.left < box.right and box.top < box.bottom]
        write_boxes(folder / "Annotations" / f"{name}.xml", f"{name}.jpg", height, width, filled)


def rasterise(annotations: list[coco.Record], categories: dict[int, str], height: int, width: int) -> Labels:
    """Draw annotations of VOC classes as labels: crowds void, then objects from large to small, then void borders."""
    labels = np.zeros((height, width), dtype=np.uint8)
    instances = np.zeros((height, width), dtype=np.uint16)
    drawn = [(annotation, coco.decode(annotation, height, width)) for annotation in annotations]
    drawn.sort(key=lambda pair: (not pair[0].get("iscrowd"), -int(pair[1].sum()), pair[0]["id"]))
    for number, (annotation, mask) in enumerate(drawn, start=1):
        crowd = bool(annotation.get("iscrowd"))
        labels[mask] = VOID if crowd else CLASSES.index(categories[annotation["category_id"]]) + 1
        instances[mask] = number
    labels[borders(instances)] = VOID
    return labels


def _box(annotation: coco.Record, categories: dict[int, str], height: int, width: int) -> Box:
    """Round a COCO box outwards to whole pixels inside the image."""
    x, y, w, h = annotation["bbox"]
    name = categories[annotation["category_id"]]
    if w <= 0 or h <= 0:
        return Box(name, 0, 0, 0, 0)
    right, bottom = min(width, math.ceil(x + w)), min(height, math.ceil(y + h))
    return Box(name, max(0, math.floor(x)), max(0, math.floor(y)), right, bottom)


AUG_FOLDER = "SegmentationClassAug"


def augment(root: Path, archive: Path) -> int:
    """Add the masks of SBD's archive to the VOC folder ``root``; return how many images ``aug`` lists."""
    lists = root / "ImageSets" / "Segmentation"
    train, val = (read_list(lists / f"{name}.txt") for name in ("train", "val"))
    try:
        extra = _write_masks(root, archive, train, val)
        write_atomic(lists / "aug.txt", "".join(f"{name}\n" for name in extra))
        write_atomic(lists / "trainaug.txt", "".join(f"{name}\n" for name in (*train, *extra)))
    except OSError as error:
        raise InputError(f"cannot write {root} ({error}); free some space or choose another folder") from error
    return len(extra)


def _write_masks(root: Path, archive: Path, train: list[str], val: list[str]) -> list[str]:
    """Make the folder of masks, whole or not at all; return the names of SBD's images outside VOC's lists."""
    with temporary_folder(root, AUG_FOLDER) as temporary:
        sbd, masks = temporary / "sbd", temporary / AUG_FOLDER
        unpack(archive, sbd, _select)
        named = [name for split in ("train", "val") for name in read_list(sbd / f"{split}.txt")]
        extra = sorted(set(named) - {*train, *val})
        masks.mkdir()
        for name in track(extra, "converting SBD masks", len(extra)):
            write_labels(masks / f"{name}.png", _read_mask(sbd / "cls" / f"{name}.mat"))
        for name in (*train, *val):
            shutil.copyfile(root / "SegmentationClass" / f"{name}.png", masks / f"{name}.png")
        shutil.rmtree(root / AUG_FOLDER, ignore_errors=True)
        os.sync()
        os.rename(masks, root / AUG_FOLDER)
    return extra


def _select(name: str) -> str | None:
    """Keep the class masks and the lists of ``benchmark_RELEASE/dataset``."""
    inside = below("benchmark_RELEASE/dataset/")(name)
    return inside if inside and (inside in ("train.txt", "val.txt") or inside.startswith("cls/")) else None


def _read_mask(path: Path) -> Labels:
    """Read the class map of an SBD file, uint8 [height, width]."""
    labels = bounds.mat(path, "GTcls", "Segmentation")
    if labels.ndim != 2 or labels.dtype != np.uint8 or labels.max() > len(CLASSES):
        raise InputError(f"{path.name} of SBD holds no map of the {len(CLASSES)} classes; download the archive again")
    return labels
