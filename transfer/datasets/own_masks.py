"""A user's label maps and class folders."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core import bounds
from core.decoding import SUFFIXES
from core.errors import InputError
from core.files import FileError
from transfer.datasets import Counts, files, own, voc
from transfer.datasets.own import Made, Photo, Said, Turns, place, safe_name
from transfer.datasets.own_boxes import voc_splits, xml_files

VOID = voc.VOID
IMAGES, MAPS = (
    ("JPEGImages", "images", "imgs", "img_dir"),
    ("SegmentationClassAug", "SegmentationClass", "SegmentationClassPNG", "masks", "labels", "annotations", "ann_dir"),
)
LISTS = ("labelmap.txt", "class_names.txt", "classes.txt", "labels.txt")  # CVAT, labelme and others
CONVERT = "write the index of its class into each pixel (0 is background, 255 is ignored), as a gray or palette PNG"
IGNORED = ("__ignore__", "_ignore_", "void")
Colour = tuple[int, int, int]
MOST_GUESSED = 20  # classes without a list of names, beyond the number of values seen


def label_maps(folder: Path) -> dict[str, Path]:
    """Return the label maps of a folder by the stem of their image; empty when it has none."""
    pair = _folders(folder)
    return (
        {}
        if pair is None
        else {name: path for name, path in own.images_below(pair[1]).items() if path.suffix.lower() == ".png"}
    )


def _folders(root: Path) -> tuple[Path, Path] | None:
    """Return the folder of images and that of label maps."""
    images = next((root / name for name in IMAGES if (root / name).is_dir()), None)
    maps = [
        root / name
        for name in MAPS
        if (root / name).is_dir() and any(p.suffix.lower() == ".png" for p in files.walk(root / name))
    ]
    return (images, maps[0]) if images is not None and maps else None


def write_masks(root: Path, folder: Path, said: Said) -> Made:
    """Write label maps in canonical form: index PNGs, 0 is the first class, 255 is ignored."""
    pair = _folders(root)
    assert pair is not None, "there are label maps"
    images, maps = own.images_below(pair[0]), label_maps(root)
    known = {name: images[name] for name in maps if name in images}
    if not known:
        raise InputError(f"no label map in {pair[1]} is named like an image in {pair[0]}; give both the same name")
    splits = voc_splits(root, "Segmentation", known, said)
    names = [name for part in splits.values() for name in part]
    for name in names:
        if name not in images or name not in maps:
            said.note("images are listed but have no file or no label map, and are left out", name)
    photos = own.take({name: images[name] for name in names if name in known}, said, f"{root.name} (label maps)")
    listed, colours = _listed(root)
    labels = {name: _read(maps[name], colours) for name in photos}
    turns = Turns()
    turns.learn((photo, _size(labels[name].values)) for name, photo in photos.items())
    placed: dict[str, tuple[Photo, str]] = {}
    for name, photo in photos.items():
        size = _size(labels[name].values)
        way = turns.of(photo, size, said)
        if size != (real := photo.displayed if way == "displayed" else photo.size):
            said.bad(
                maps[name],
                f"is {size} pixels, its image {photo.path.name} is {real} (width, height)",
                "export it in the image's size",
            )
            continue
        placed[name] = photo, way
    classes = _classes(root, {maps[name]: labels[name] for name in placed}, listed, said)
    return Made(classes, _write(folder, splits, placed, labels, said))


class _Map:
    """A label map as it is in its file."""

    def __init__(self, values: NDArray[np.uint8], palette: list[int] | None) -> None:
        self.values, self.palette = values, palette or []  # written to its last colour, and indices may lie beyond
        self.seen = frozenset(np.unique(values).tolist())

    def colours(self) -> dict[int, Colour]:
        """Return the colours of the indices that occur, of a palette image."""
        return {index: self._colour(index) for index in self.seen - {VOID} if 3 * index < len(self.palette)}

    def void(self) -> dict[Colour, int]:
        """Return the colour of what is ignored, if it occurs and a palette gives it one."""
        return {self._colour(VOID): VOID} if len(self.palette) > 3 * VOID and VOID in self.seen else {}

    def _colour(self, index: int) -> Colour:
        red, green, blue = self.palette[3 * index : 3 * index + 3]
        return red, green, blue


def _read(path: Path, colours: dict[Colour, int]) -> _Map:
    try:
        with bounds.image(path, ("PNG",)) as image:
            image.load()
            if image.mode in ("RGB", "RGBA") and colours:
                return _Map(_by_colour(np.asarray(image.convert("RGB")), colours, path), None)
            if image.mode not in ("L", "P", "1"):
                raise InputError(f"{path} is a PNG of mode {image.mode}, not of class indices; {CONVERT}")
            found = _Map(np.asarray(image).astype(np.uint8), image.getpalette() if image.mode == "P" else None)
            if any(colour in colours for colour in found.colours().values()):  # else the palette is decoration
                indices = _by_colour(np.asarray(image.convert("RGB")), {**found.void(), **colours}, path)
                return _Map(indices, None)
            return found
    except FileError as error:
        raise InputError(
            f"{path} is truncated or no PNG ({error.__cause__ or error}); copy or export it again"
        ) from error


def _by_colour(pixels: NDArray[np.uint8], colours: dict[Colour, int], path: Path) -> NDArray[np.uint8]:
    """Return the indices [height, width] of the colours [height, width, 3]; raise InputError for one that is not listed."""
    seen, place_ = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    every: list[Colour] = [(int(red), int(green), int(blue)) for red, green, blue in seen]
    if unknown := [colour for colour in every if colour not in colours]:
        raise InputError(f"{path} has the colour {unknown[0]}, which the list of classes does not name; add it there")
    return np.array([colours[colour] for colour in every], np.uint8)[place_.reshape(pixels.shape[:2])]


def _size(values: NDArray[np.uint8]) -> tuple[int, int]:
    return values.shape[1], values.shape[0]


def _classes(root: Path, labels: dict[Path, _Map], listed: list[str], said: Said) -> list[str]:
    """Return the classes; refuse values that are no indices, and palettes by which one index means several classes."""
    if not labels:
        raise said.none_left(root, "label map")
    every = frozenset().union(*(one.seen for one in labels.values()))
    first = next(iter(labels))
    if every <= {0, VOID} and VOID in every:
        raise InputError(
            f"{first} and all other label maps hold 0 and 255 only, and 255 is ignored in training and measuring; {CONVERT}"
        )
    _same_palettes(labels)
    names = listed or _voc_names(root, every, labels)
    known = every - {VOID}
    if names is None:
        names = ["background", *(f"class {index}" for index in range(1, max(known, default=0) + 1))]
        if len(names) > 2 * len(known) + MOST_GUESSED:
            path = next(path for path, one in labels.items() if max(known) in one.seen)
            raise InputError(
                f"{path} holds the value {max(known)}, but there are {len(known)} values in all: colours turned into gray? "
                f"{CONVERT}, or name the classes in classes.txt, one a line"
            )
        said.tell(
            f"the classes 0 to {len(names) - 1}, of which {len(known)} occur, have no names (classes.txt, one a line, gives them)"
        )
    if beyond := sorted(known - set(range(len(names)))):
        path = next(path for path, one in labels.items() if beyond[0] in one.seen)
        raise InputError(
            f"{path} holds the value {beyond[0]}; the classes are 0 to {len(names) - 1} ({', '.join(names[:3])}, ...); {CONVERT}"
        )
    if len(names) < 2:
        raise InputError(f"{root} has one class only, so everything is right; {CONVERT}")
    return names


def _listed(root: Path) -> tuple[list[str], dict[Colour, int]]:
    """Return the classes of a list in the folder, and the index of each colour in it.

    CVAT's lines are ``name:red,green,blue:parts:actions``.
    """
    names: list[str] = []
    colours: dict[Colour, int] = {}
    path = next((root / name for name in LISTS if (root / name).is_file()), None)
    lines = own.read_text(path).splitlines() if path else []
    for line in filter(None, (line.partition("#")[0].strip() for line in lines)):
        name, colour, *_ = (*(part.strip() for part in line.split(":")), "")
        index = VOID if name in IGNORED else len(names)
        names += [] if name in IGNORED else [name]
        if (numbers := colour.split(","))[2:] and all(number.strip().isdecimal() for number in numbers):
            colours[int(numbers[0]), int(numbers[1]), int(numbers[2])] = index
    if len(set(names)) != len(names):
        raise InputError(f"{path} names a class twice; rename one")
    return names, colours


def _voc_names(root: Path, every: frozenset[int], labels: dict[Path, _Map]) -> list[str] | None:
    """Return VOC's names where the set is in its classes, by its XML files or by its palette."""
    named = {item.text for path in list(xml_files(root).values())[:200] for item in _tags(path)}
    colours = any(one.palette for one in labels.values())
    if max(every - {VOID}, default=0) > len(voc.CLASSES) and not named <= set(voc.CLASSES):
        return None
    if (named and named <= set(voc.CLASSES)) or (not named and colours and not _strange(labels)):
        return ["background", *voc.CLASSES]
    return None


def _tags(path: Path) -> list[ET.Element]:
    try:
        return list(bounds.xml(own.read_text(path).strip(), path).iterfind("object/name"))
    except (ET.ParseError, InputError):
        return []


def _strange(labels: dict[Path, _Map]) -> bool:
    table = voc.palette()
    return any(
        colour != tuple(table[3 * i : 3 * i + 3]) for one in labels.values() for i, colour in one.colours().items()
    )


def _same_palettes(labels: dict[Path, _Map]) -> None:
    """Refuse palettes in which one index has two colours: then the colours are the classes, not the indices."""
    known: dict[int, tuple[tuple[int, ...], Path]] = {}
    for path, one in labels.items():
        for index, colour in one.colours().items():
            before, where = known.setdefault(index, (colour, path))
            if before != colour:
                raise InputError(
                    f"{path} shows index {index} as {colour}, {where} as {before}: their palettes are in another order, so that "
                    f"an index is no class; {CONVERT}"
                )


def _write(
    folder: Path,
    splits: dict[str, list[str]],
    placed: dict[str, tuple[Photo, str]],
    labels: dict[str, _Map],
    said: Said,
) -> Counts:
    voc.make_folders(folder)
    counts: Counts = {}
    listed: dict[str, list[str]] = {}
    number = 0
    for split in ("train", "val"):
        listed[split] = []
        seen: set[int] = set()
        for name in (name for name in splits[split] if name in placed):
            number += 1
            place(*_at(placed[name], folder / "JPEGImages" / f"{safe_name(number)}.jpg"))
            own.index_map(labels[name].values).save(folder / "SegmentationClass" / f"{safe_name(number)}.png")
            seen |= labels[name].seen - {VOID}
            listed[split].append(safe_name(number))
        if not listed[split]:
            raise said.none_left(f"'{split}'", "image with a label map")
        counts[split] = {"images": len(listed[split]), "classes seen": len(seen)}
    voc.write_lists(folder, listed["train"], listed["val"])
    return counts


def _at(placed: tuple[Photo, str], target: Path) -> tuple[Photo, Path, str]:
    return placed[0], target, placed[1]


# --- class folders


def class_folders(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """Return images by split (empty: none is named) and class; empty when it is no set of class folders."""
    found: dict[str, dict[str, list[Path]]] = {}
    for top in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        split = own.split_named(top.name) if any(path.is_dir() for path in top.iterdir()) else ""
        for place_ in sorted(path for path in top.iterdir() if path.is_dir()) if split else [top]:
            images = sorted(path for path in files.walk(place_) if path.suffix.lower() in SUFFIXES)
            if images:
                found.setdefault(split, {})[place_.name] = images
    if all(own.split_named(name) for name in found.get("", {})):  # splits of something else
        found.pop("", None)
    return found if any(len(classes) > 1 for classes in found.values()) else {}


def write_classes(root: Path, folder: Path, said: Said) -> Made:
    """Write class folders in canonical form."""
    found = class_folders(root)
    splits = own.settle_splits(found, said)
    if "train" not in splits or "val" not in splits:
        whole = splits.get("train") or splits.get("val") or found[""]
        splits = {"train": {}, "val": {}}
        total = held_number = 0
        for name, paths in whole.items():
            held = own.held_out([path.name for path in paths])
            splits["val"][name] = [path for path in paths if path.name in held]
            splits["train"][name] = [path for path in paths if path.name not in held]
            total, held_number = total + len(paths), held_number + len(held)
        own.say_split(said, held_number, total)
    classes = sorted(splits["train"])
    if other := set(splits["train"]) ^ set(splits["val"]):
        raise InputError(f"{root}: only one of train and val has the class {min(other)}; both need the same classes")
    counts: Counts = {}
    for split, by_class in splits.items():
        number = 0
        for name, paths in by_class.items():
            for path in own.take({str(path): path for path in paths}, said, f"{split}/{name}").values():
                number += 1
                place(
                    path._replace(orientation=1, deep=False),
                    folder / split / name / f"{safe_name(number)}{path.path.suffix.lower()}",
                    "stored",
                )
        counts[split] = {"images": number, "classes": len(by_class)}
    return Made(classes, counts)
