"""Classification sets: CIFAR, Tiny-ImageNet in its own layout, and ImageNet as ``{train,val}/<wnid>/*``."""

import re
from collections.abc import Sequence
from pathlib import Path

from core import bounds
from core.errors import InputError
from core.files import sha256
from core.meter import track
from transfer.datasets import Counts, download
from transfer.datasets.files import make_once, require_files, require_image

TINY_NEXT = "unpack it again with: python tools/prepare_data.py tiny-imagenet ROOT"
IMAGENET_NEXT = (
    "ImageNet needs an account at image-net.org: unpack ILSVRC2012_img_train.tar (a tar a class) and ILSVRC2012_img_val.tar, "
    "and move the images into train/<wnid> and val/<wnid>"
)


def check_tiny(folder: Path) -> Counts:
    """Check Tiny-ImageNet: classes of ``wnids.txt`` with equally many images, and ``val`` against its annotations."""
    if not (folder / "wnids.txt").is_file():
        raise InputError(f"no file {folder / 'wnids.txt'}; {TINY_NEXT}")
    wnids = bounds.text(folder / "wnids.txt", "a list of classes").split()
    sizes = {wnid: len(_check_images(folder / "train" / wnid / "images", TINY_NEXT)) for wnid in wnids}
    fewest = min(sizes, key=lambda wnid: sizes[wnid])
    if sizes[fewest] != max(sizes.values()):
        place = folder / "train" / fewest
        raise InputError(f"{place} has {sizes[fewest]} images, other classes have {max(sizes.values())}; {TINY_NEXT}")
    annotations = folder / "val" / "val_annotations.txt"
    if not annotations.is_file():
        raise InputError(f"no file {annotations}; {TINY_NEXT}")
    lines = [line.split("\t") for line in bounds.text(annotations, "Tiny-ImageNet's annotations").splitlines()]
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


def _check_images(folder: Path, next_step: str) -> list[str]:
    """Check all images of a folder; return their names."""
    names = sorted(path.name for path in folder.glob("*") if path.is_file() and not path.name.startswith("."))
    if not names:
        raise InputError(f"{folder} holds no images; {next_step}")
    for name in names:
        require_image(folder / name, str(folder))
    return names


def check_cifar(folder: Path) -> Counts:
    """Check the authors' files of CIFAR-10 or CIFAR-100: their sizes and labels, and that classes have equally many images."""
    from core.data import cifar  # here: core.data imports torch, which the doctor must not wait for

    form = cifar.check(folder)
    if form is None:
        names = " or ".join(form.folder for form in cifar.FORMS)
        raise InputError(f"no folder {names} in {folder}; fetch it with: python tools/prepare_data.py cifar10 ROOT")
    return {split: {"images": count, "classes": form.classes} for split, count in form.records.items()}


CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Only these names are written, so no member can leave the folder, and links and devices are refused.
MEMBER = re.compile(rf"(?:\./)?cifar10/((?:train|test)/(?:{'|'.join(CIFAR10)})/\w[\w-]*\.(?:jpg|jpeg|png))")


def unpack_cifar10(archive: Path, root: Path) -> Counts:
    """Unpack a tar into ``root/cifar10`` whole or not at all; nothing is done when it was made from the same tar."""
    if not archive.is_file():
        raise InputError(f"no file {archive}; give the path of the CIFAR-10 tar")
    make_once(root / "cifar10", {"sha256": sha256(archive)}, lambda folder: _unpack_cifar10(archive, folder))
    return check_cifar10(root / "cifar10")


def check_cifar10(folder: Path) -> Counts:
    """Check that both splits have all classes with equally many whole images; return counts per split."""
    if not (folder / "train").is_dir():
        return check_cifar(folder)
    counts: Counts = {}
    for split in ("train", "test"):
        sizes = {}
        for name in CIFAR10:
            paths = [path for path in (folder / split / name).glob("*") if path.is_file()]
            for path in paths:
                require_image(path, split)
            sizes[name] = len(paths)
        fewest = min(sizes, key=lambda name: sizes[name])
        if sizes[fewest] != max(sizes.values()) or sizes[fewest] == 0:
            told = f"{folder / split / fewest} has {sizes[fewest]} images, other classes have {max(sizes.values())}"
            raise InputError(
                f"{told}; copy the tar again and unpack it with: python tools/prepare_data.py cifar10 TAR ROOT"
            )
        counts[split] = {"images": sum(sizes.values()), "classes": len(CIFAR10)}
    return counts


def _unpack_cifar10(archive: Path, folder: Path) -> None:
    def select(name: str) -> str:
        if (known := MEMBER.fullmatch(name)) is None:
            raise InputError(
                f"{archive} holds '{name}', which is not an image file cifar10/{{train,test}}/<class>/NAME.jpg; nothing was "
                "unpacked, use another tar"
            )
        return known[1]

    download.unpack(archive, folder, select)
    check_cifar10(folder)
