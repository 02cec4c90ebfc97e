"""Classification sets of one folder a class: Tiny-ImageNet in its own layout, and ImageNet as ``{train,val}/<wnid>/*``."""

from collections.abc import Sequence
from pathlib import Path

from core.errors import InputError
from core.meter import track
from transfer.datasets import Counts
from transfer.datasets.images import require_files, require_image

TINY_NEXT = "unpack it again with: python tools/prepare_data.py tiny-imagenet ROOT"
IMAGENET_NEXT = (
    "ImageNet needs an account at image-net.org: unpack ILSVRC2012_img_train.tar (a tar a class) and ILSVRC2012_img_val.tar, "
    "and move the images into train/<wnid> and val/<wnid>"
)


def check_tiny(folder: Path) -> Counts:
    """Check Tiny-ImageNet: classes of ``wnids.txt`` with equally many images, and ``val`` against its annotations."""
    if not (folder / "wnids.txt").is_file():
        raise InputError(f"no file {folder / 'wnids.txt'}; {TINY_NEXT}")
    wnids = (folder / "wnids.txt").read_text().split()
    sizes = {wnid: len(_check_images(folder / "train" / wnid / "images", TINY_NEXT)) for wnid in wnids}
    fewest = min(sizes, key=lambda wnid: sizes[wnid])
    if sizes[fewest] != max(sizes.values()):
        place = folder / "train" / fewest
        raise InputError(f"{place} has {sizes[fewest]} images, other classes have {max(sizes.values())}; {TINY_NEXT}")
    annotations = folder / "val" / "val_annotations.txt"
    if not annotations.is_file():
        raise InputError(f"no file {annotations}; {TINY_NEXT}")
    lines = [line.split("\t") for line in annotations.read_text().splitlines()]
    for number, parts in enumerate(lines, start=1):
        if len(parts) < 2 or parts[1] not in sizes:
            raise InputError(f"line {number} of {annotations} names no class of wnids.txt; {TINY_NEXT}")
    found = _check_images(folder / "val" / "images", TINY_NEXT)
    require_files(folder / "val" / "images", (parts[0] for parts in lines), str(annotations))
    if unnamed := sorted(set(found) - {parts[0] for parts in lines}):
        raise InputError(f"{annotations} does not name {unnamed[0]}; {TINY_NEXT}")
    return {
        "train": {"images": sum(sizes.values()), "classes": len(wnids)},
        "val": {"images": len(found), "classes": len({parts[1] for parts in lines})},
    }


def check_imagenet(folder: Path, classes: Sequence[str] | None = None) -> Counts:
    """Check the class folders of ``train`` and ``val``; with ``classes``, those only."""
    counts: Counts = {}
    wanted = sorted(classes) if classes is not None else None
    for split in ("train", "val"):
        place = folder / split
        if not place.is_dir():
            raise InputError(f"no folder {place}; {IMAGENET_NEXT}")
        here = sorted(path.name for path in place.iterdir() if path.is_dir())
        wanted = here if wanted is None else wanted
        if missing := sorted(set(wanted) - set(here)):
            raise InputError(
                f"{place} lacks {len(missing)} of {len(wanted)} classes, first {missing[0]}; {IMAGENET_NEXT}"
            )
        names = track(wanted, f"checking {place}", len(wanted))
        images = sum(len(_check_images(place / name, IMAGENET_NEXT)) for name in names)
        counts[split] = {"images": images, "classes": len(wanted)}
    return counts


def read_classes(path: Path) -> list[str]:
    """Read class names, one a line; ``#`` begins a comment."""
    if not path.is_file():
        raise InputError(f"no file {path}; give a text file of one class name a line")
    names = [name for line in path.read_text().splitlines() if (name := line.partition("#")[0].strip())]
    if not names or len(names) != len(set(names)):
        raise InputError(f"{path} names no class, or one twice; write one class name a line")
    return names


def _check_images(folder: Path, next_step: str) -> list[str]:
    """Check all images of a folder; return their names."""
    names = sorted(path.name for path in folder.glob("*") if path.is_file() and not path.name.startswith("."))
    if not names:
        raise InputError(f"{folder} holds no images; {next_step}")
    for name in names:
        require_image(folder / name, str(folder))
    return names
