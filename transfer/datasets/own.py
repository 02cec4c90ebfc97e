"""A user's own images and annotations: recognise what exporters write, and make of it what the frameworks read without surprise.

``prepare`` writes a canonical set below ``datasets_root()/own`` (``files.make_once``: whole or not at all, again when a file of
the folder has changed): upright 8-bit images or links to them, and annotations that the trainers' readers take as they are.

- boxes and outlines in COCO's format: ``annotations/instances_{train,val}.json``, ``train``, ``val``
- boxes in VOC's: ``JPEGImages``, ``Annotations``, ``ImageSets/Main``
- label maps: ``JPEGImages``, ``SegmentationClass`` (index PNGs, 255 is ignored), ``ImageSets/Segmentation``
- class folders: ``train/<class>``, ``val/<class>``

What is harmless and clear is put right and said once (``notes``). What would train on something else than was meant is refused
with the file and the object; with ``skip_bad`` such images and objects are left out and said.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from core import bounds
from core.decoding import SUFFIXES, DamagedImage, decode, rgb
from core.errors import InputError
from core.files import FileError, datasets_root, write_json
from core.meter import track
from transfer.datasets import Counts, files

VERSION = 3  # raise it with every change of what is written
FACTS = "own.json"
HOLD_OUT = 0.2  # of the images, where there is no validation split
ORIENTATION = 0x112  # the EXIF tag
TURNED = frozenset({5, 6, 7, 8})  # orientations that swap width and height
WORDS = {"train": "train", "valid": "val", "validation": "val", "val": "val", "test": "test"}

BAD = "left out as bad"
Kind = Literal["boxes", "masks", "classes"]


@dataclass(frozen=True)
class Own:
    """A prepared set: its folder, layout (``coco``, ``voc``, ``masks``, ``classes``) and classes; ``split`` -> what -> how many.

    ``outlines`` tells whether every object has one, ``runs`` whether some are run lengths.
    """

    folder: str
    layout: str
    name: str
    classes: tuple[str, ...]
    counts: Counts
    notes: tuple[str, ...]
    outlines: bool = False
    runs: bool = False


class Said:
    """What was put right, by kind, with the first place; what is bad, refused or left out."""

    def __init__(self, skip_bad: bool) -> None:
        self.skip_bad = skip_bad
        self._kinds: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._told: list[str] = []

    def note(self, kind: str, where: object = "") -> None:
        """Note what was done; ``kind`` reads well after a number."""
        self._kinds[kind] += 1
        self._first.setdefault(kind, str(where))

    def tell(self, line: str) -> None:
        """Note something that concerns the whole set."""
        self._told.append(line)

    def bad(self, where: object, what: str, mend: str = "repair it") -> None:
        """Refuse an image or object, or leave it out if that was asked for."""
        if not self.skip_bad:
            raise InputError(f"{where} {what}; {mend}, or leave it out with --skip-bad")
        self.note(BAD, f"{where} {what}")

    def none_left(self, where: object, what: str) -> InputError:
        """Return the error of a split that has nothing left."""
        bad = (
            f"all {self._kinds[BAD]} are left out as bad, first {self._first[BAD]}; repair them"
            if BAD in self._kinds
            else ""
        )
        return InputError(f"{where}: no {what} is left; {bad or f'put each {what} where the list says'}")

    def lines(self) -> tuple[str, ...]:
        """Return one line a kind."""
        first = {kind: f", first {where}" if where else "" for kind, where in self._first.items()}
        return (*self._told, *(f"{count} {kind}{first[kind]}" for kind, count in self._kinds.items()))


# --- images


class Photo(NamedTuple):
    """An image file: its size as stored (width, height), its EXIF orientation, and whether it must be written anew."""

    path: Path
    size: tuple[int, int]
    orientation: int
    deep: bool

    @property
    def displayed(self) -> tuple[int, int]:
        """Return (width, height) as a viewer shows it."""
        return self.size[::-1] if self.orientation in TURNED else self.size


def photo(path: Path) -> Photo:
    """Read and decode an image file; raise DamagedImage when it is missing, truncated or no image."""
    try:
        data = bounds.regular(path, bounds.IMAGE, "an image")
        decode(data, path)
        with bounds.image(path) as image:
            orientation = int(image.getexif().get(ORIENTATION) or 1)
            deep = image.mode.startswith("I") or image.mode == "F"
            return Photo(path, image.size, orientation if orientation in range(2, 9) else 1, deep)
    except FileError as error:
        raise DamagedImage(f"{path} cannot be decoded ({error}); copy it again") from error


class Turns:
    """Find out in which way up annotations see images with an EXIF orientation: as stored, or as displayed.

    A quarter turn tells it by the size that the annotations say. A half turn or a mirror image does not: it follows the others.
    """

    def __init__(self) -> None:
        self.others: list[str] = []

    def learn(self, pairs: Iterable[tuple[Photo, tuple[int, int] | None]]) -> None:
        """See what images tell, with the sizes that annotations say, before asking for one of them."""
        clear = {self._clear(one, told) for one, told in pairs} | set(self.others)
        self.others = sorted(way for way in clear if way is not None)

    @staticmethod
    def _clear(one: Photo, told: tuple[int, int] | None) -> str | None:
        if one.orientation == 1 or one.size == one.displayed:
            return None
        return {one.size: "stored", one.displayed: "displayed"}.get(told) if told else None

    def of(self, one: Photo, told: tuple[int, int] | None, said: Said) -> str:
        """Return ``stored`` or ``displayed``; raise InputError where it cannot be known."""
        if one.orientation == 1:
            return "stored"
        way = self._of(one, told)
        said.note(f"images with an EXIF orientation are read as {way}, as their annotations were made", one.path)
        return way

    def _of(self, one: Photo, told: tuple[int, int] | None) -> str:
        if (clear := self._clear(one, told)) is not None:
            return clear
        if len(self.others) != 1:
            raise InputError(
                f"{one.path} is to be turned when shown (EXIF orientation {one.orientation}), and nothing tells whether its "
                "annotations were made before or after; write the images upright without EXIF and export again"
            )
        return self.others[0]


def place(one: Photo, target: Path, way: str) -> None:
    """Put an image at ``target``: a link where it can be read as it is, else upright, in 8 bits and without EXIF."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if one.orientation == 1 and not one.deep:
        target.symlink_to(one.path.resolve())
        return
    with bounds.image(one.path) as image:
        turned = ImageOps.exif_transpose(image) if way == "displayed" else image
        pixels = Image.fromarray(rgb(turned))
    pixels.save(target, "PNG")  # readers go by content, not by name


# --- folders


def split_named(text: str) -> str:
    """Return the split that a folder's or file's name speaks of; empty when it names none."""
    parts = text.lower().replace("-", "_").replace(".", "_").split("_")
    return next((WORDS[word] for part in parts if (word := part.rstrip("0123456789")) in WORDS), "")


def settle_splits(found: Mapping[str, Any], said: Said) -> dict[str, Any]:
    """Name what is trained and what is tested on: ``test`` takes the place of a missing ``val``; else ``test`` is left alone."""
    splits = {name: found[name] for name in ("train", "val", "test") if found.get(name)}
    if "val" not in splits and "train" in splits and "test" in splits:
        said.tell("the split 'test' is measured on, as there is no 'val'")
        splits["val"] = splits["test"]
    splits.pop("test", None)
    return splits


def held_out(names: Sequence[str]) -> set[str]:
    """Choose a fifth of the images, at least one, by the hash of their names: the same on every machine."""
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(order) < 2:
        raise InputError(
            f"{names[0] if names else 'the set'} is the only image; two are needed, to train and to measure"
        )
    return set(order[: max(1, round(HOLD_OUT * len(order)))])


def say_split(said: Said, held: int, total: int) -> None:
    """Say that a validation split was made."""
    said.tell(
        f"no validation split: {held} of {total} images, chosen by their names, are measured on and not trained on"
    )


def say_both(said: Said, train: Iterable[object], val: Iterable[object]) -> None:
    """Say which images are trained on and measured on."""
    if both := sorted(map(str, set(train) & set(val))):
        said.tell(f"{len(both)} images are in 'train' and in 'val', first {both[0]}: measured on what was trained on")


def images_below(folder: Path) -> dict[str, Path]:
    """Return the image files below a folder by their stem, or by their path without ending where two share a stem."""
    found: dict[str, Path] = {}
    for path in sorted(files.walk(folder)):
        if path.suffix.lower() in SUFFIXES:
            found[path.stem if path.stem not in found else path.relative_to(folder).with_suffix("").as_posix()] = path
    return found


# --- what is in a folder, and its canonical form


class Made(NamedTuple):
    """What a layout's writer found out."""

    classes: Sequence[str]
    counts: Counts
    outlines: bool = False
    runs: bool = False


Writer = Callable[[Path, Path, Said], Made]  # (the user's folder, the canonical one, what is said)


def layouts(folder: Path) -> dict[str, Writer]:
    """Return the layouts that a folder has, each with what makes its canonical form."""
    from transfer.datasets import own_boxes, own_masks  # here: they build on what is above

    if not folder.is_dir():
        raise InputError(f"no folder {folder}; give the folder that holds your images and annotations")
    found: dict[str, Writer] = {}
    if own_boxes.coco_files(folder):
        found["coco"] = own_boxes.write_coco
    if own_boxes.xml_files(folder):
        found["voc"] = own_boxes.write_voc
    if own_masks.label_maps(folder):
        found["masks"] = own_masks.write_masks
    if not found and own_masks.class_folders(folder):
        found["classes"] = own_masks.write_classes
    return found


KINDS: dict[Kind, tuple[str, ...]] = {"boxes": ("coco", "voc"), "masks": ("masks",), "classes": ("classes",)}
WANTED: dict[Kind, str] = {
    "boxes": "COCO JSON (annotations/*.json, train/_annotations.coco.json, result.json, labels.json) or VOC XML files",
    "masks": "label maps (JPEGImages and SegmentationClass, or images and masks, annotations or labels)",
    "classes": "class folders ({train,val}/<class>/* or <class>/*)",
}


def prepare(folder: Path | str, kind: Kind, *, skip_bad: bool = False, outlines: bool = False) -> Own:
    """Return the canonical form of a user's folder, made now unless it is there already.

    With ``outlines`` every object must have one. Raises InputError naming the file and the object, or what was looked for.
    """
    root = _root(Path(folder))
    there = layouts(root)
    layout = next((name for name in KINDS[kind] if name in there), None)
    if layout is None:
        told = f"; it has {' and '.join(there)}" if there else ""
        raise InputError(f"{root} holds no {WANTED[kind]}{told}; docs/your-data.md shows the layouts")
    own = _made(root, layout, there[layout], skip_bad)
    if outlines and not own.outlines:
        first = next((note for note in own.notes if "without an outline" in note), f"its layout is {layout}")
        raise InputError(
            f"{root} has no outlines for masks ({first}); take a benchmark of boxes, or set MODEL.MASK_ON False"
        )
    return own


def holds_any(folder: Path) -> bool:
    """Tell whether a folder holds anything that is recognised."""
    return bool(layouts(_root(folder)))


def check(folder: Path, *, skip_bad: bool = False, outlines: bool = False) -> list[Own]:
    """Prepare everything that a folder holds, as training would; raise InputError for the first thing that it would refuse."""
    there = layouts(_root(folder))
    return [
        prepare(folder, kind, skip_bad=skip_bad, outlines=outlines and kind == "boxes")
        for kind, names in KINDS.items()
        if any(name in there for name in names)
    ]


def _root(folder: Path) -> Path:
    """Go down to the one folder inside, as archives and VOCdevkit have it; ``~`` is the home folder."""
    root = folder.expanduser().absolute()
    if not root.is_dir():
        raise InputError(f"no folder {root}; give the folder that holds your images and annotations")
    inside = [path for path in root.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    return _root(inside[0]) if len(inside) == 1 and inside[0].is_dir() and not split_named(inside[0].name) else root


def _made(root: Path, layout: str, write: Writer, skip_bad: bool) -> Own:
    key = {"version": VERSION, "from": str(root), "layout": layout, "skip_bad": skip_bad}
    content = hashlib.sha256(f"{key} {files.fingerprint(root, content=True)}".encode()).hexdigest()[:8]
    target = (datasets_root() / "own" / f"{root.name}-{layout}-{content}").absolute()

    def make(temporary: Path) -> None:
        said = Said(skip_bad)
        made = write(root, temporary, said)
        facts = (str(target), layout, root.name, tuple(made.classes), made.counts, said.lines())
        write_json(temporary / FACTS, asdict(Own(*facts, made.outlines, made.runs)))

    files.make_once(target, {**key, "files": files.fingerprint(root, content=False)}, make)
    values = bounds.json_value(target / FACTS, "the facts of a set made here")
    return Own(**{**values, **{name: tuple(values[name]) for name in ("classes", "notes")}})


def take(paths: Mapping[str, Path], said: Said, label: str) -> dict[str, Photo]:
    """Read every image once; one that is damaged is refused or left out."""
    found = {}
    for name, path in track(paths.items(), f"reading {label}", len(paths)):
        try:
            found[name] = photo(path)
        except DamagedImage as error:
            said.bad(
                f"{path}", f"cannot be decoded ({str(error).partition('(')[2].partition(');')[0]})", "copy it again"
            )
    return found


def safe_name(number: int) -> str:
    """Return the name of an image in a canonical set."""
    return f"{number:06d}"


def read_text(path: Path) -> str:
    """Read a text file of any exporter: UTF-8 with or without a byte order mark."""
    return bounds.text(path, "annotations, saved as UTF-8", bounds.JSON_TEXT)


def index_map(labels: np.ndarray) -> Image.Image:
    """Return a label map as an 8-bit gray image."""
    return Image.fromarray(labels.astype(np.uint8))
