"""PASCAL VOC's images with the classes of their objects, several an image (Everingham et al., VOC2007 devkit, sec. 7).

``JPEGImages``, ``Annotations`` and ``ImageSets/Main``, as ``tools/prepare_data.py voc`` places them.
"""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Literal

from core import bounds
from core.config import PluginSettings
from core.data import Labelled, LabelledSettings
from core.data.imagefolder import ImageFolder, split_of_files
from core.errors import InputError
from core.files import datasets_root

NEXT = "fetch it with: python tools/prepare_data.py voc"


class Voc(ImageFolder):
    """The images of one list, without labels."""

    class Config(PluginSettings):
        """``root`` is a folder in VOC's layout, ``split`` a list of ``ImageSets/Main``."""

        name: Literal["voc"] = "voc"
        root: Path = Path("datasets/VOC2007")
        split: str = "trainval"
        damaged: Literal["skip", "refuse"] = "refuse"

    class Splits(LabelledSettings):
        """``train`` and ``test`` are lists of ``ImageSets/Main``; classes are the names of the training objects, sorted.

        A label is 1 where the image has an object of the class, 0 where it has difficult ones only, which the devkit ignores, and
        -1 where it has none: the numbers of the devkit's own lists of a class.
        """

        name: Literal["voc"] = "voc"
        root: Path = Path("VOC2007")
        train: str = "trainval"
        test: str = "test"

        def read(self) -> Labelled:
            """Read the annotations of both lists."""
            root = datasets_root() / self.root
            files = {split: _listed(root, split) for split in (self.train, self.test)}
            found = {split: [_objects(root, path.stem) for path in paths] for split, paths in files.items()}
            classes = tuple(sorted({name for objects in found[self.train] for name in objects}))
            for path, objects in zip(files[self.test], found[self.test], strict=True):
                if other := objects.keys() - set(classes):
                    raise InputError(
                        f"{path} has a '{min(other)}', which no image of {self.train} has; correct the lists"
                    )
            parts = [
                [
                    (path, [objects.get(name, -1) for name in classes])
                    for path, objects in zip(files[s], found[s], strict=True)
                ]
                for s in (self.train, self.test)
            ]
            return Labelled(classes, *(split_of_files(root, part) for part in parts))

    def __init__(self, config: "Voc.Config") -> None:
        self.paths = _listed(config.root, config.split)
        self.labels = [-1] * len(self.paths)


def _listed(root: Path, split: str) -> list[Path]:
    listing = root / "ImageSets" / "Main" / f"{split}.txt"
    try:
        names = [line.split()[0] for line in listing.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {listing} ({error}); {NEXT}") from error
    paths = [root / "JPEGImages" / f"{name}.jpg" for name in names]
    if not paths or (missing := [path for path in paths if not path.is_file()]):
        raise InputError(f"{listing} lists {f'{missing[0]}, which is missing' if paths else 'no images'}; {NEXT}")
    return paths


def _objects(root: Path, image: str) -> dict[str, int]:
    """Return the classes of an image's objects: 1, or 0 where all of a class are difficult."""
    path = root / "Annotations" / f"{image}.xml"
    try:
        objects = bounds.xml(bounds.regular(path, bounds.TEXT, "an annotation"), path).findall("object")
    except (OSError, ET.ParseError) as error:
        raise InputError(f"cannot read {path} ({error}); {NEXT}") from error
    found: dict[str, int] = {}
    for record in objects:
        name = record.findtext("name", "").strip()
        if not name:
            raise InputError(f"{path} has an object without a name; {NEXT}")
        found[name] = max(found.get(name, 0), int(record.findtext("difficult", "0").strip() != "1"))
    return found
