"""Images and label maps in two folders of the same form: what Cityscapes and ADE20K have in common."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from core.errors import InputError
from core.meter import track
from transfer.datasets.images import require_image, size

LabelOf = Callable[[Path], Path]  # image file -> its label file, both below their folders


def listed(images: Path, labels: Path, label_of: LabelOf, suffix: str, next_step: str) -> list[tuple[Path, Path]]:
    """Return all pairs of image and label files; raise InputError naming a missing folder or file."""
    for folder in (images, labels):
        if not folder.is_dir():
            raise InputError(f"no folder {folder}; {next_step}")
    found = [(path, labels / label_of(path.relative_to(images))) for path in sorted(images.rglob(f"*{suffix}"))]
    if not found:
        raise InputError(f"{images} holds no {suffix} images; {next_step}")
    if alone := [label for _, label in found if not label.is_file() or not label.stat().st_size]:
        raise InputError(f"{alone[0]} is missing or empty ({len(alone)} of {len(found)} label maps are); {next_step}")
    return found


def check(found: list[tuple[Path, Path]], allowed: set[int], label: str) -> None:
    """Check that images are whole, and that label maps are 8-bit, of the image's size, and hold ``allowed`` values only."""
    for image, labels in track(found, f"checking {label}", len(found)):
        require_image(image, label)
        values, sides = read_labels(labels)
        if sides != size(image):
            raise InputError(f"{labels} is {sides}, its image {size(image)} pixels (width, height); make it again")
        if bad := sorted({int(value) for value in np.unique(values)} - allowed):
            raise InputError(f"{labels} holds the value {bad[0]}, which is no class of {label}; copy it again")


def read_labels(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """Read an 8-bit label map; return it [height, width] and (width, height)."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P"):
                raise InputError(
                    f"{path} is a PNG of mode {image.mode}, not of 8-bit labels (L); use the published label maps"
                )
            return np.asarray(image), image.size
    except (OSError, SyntaxError) as error:
        raise InputError(f"{path} is truncated or not an image ({error}); copy or download it again") from error


def rewrite(sources: list[Path], target_of: Callable[[Path], Path], table: np.ndarray, label: str) -> None:
    """Write each label map's values through ``table`` [256] to the file that ``target_of`` names."""
    every: Iterator[Path] = track(sources, f"writing {label}", len(sources))
    for source in every:
        values, _ = read_labels(source)
        target = target_of(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(table[values].astype(np.uint8)).save(target)
