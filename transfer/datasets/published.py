"""Where the public datasets are, and how their archives become the folders that the frameworks expect.

Checksums are md5 sums as published or as pinned by torchvision, sizes in bytes; image counts are those of the papers and pages.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import InputError
from transfer.datasets import (
    Counts,
    ade20k,
    cityscapes,
    class_folders,
    coco,
    download,
    files,
    voc,
)
from transfer.datasets.download import Archive


def _at(url: str, md5: str, size: int | None = None) -> Archive:
    return Archive(url.rpartition("/")[2], url, md5, size)


class Published(NamedTuple):
    """One folder below the root: its archives and what to take from them, its check, and images per split."""

    folder: str
    archives: Sequence[Archive]
    select: download.Select
    check: Callable[[Path], Counts]
    images: dict[str, int]
    finish: Callable[[Path], None] | None = None
    login: str = ""


CIFAR = "https://www.cs.toronto.edu/~kriz"
COCO = "http://images.cocodataset.org"
VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
SBD = _at(
    "http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    "82b4d87ceb2ed10f6038a1cba92111cb",
)
AUG_IMAGES = 9118  # of SBD outside VOC 2012's train and val

CIFAR10 = Published(
    "cifar10",
    [_at(f"{CIFAR}/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", 170_052_171)],
    download.everything,
    class_folders.check_cifar10,
    {"train": 50_000, "test": 10_000},
)
CIFAR100 = Published(
    "cifar100",
    [_at(f"{CIFAR}/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", 168_513_733)],
    download.everything,
    class_folders.check_cifar,
    {"train": 50_000, "test": 10_000},
)
TINY_IMAGENET = Published(
    "tiny-imagenet-200",
    [_at("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de", 248_100_043)],
    download.below("tiny-imagenet-200/"),
    class_folders.check_tiny,
    {"train": 100_000, "val": 10_000},
)
COCO2017 = Published(
    "coco",
    [
        _at(f"{COCO}/annotations/annotations_trainval2017.zip", "f4bbac642086de4f52a3fdda2de5fa2c", 252_907_541),
        _at(f"{COCO}/zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", 815_585_330),
        _at(f"{COCO}/zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2", 19_336_861_798),
    ],
    download.everything,
    coco.check,
    {"train2017": 118_287, "val2017": 5_000},
)
VOC2007 = Published(
    "VOC2007",
    [
        _at(f"{VOC}/voc2007/VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64", 460_032_000),
        _at(f"{VOC}/voc2007/VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f"),
    ],
    download.below("VOCdevkit/VOC2007/"),
    voc.check,
    {"Main/trainval": 5_011, "Main/test": 4_952},
)
VOC2012 = Published(
    "VOC2012",
    [_at(f"{VOC}/voc2012/VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd", 1_999_639_040)],
    download.below("VOCdevkit/VOC2012/"),
    voc.check,
    {"Main/trainval": 11_540, "Segmentation/train": 1_464, "Segmentation/val": 1_449},
)
CITYSCAPES = Published(
    "cityscapes",
    [Archive("gtFine_trainvaltest.zip", None), Archive("leftImg8bit_trainvaltest.zip", None)],
    cityscapes.select,
    cityscapes.check,
    cityscapes.IMAGES,
    cityscapes.write_train_ids,
    "Cityscapes needs an account: register at cityscapes-dataset.com, log in and download both files there",
)
ADE20K = Published(
    "ADEChallengeData2016",
    [
        _at(
            "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
            "7328b3957e407ddae1d3cbf487f149ef",
        )
    ],
    download.below("ADEChallengeData2016/"),
    ade20k.check,
    ade20k.IMAGES,
    ade20k.write_shifted,
)
SETS: dict[str, tuple[Published, ...]] = {
    "cifar10": (CIFAR10,),
    "cifar100": (CIFAR100,),
    "tiny-imagenet": (TINY_IMAGENET,),
    "coco": (COCO2017,),
    "voc": (VOC2007, VOC2012),
    "cityscapes": (CITYSCAPES,),
    "ade20k": (ADE20K,),
}


def prepare(name: str, root: Path) -> dict[str, Counts]:
    """Fetch, unpack and check a dataset below ``root``; one that is there is only checked. Nothing half made is left."""
    return {str(root / one.folder): _prepare(one, root) for one in SETS[name]}


def check(name: str, root: Path) -> dict[str, Counts]:
    """Check an existing copy of a dataset below ``root``, its image counts against the published ones."""
    return {str(root / one.folder): _counted(one, root / one.folder) for one in SETS[name]}


def _prepare(one: Published, root: Path) -> Counts:
    folder, made_from = root / one.folder, {"archives": [archive.name for archive in one.archives]}
    counts: list[Counts] = []

    def make(temporary: Path) -> None:
        for path in download.obtain(one.archives, root / "downloads", one.login):
            download.unpack(path, temporary, one.select)
        if one.finish is not None:
            one.finish(temporary)
        counts.append(_counted(one, temporary))

    if _is_ours(folder, made_from) and files.make_once(folder, made_from, make):
        return counts[0]
    return _counted(one, folder)


def _is_ours(folder: Path, made_from: dict[str, Any]) -> bool:
    """Tell whether a folder is to be made here: one that the user put there, or made in another way, is not replaced."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; move it away, the dataset's folder has this name")
    if not folder.exists() or not any(folder.iterdir()):
        return True
    return (folder / files.MANIFEST).is_file() and files.read_manifest(folder)["made_from"] == made_from


def _counted(one: Published, folder: Path) -> Counts:
    counts = one.check(folder)
    for split, expected in one.images.items():
        found = counts.get(split, {}).get("images", 0)
        if found != expected:
            raise InputError(
                f"{folder} has {found} images in '{split}', {expected} are published; copy what is missing, "
                "or move the folder away and start the command of this tool that makes it"
            )
    return counts
