"""A user's boxes and outlines, in COCO's JSON or in VOC's XML, as exporters write them."""

import json
import math
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from pycocotools import mask as rle

from core import bounds
from core.errors import InputError
from core.files import write_json
from transfer.datasets import Counts, files, own, voc
from transfer.datasets.own import Made, Photo, Said, Turns, place, safe_name

Record = dict[str, Any]
SLACK = 1.0  # pixels by which a box may leave its image without a word

# --- COCO's JSON


def coco_files(folder: Path) -> dict[str, list[Path]]:
    """Return the COCO files of a folder by split (empty: of all images); other JSON files are left alone."""
    found = [
        path
        for path in files.walk(folder)
        if path.suffix.lower() == ".json" and len(path.relative_to(folder).parts) < 4
    ]
    instances = [path for path in found if path.name.startswith("instances_")]
    splits: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(instances or found):
        if instances or _is_coco(path):
            near = own.split_named(path.stem) or own.split_named(path.parent.name)
            splits[near].append(path)
    return dict(splits)


def _is_coco(path: Path) -> bool:
    with open(path, "rb") as file:
        text = file.read()
    return b'"images"' in text and b'"annotations"' in text and b'"categories"' in text


class Parsed(NamedTuple):
    """The lists of one COCO file."""

    source: Path
    images: list[Record]
    annotations: list[Record]
    categories: list[Record]


def _parse(source: Path) -> Parsed:
    try:
        content = json.loads(own.read_text(source))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source} is truncated or not JSON ({error}); export it again") from error
    lists = []
    for key in Parsed._fields[1:]:
        part = content.get(key) if isinstance(content, dict) else None
        if not isinstance(part, list) or not all(isinstance(record, dict) for record in part):
            raise InputError(f"{source} has no list '{key}' of records; it is not a COCO instances file")
        lists.append(part)
    return Parsed(source, *lists)


def write_coco(root: Path, folder: Path, said: Said) -> Made:
    """Write the COCO files of ``root`` in canonical form."""
    found = {split: [_parse(path) for path in paths] for split, paths in coco_files(root).items()}
    every = [one for parts in found.values() for one in parts]
    classes = _classes(every)
    reader = _Reader(root, {name: number for number, name in enumerate(classes, start=1)}, said)
    if all(annotation.get("iscrowd") for one in every for annotation in one.annotations):
        said.tell("all objects are marked as crowds, as some exporters do with run lengths: they are taken as objects")
        reader.crowds = False
    splits = own.settle_splits(found, said)
    if "train" not in splits or "val" not in splits:
        splits = _split_up([one for parts in (splits or found).values() for one in parts], reader, said)
    counts: Counts = {}
    paths: dict[str, list[Path]] = {}
    for split in ("train", "val"):
        images, annotations = reader.read(splits[split])
        paths[split] = [one.path for _, (one, _) in images]
        for record, (one, way) in images:
            place(one, folder / split / record["file_name"], way)
        (folder / split).mkdir(parents=True, exist_ok=True)
        if not images:
            raise said.none_left(splits[split][0].source, f"image in {root}")
        content = {
            "info": {"description": f"{root.name}, {split}"},
            "images": [record for record, _ in images],
            "annotations": annotations,
            "categories": [{"id": number, "name": name} for number, name in enumerate(classes, start=1)],
        }
        (folder / "annotations").mkdir(exist_ok=True)
        write_json(folder / "annotations" / f"instances_{split}.json", content)
        counts[split] = {"images": len(images), "objects": len(annotations), "classes": len(classes)}
        if not any(not annotation["iscrowd"] for annotation in annotations):
            if split == "train":
                raise InputError(f"{splits[split][0].source} has no object to train on; annotate some")
            said.tell("'val' has no object to find: AP has no value")
    own.say_both(said, paths["train"], paths["val"])
    return Made(classes, counts, reader.without_outline == 0, reader.runs)


def _split_up(files: Sequence[Parsed], reader: "_Reader", said: Said) -> dict[str, list[Parsed]]:
    """Cut what has no validation split in two."""
    names = {str(image.get("file_name")) for one in files for image in one.images if reader.find(one.source, image)}
    held = own.held_out(sorted(names))
    own.say_split(said, len(held), len(names))

    def part(one: Parsed, chosen: bool) -> Parsed:
        images = [image for image in one.images if (str(image.get("file_name")) in held) is chosen]
        keys = {_key(image.get("id")) for image in one.images} - {_key(image.get("id")) for image in images}
        annotations = [a for a in one.annotations if _key(a.get("image_id")) not in keys]
        return one._replace(images=images, annotations=annotations)

    return {split: [part(one, split == "val") for one in files] for split in ("train", "val")}


def _key(value: Any) -> str:
    """Return an id as text: exporters write the same id as a number here and as text there."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _classes(every: Sequence[Parsed]) -> list[str]:
    """Return the classes of all files, in the order of the first; refuse two of one name that are both used."""
    names: dict[str, None] = {}
    parents = {str(c.get("supercategory")) for one in every for c in one.categories}
    used_names = set()
    for one in every:
        used = {_key(annotation.get("category_id")) for annotation in one.annotations}
        own_names: dict[str, str] = {}
        for category in one.categories:
            key, name = _key(category.get("id")), category.get("name")
            if "id" not in category or not isinstance(name, str) or not name.strip():
                raise InputError(f"{one.source}: the category {category!r} needs an id and a name; repair it")
            if key in own_names and own_names[key] != name:
                raise InputError(
                    f"{one.source}: the category id {key} is both {own_names[key]!r} and {name!r}; repair it"
                )
            twins = [
                other for other, said in own_names.items() if said == name and other != key and {other, key} <= used
            ]
            if twins:
                raise InputError(
                    f"{one.source}: the categories {twins[0]} and {key} are both called {name!r}; rename one"
                )
            own_names[key] = name
            names.setdefault(name)
            used_names |= {name} if key in used else set()
    # Roboflow writes the project's name as a category above the others
    kept = [name for name in names if name in used_names or name not in parents]
    if not kept:
        raise InputError(f"{every[0].source} lists no categories; export it again")
    return kept


class _Reader:
    """Reads the records of one set; ids are numbered anew, over all splits."""

    def __init__(self, root: Path, classes: dict[str, int], said: Said) -> None:
        self.root, self.classes, self.said = root, classes, said
        self.without_outline, self.runs, self.crowds = 0, False, True
        self.turns = Turns()
        self._images, self._annotations = 0, 0
        self._below: dict[str, list[Path]] | None = None

    def read(self, files: Sequence[Parsed]) -> tuple[list[tuple[Record, tuple[Photo, str]]], list[Record]]:
        """Return the images, each with its file and which way up it is, and the annotations, of a split."""
        images: list[tuple[Record, tuple[Photo, str]]] = []
        annotations: list[Record] = []
        for one in files:
            places = self._read_images(one)
            images += places.values()
            names = {_key(category["id"]): category["name"] for category in one.categories}
            self._refuse_other_units(one, {key: record for key, (record, _) in places.items()})
            listed = {_key(image.get("id")) for image in one.images}
            for number, annotation in enumerate(one.annotations):
                where = f"annotation {annotation.get('id', f'number {number}')} in {one.source}"
                image, name = _key(annotation.get("image_id")), names.get(_key(annotation.get("category_id")))
                if image not in listed:
                    self.said.bad(where, f"belongs to image {image}, which is not listed")
                elif name not in self.classes:
                    self.said.bad(where, f"has the unknown category {annotation.get('category_id')}")
                elif image in places and (record := self._annotation(annotation, where, places[image][0])) is not None:
                    self._annotations += 1
                    annotations.append({"id": self._annotations, "category_id": self.classes[name], **record})
        return images, annotations

    def _read_images(self, one: Parsed) -> dict[str, tuple[Record, tuple[Photo, str]]]:
        told: dict[str, tuple[str, tuple[int, int] | None]] = {}
        paths: dict[str, Path] = {}
        for image in one.images:
            key, name = _key(image.get("id")), image.get("file_name")
            if "id" not in image or not isinstance(name, str) or not name:
                raise InputError(f"{one.source}: the image {image!r:.80} needs an id and a file_name; repair it")
            if key in told:
                if told[key][0] != name:
                    raise InputError(f"{one.source}: the image id {key} is both {told[key][0]} and {name}; repair it")
                continue
            sides = (image.get("width"), image.get("height"))
            whole = all(isinstance(side, int | float) and side > 0 and side == int(side) for side in sides)
            told[key] = name, (int(sides[0]), int(sides[1])) if whole else None  # type: ignore[arg-type]
            if (path := self.find(one.source, image)) is None:
                self.said.note(f"images are listed in {one.source.name} but not there, and left out", name)
            else:
                paths[key] = path
        photos = own.take(paths, self.said, one.source.name)
        self.turns.learn((photo, told[key][1]) for key, photo in photos.items())
        found = {}
        for key, photo in photos.items():
            size = told[key][1]
            way = self.turns.of(photo, size, self.said)
            real = photo.displayed if way == "displayed" else photo.size
            if size is not None and size != real:
                self.said.bad(
                    f"image {key} ({photo.path})", f"is {real} pixels, {one.source.name} says {size} (width, height)"
                )
                continue
            self._images += 1
            record = {
                "id": self._images,
                "file_name": f"{safe_name(self._images)}.jpg",
                "width": real[0],
                "height": real[1],
            }
            found[key] = record, (photo, way)
        return found

    def find(self, source: Path, image: Record) -> Path | None:
        """Find an image by the name that a file gives: exporters write it from the root, from the file, or bare."""
        name = str(image.get("file_name")).replace("\\", "/")
        split = source.stem.removeprefix("instances_")
        for base in (
            source.parent,
            self.root,
            self.root / split,
            self.root / "images" / split,
            self.root / "images",
            self.root / "data",
        ):
            if (path := base / name).is_file():
                return path
        if self._below is None:
            self._below = defaultdict(list)
            for path in sorted(files.walk(self.root)):
                self._below[path.name.casefold()].append(path)
        bare = unquote(re.split(r"[/=]", name)[-1]).casefold()  # of a path, a URL, Label Studio's ?d=name
        there = self._below.get(bare, [])
        near = own.split_named(source.stem) or own.split_named(source.parent.name)
        there = [path for path in there if near and own.split_named(path.parent.name) == near] or there
        if len(there) > 1:
            raise InputError(
                f"{source}: the image {name} may be {there[0]} or {there[1]}; write the folder into its file_name"
            )
        return there[0] if there else None

    def _refuse_other_units(self, one: Parsed, images: dict[str, Record]) -> None:
        """Refuse boxes that are no (x, y, width, height) in pixels, all of them."""
        boxes = [
            (a["bbox"], images[image])
            for a in one.annotations
            if (image := _key(a.get("image_id"))) in images and isinstance(a.get("bbox"), list) and len(a["bbox"]) == 4
            if all(map(_is_number, a["bbox"]))
        ]
        numbers = [value for box, _ in boxes for value in box]
        corners = [
            x < right <= image["width"] + SLACK and y < bottom <= image["height"] + SLACK
            for (x, y, right, bottom), image in boxes
        ]
        beyond = sum(x + w > i["width"] + SLACK or y + h > i["height"] + SLACK for (x, y, w, h), i in boxes)
        if all(corners) and 4 * beyond > len(boxes):
            raise InputError(
                f"{one.source}: its boxes are two corners (x, y, x, y), COCO's are (x, y, width, height); subtract the first "
                "corner from the second"
            )
        if len(numbers) > 4 and max(map(abs, numbers)) <= 1.0 and any(value != int(value) for value in numbers):
            raise InputError(
                f"{one.source}: its boxes are shares of the image (0 to 1), COCO's are pixels; multiply x and width by the "
                "image's width, y and height by its height"
            )

    def _annotation(self, annotation: Record, where: str, image: Record) -> Record | None:
        """Return an annotation in canonical form, without its id and class; None when it is bad and left out."""
        width, height = image["width"], image["height"]
        try:
            outline = _outline(annotation.get("segmentation"), height, width)
            box = _box(annotation.get("bbox"), outline, width, height)
            _meet(outline, box)
        except _Bad as error:
            self.said.bad(where, str(error))
            return None
        if (given := annotation.get("bbox")) and any(abs(a - b) > SLACK for a, b in zip(given, box, strict=True)):
            self.said.note("boxes leave their image and are cut at its edge", where)
        crowd = self.crowds and bool(annotation.get("iscrowd"))
        if not crowd and annotation.get("ignore"):
            crowd = True
            self.said.note("objects marked 'ignore' are crowds: not trained on, not counted", where)
        if outline is None and not crowd:
            self.without_outline += 1
            self.said.note("objects are without an outline: for boxes only", where)
        self.runs = self.runs or (isinstance(outline, dict) and not crowd)
        area = annotation.get("area")
        if area is None or not _is_number(area) or not _is_area(area, box):
            self.said.note("areas are missing or no pixels, and computed", where)
            area = _area(outline, box, height, width)
        record = {"image_id": image["id"], "bbox": box, "area": area, "iscrowd": int(crowd)}
        return record if outline is None else {**record, "segmentation": outline}


class _Bad(ValueError):
    """An annotation that cannot be used; the message says what of it."""


def _box(given: Any, outline: Any, width: int, height: int) -> list[float]:
    """Return [x, y, width, height] inside the image, from the outline where no box is given."""
    if given is None and outline is not None:
        given = rle.toBbox(_runs(outline, height, width)).tolist()
    if not (isinstance(given, list) and len(given) == 4 and all(_is_number(value) for value in given)):
        raise _Bad(f"has the box {given}, not four numbers (x, y, width, height)")
    x, y, w, h = given
    if w <= 0 or h <= 0:
        raise _Bad(f"has the box {given}, whose width or height is not above zero")
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if left >= right or top >= bottom:
        raise _Bad(f"has the box {given}, which lies outside its image of {width} x {height}")
    inside = (x, y, x + w, y + h) == (left, top, right, bottom)
    return list(given) if inside else [left, top, right - left, bottom - top]


def _outline(given: Any, height: int, width: int) -> Any:
    """Return polygons or compressed run lengths; None where there is no outline."""
    if isinstance(given, dict):
        if list(given.get("size") or []) != [height, width]:
            raise _Bad(
                f"has run lengths of the size {given.get('size')}, its image is [{height}, {width}] (height, width)"
            )
        counts = given.get("counts")
        listed = _unpacked(counts) if isinstance(counts, str | bytes) else counts
        if not isinstance(listed, list) or not all(isinstance(n, int) and n >= 0 for n in listed):
            raise _Bad("has run lengths that are no numbers")
        if sum(listed) != height * width:
            raise _Bad(f"has run lengths of {sum(listed)} pixels, its image has {height * width}")
        packed = rle.frPyObjects({"size": [height, width], "counts": listed}, height, width)
        if not rle.area(packed):
            return None
        return {"size": [height, width], "counts": packed["counts"].decode()}
    parts = [part for part in given if part != []] if isinstance(given, list) else []
    parts = [parts] if parts and all(_is_number(value) for value in parts) else parts
    whole = [part for part in parts if isinstance(part, list) and len(part) >= 6 and not len(part) % 2]
    whole = [part for part in whole if all(_is_number(value) for value in part)]
    if parts and not whole:
        raise _Bad("has an outline that is neither polygons of three corners or more nor run lengths")
    return whole or None


def _meet(outline: Any, box: Sequence[float]) -> None:
    """Raise _Bad for polygons that lie outside their box, or are shares of the image."""
    if not isinstance(outline, list):
        return
    across = [value for part in outline for value in part[::2]]
    down = [value for part in outline for value in part[1::2]]
    left, top, right, bottom = min(across), min(down), max(across), max(down)
    x, y, w, h = box
    if right <= 1 and bottom <= 1 and w * h > 4:
        raise _Bad("has an outline in shares of the image (0 to 1), COCO's are pixels")
    if left > x + w + SLACK or right < x - SLACK or top > y + h + SLACK or bottom < y - SLACK:
        raise _Bad(f"has an outline from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), outside its box {list(box)}")


def _unpacked(counts: str | bytes) -> list[int]:
    """Return the run lengths that COCO packs into text: 5 bits a character, each from the fourth on as a difference."""
    data = counts.encode() if isinstance(counts, str) else counts
    found: list[int] = []
    place, value, shift = 0, 0, 0
    for place in data:
        byte = place - 48
        if not 0 <= byte < 64:
            raise _Bad("has run lengths that are damaged")
        value |= (byte & 31) << shift
        shift += 5
        if not byte & 32:
            value -= (1 << shift) if byte & 16 else 0
            found.append(value + (found[-2] if len(found) > 2 else 0))
            value, shift = 0, 0
    return found


def _runs(outline: Any, height: int, width: int) -> Any:
    return rle.merge(rle.frPyObjects(outline, height, width)) if isinstance(outline, list) else outline


def _area(outline: Any, box: Sequence[float], height: int, width: int) -> float:
    if outline is not None and (area := float(rle.area(_runs(outline, height, width)))) > 0:
        return area
    return float(box[2] * box[3])


def _is_area(area: float, box: Sequence[float]) -> bool:
    """Tell whether an area can be one of pixels inside a box: a share of the image is below one."""
    of_box = box[2] * box[3]
    return 0 < area <= 1.05 * of_box + 1 and not (area < 1 and of_box > 4)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 2**31
    )


# --- VOC's XML


def xml_files(folder: Path) -> dict[str, Path]:
    """Return the XML annotations of a folder by stem."""
    found = [
        path for path in files.walk(folder) if path.suffix.lower() == ".xml" and len(path.relative_to(folder).parts) < 4
    ]
    return {path.stem: path for path in sorted(found)}


LISTED = re.compile(r"(?P<name>.*?)(?:\s+(?:-1|0|1))?")


def read_list(path: Path, known: Sequence[str] | dict[str, Path]) -> list[str]:
    """Return the names of an ImageSets list: blank lines, endings, spaces in names and columns of -1, 0 and 1 are all seen."""
    names = []
    for line in filter(None, map(str.strip, own.read_text(path).splitlines())):
        listed = LISTED.fullmatch(line)
        assert listed is not None
        candidates = (line, listed["name"], Path(line).stem, Path(listed["name"]).stem)
        names.append(next((name for name in candidates if name in known), listed["name"]))
    return list(dict.fromkeys(names))


def voc_splits(root: Path, kind: str, known: dict[str, Path], said: Said) -> dict[str, list[str]]:
    """Return the image names of train and val: from lists, from folders called so, or by a split made here."""
    lists = {path.stem: path for path in (root / "ImageSets" / kind).glob("*.txt")}
    named = [name for name in ("train", "val", "test") if name in lists]
    found: dict[str, list[str]] = {name: read_list(lists[name], known) for name in named}
    if "trainval" in lists and "train" not in found:
        found["train"] = [name for name in read_list(lists["trainval"], known) if name not in set(found.get("val", ()))]
    if not found:
        by_folder: dict[str, list[str]] = defaultdict(list)
        for name, path in known.items():
            parts = [own.split_named(part) for part in path.relative_to(root).parts[:-1]]
            by_folder[next((part for part in parts if part), "")].append(name)
        found = {split: names for split, names in by_folder.items() if split}
    splits = own.settle_splits(found, said)
    if "train" in splits and "val" in splits:
        own.say_both(said, splits["train"], splits["val"])
        return splits
    names = [name for part in splits.values() for name in part] or sorted(known)
    held = own.held_out(names)
    own.say_split(said, len(held), len(names))
    return {"train": [name for name in names if name not in held], "val": [name for name in names if name in held]}


class Object(NamedTuple):
    """An object of an XML file: its class, whether it is marked as difficult, and its corners, from 1, inclusive."""

    name: str
    difficult: bool
    corners: tuple[int, int, int, int]


def write_voc(root: Path, folder: Path, said: Said) -> Made:
    """Write VOC annotations in canonical form."""
    records, images = xml_files(root), own.images_below(root / "JPEGImages" if (root / "JPEGImages").is_dir() else root)
    splits = voc_splits(root, "Main", {name: images.get(name, path) for name, path in records.items()}, said)
    parsed = {name: _read_xml(records[name]) for part in splits.values() for name in part if name in records}
    paths = {}
    for name in (name for part in splits.values() for name in part):
        if name in images:
            paths[name] = images[name]
        else:
            said.note("images are listed but not there, and left out", name)
        if name not in records:
            said.note("images have no XML file and are taken as without objects", name)
    photos = own.take(paths, said, f"{root.name} (boxes)")
    sizes = {name: _told_size(parsed[name]) if name in parsed else None for name in photos}
    turns = Turns()
    turns.learn((photo, sizes[name]) for name, photo in photos.items())
    objects: dict[str, list[Object]] = {}
    placed: dict[str, tuple[Photo, str]] = {}
    for name, photo in photos.items():
        way = turns.of(photo, sizes[name], said)
        real = photo.displayed if way == "displayed" else photo.size
        if sizes[name] not in (None, real):
            said.bad(f"{records[name]}", f"says {sizes[name]} pixels, {photo.path.name} has {real} (width, height)")
            continue
        placed[name] = photo, way
        objects[name] = _objects(records[name], parsed[name], real, said) if name in parsed else []
    used = {one.name for name in objects for one in objects[name]}
    if not used:
        raise InputError(f"{root} has no object in its XML files; annotate some")
    classes = list(voc.CLASSES) if used <= set(voc.CLASSES) else sorted(used)
    return Made(classes, _write_voc(folder, splits, placed, objects, said))


def _read_xml(path: Path) -> ET.Element:
    try:
        return bounds.xml(own.read_text(path).strip(), path)
    except ET.ParseError as error:
        raise InputError(
            f"{path}, line {error.position[0]}, is not XML ({error}); repair it (& is written &amp;)"
        ) from error


def _told_size(record: ET.Element) -> tuple[int, int] | None:
    try:
        sides = (float(record.findtext("size/width", "")), float(record.findtext("size/height", "")))
    except ValueError:
        return None
    return (int(sides[0]), int(sides[1])) if min(sides) > 0 else None


YES, NO = ("1", "true", "yes"), ("", "0", "false", "no", "unspecified", "none")


def _objects(path: Path, record: ET.Element, size: tuple[int, int], said: Said) -> list[Object]:
    found = []
    for number, item in enumerate(record.findall("object"), start=1):
        where, name = f"object {number} of {path}", (item.findtext("name") or "").strip()
        try:
            x0, y0, x1, y1 = (
                float(item.findtext(f"bndbox/{corner}", "")) for corner in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError:
            x0 = math.nan
        if not name or not all(map(math.isfinite, (x0, y0, x1, y1) if x0 == x0 else (x0,))):
            said.bad(where, "needs a name and a bndbox of four numbers")
            continue
        corners = [max(1, round(x0)), max(1, round(y0)), min(size[0], round(x1)), min(size[1], round(y1))]
        if x0 > x1 or y0 > y1 or corners[0] > corners[2] or corners[1] > corners[3]:
            said.bad(
                where,
                f"has the bndbox ({x0:g}, {y0:g}, {x1:g}, {y1:g}), which is empty or outside {size[0]} x {size[1]} pixels",
            )
            continue
        if max(1 - x0, 1 - y0, x1 - size[0], y1 - size[1]) > SLACK:
            said.note("boxes leave their image and are cut at its edge", where)
        word = (item.findtext("difficult") or "").strip().lower()
        if word not in YES + NO:
            said.bad(where, f"has difficult = {word!r}, neither 0 nor 1")
            continue
        found.append(Object(name, word in YES, (corners[0], corners[1], corners[2], corners[3])))
    return found


def _write_voc(
    folder: Path,
    splits: dict[str, list[str]],
    placed: dict[str, tuple[Photo, str]],
    objects: dict[str, list[Object]],
    said: Said,
) -> Counts:
    voc.make_folders(folder)
    counts: Counts = {}
    listed: dict[str, list[str]] = {}
    number = 0
    for split in ("train", "val"):
        names = [name for name in splits[split] if name in placed]
        if not names:
            raise said.none_left(f"'{split}'", "image")
        listed[split] = []
        for name in names:
            number += 1
            photo, way = placed[name]
            new = safe_name(number)
            place(photo, folder / "JPEGImages" / f"{new}.jpg", way)
            width, height = photo.displayed if way == "displayed" else photo.size
            boxes = [
                voc.Box(one.name, one.corners[0] - 1, one.corners[1] - 1, *one.corners[2:]) for one in objects[name]
            ]
            hard = [one.difficult for one in objects[name]]
            voc.write_boxes(
                folder / "Annotations" / f"{safe_name(number)}.xml",
                f"{safe_name(number)}.jpg",
                height,
                width,
                boxes,
                hard,
            )
            listed[split].append(safe_name(number))
        counts[split] = {"images": len(names), "objects": sum(len(objects[name]) for name in names)}
    voc.write_lists(folder, listed["train"], listed["val"])
    return counts
