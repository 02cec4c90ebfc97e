"""Classification sets whose own files list their splits, laid out as class folders ``NAME/{train,val}/<class>/*`` of links."""

import csv
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from core import bounds
from core.errors import InputError
from transfer.datasets import Counts
from transfer.datasets.files import make_once

Entry = tuple[str, str, str]  # split, file below the images' folder, class
PER_CLASS = 30  # training images of Caltech-101


class Listed(NamedTuple):
    """A set: where its images lie in the unpacked download, who reads its lists, and how many images of how many classes."""

    images: str
    entries: Callable[[Path], Iterable[Entry]]
    train: int
    val: int
    classes: int


def _caltech(source: Path) -> Iterator[Entry]:
    """Yield 30 training images a class, those with the smallest hash of their names; no list is published."""
    for folder in sorted(path for path in (source / "101_ObjectCategories").iterdir() if path.is_dir()):
        files = sorted(folder.glob("*.jpg"), key=lambda path: hashlib.sha256(path.name.encode()).hexdigest())
        for place, path in enumerate(files):
            yield "train" if place < PER_CLASS else "val", f"{folder.name}/{path.name}", folder.name


def _flowers(source: Path) -> Iterator[Entry]:
    labels = bounds.mat(source / "imagelabels.mat", "labels").ravel()
    for key, split in (("trnid", "train"), ("valid", "train"), ("tstid", "val")):
        for number in bounds.mat(source / "setid.mat", key).ravel():
            yield split, f"image_{int(number):05d}.jpg", f"{int(labels[int(number) - 1]):03d}"


def _text(path: Path) -> str:
    return bounds.text(path, "a list of the published set", bounds.JSON_TEXT)


def _pets(source: Path) -> Iterator[Entry]:
    for split, file in (("train", "trainval"), ("val", "test")):
        for line in _text(source / "annotations" / f"{file}.txt").splitlines():
            name = line.split()[0]
            yield split, f"{name}.jpg", name.rpartition("_")[0]


def _textures(source: Path) -> Iterator[Entry]:
    for split, file in (("train", "train1"), ("train", "val1"), ("val", "test1")):
        for name in _text(source / "labels" / f"{file}.txt").split():
            yield split, name, name.partition("/")[0]


def _food(source: Path) -> Iterator[Entry]:
    for split, file in (("train", "train"), ("val", "test")):
        for name in _text(source / "meta" / f"{file}.txt").split():
            yield split, f"{name}.jpg", name.partition("/")[0]


def _places(source: Path) -> Iterator[Entry]:
    for split in ("train", "val"):
        with open(source / "trainvalsplit_places205" / f"{split}_places205.csv", newline="") as file:
            for name, label in csv.reader(file, delimiter=" "):
                yield split, name, f"{int(label):03d}"


def _inat(source: Path) -> Iterator[Entry]:
    for split in ("train", "val"):
        content: dict[str, Any] = json.loads(_text(source / f"{split}2018.json"))
        labels = {int(item["image_id"]): int(item["category_id"]) for item in content["annotations"]}
        for image in content["images"]:
            yield split, str(image["file_name"]), f"{labels[int(image['id'])]:04d}"


# Sizes as published with each set; Caltech-101 with its background class has 102 (arXiv 1805.08974, table 1).
SETS = {
    "caltech101": Listed("101_ObjectCategories", _caltech, 3060, 6085, 102),
    "flowers102": Listed("jpg", _flowers, 2040, 6149, 102),
    "pets": Listed("images", _pets, 3680, 3669, 37),
    "dtd": Listed("images", _textures, 3760, 1880, 47),
    "food101": Listed("images", _food, 75750, 25250, 101),
    "places205": Listed("data/vision/torralba/deeplearning/images256", _places, 2448873, 20500, 205),
    "inat18": Listed(".", _inat, 437513, 24426, 8142),
}


def lay_out(name: str, source: Path, root: Path) -> Counts:
    """Link the unpacked download ``source`` into ``root/NAME`` by its own lists, whole or not at all; return counts."""
    place = source.expanduser().absolute()
    made_from = {"source": str(place)}
    make_once(root / name, made_from, lambda folder: _link(name, place, folder))
    return check(name, root / name)


def _link(name: str, source: Path, folder: Path) -> None:
    listed, inside = SETS[name], (source / SETS[name].images).resolve()
    try:
        for split, file, label in listed.entries(source):
            image = (inside / file).resolve()
            if not image.is_relative_to(inside) or not image.is_file():
                raise InputError(f"{inside} has no {file}, which a list of {name} names; unpack the download again")
            if Path(label).name != label:
                raise InputError(f"{source}: a list of {name} names the class {label!r}, which is no folder's name")
            link = folder / split / label / file.replace("/", "_")
            link.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(image, link)
    except (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise InputError(
            f"{source} is not the unpacked download of {name} ({type(error).__name__}: {error}); give its folder"
        ) from error
    check(name, folder)


def check(name: str, folder: Path) -> Counts:
    """Count images and classes of both splits; raise InputError where they are not those published, or a link is broken."""
    counts: Counts = {}
    for split, wanted in (("train", SETS[name].train), ("val", SETS[name].val)):
        found: dict[str, int] = defaultdict(int)
        for path in (folder / split).glob("*/*"):
            if not path.is_file():
                raise InputError(f"{path} leads nowhere; lay {name} out again from where its images are now")
            found[path.parent.name] += 1
        counts[split] = {"images": sum(found.values()), "classes": len(found)}
        if counts[split] != {"images": wanted, "classes": SETS[name].classes}:
            raise InputError(
                f"{folder / split} has {counts[split]['images']} images of {len(found)} classes, {wanted} of "
                f"{SETS[name].classes} are published; lay it out with: python tools/prepare_data.py {name} SOURCE ROOT"
            )
    return counts
