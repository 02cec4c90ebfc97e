"""Draw what the network of a finished trial finds on any images. The files are read as untrusted: nothing in them is executed."""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageOps

from core import bounds
from core.decoding import DamagedImage, rgb
from core.errors import InputError
from core.files import FileError, replacing
from core.weights_file import read_weights_file

RUN = "run"  # the framework's folder in a trial's


def draw(run: Path, images: Sequence[Path], out: Path, score: float) -> Iterator[Path]:
    """Write a PNG of each image with its detections above ``score``, or its segmentation, into ``out``; yield their paths.

    ``run`` is a trial's folder, a framework's own, or a checkpoint in one. Raises InputError naming the file and the next step.
    """
    places = _places(images, out)
    file = checkpoint(run)
    content = read_weights_file(file)
    module = importlib.import_module(f"transfer.frameworks.{_framework(content, file)}.predict")
    network = module.network(content, file, score)
    for place, image in places.items():
        picture = network(_pixels(image))
        with replacing(place) as opened:
            picture.save(opened, format="PNG")
        yield place


def checkpoint(run: Path) -> Path:
    """Return the checkpoint that a folder's training ended with, or the file itself."""
    if run.is_file():
        return run
    if not run.is_dir():
        raise InputError(f"nothing at {run}; give a trial's folder, or its model_final.pth")
    folder = run / RUN if (run / RUN).is_dir() else run
    if not (folder / "evaluation.json").is_file():
        raise InputError(
            f"{folder} holds no finished trial (no evaluation.json); start its command again, or give a checkpoint"
        )
    pointer = folder / "last_checkpoint"
    text = pointer.read_text(errors="replace")[:4096].strip() if pointer.is_file() else ""
    file = folder / Path(text).name
    if not text or file.is_symlink() or not file.is_file():
        there = ", ".join(path.name for path in sorted(folder.glob("*.pth"))) or "none"
        raise InputError(f"{pointer} names no checkpoint of its folder (there: {there}); give the checkpoint itself")
    return file


def _framework(content: dict[str, Any], file: Path) -> str:
    if isinstance(content.get("meta"), dict) and isinstance(content["meta"].get("cfg"), str):
        return "mmseg"
    if isinstance(content.get("model"), dict) and any(str(name).startswith("backbone.") for name in content["model"]):
        return "detectron2"
    raise FileError(f"{file} holds no detector and no segmentation network; give what such a trial ended with")


def _places(images: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Return the file of each picture and its image; raise InputError where one is missing or would be overwritten."""
    found: dict[Path, Path] = {}
    originals = {image.resolve() for image in images}
    for image in images:
        if image.is_dir():
            raise InputError(f"{image} is a folder; give its images, as in {image}/*.jpg")
        if not image.is_file():
            raise InputError(f"no image at {image}; check the path")
        place = out / f"{image.stem}.png"
        if place in found:
            raise InputError(f"{found[place]} and {image} would both be drawn as {place}; draw them into two folders")
        if place.resolve() in originals:
            raise InputError(f"{place} is one of the images; choose another --out")
        found[place] = image
    return found


def _pixels(path: Path) -> np.ndarray:
    """Return an image as uint8 [height, width, 3], RGB, the way its EXIF says that it was held."""
    try:
        with bounds.image(path) as image:
            return rgb(ImageOps.exif_transpose(image))
    except FileError as error:
        raise DamagedImage(f"{path} cannot be decoded ({error}); copy or download it again") from error
