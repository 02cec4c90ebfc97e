"""Where the public datasets are, and how their archives become the folders that the frameworks expect.

Sizes and sha256 sums are those that TensorFlow Datasets records (``url_checksums/``); Tiny-ImageNet's is that of the file whose
MD5 is the known 90528d7ca1a48142e341f4ef8d21d0de, and of SBD only the MD5 that torchvision pins is known. Image counts are those
of the papers and pages. Everything comes over HTTPS; COCO's own name has no certificate, so its bucket is named.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import InputError
from transfer.datasets import Counts, ade20k, cityscapes, class_folders, coco, download, files, voc
from transfer.datasets.download import Archive


def _at(url: str, size: int, sha256: str = "", md5: str = "") -> Archive:
    return Archive(url.rpartition("/")[2], url, size, sha256, md5)


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
COCO = "https://s3.amazonaws.com/images.cocodataset.org"
VOC = "https://thor.robots.ox.ac.uk/pascal/VOC"
SBD = _at(
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    1_419_539_633,
    md5="82b4d87ceb2ed10f6038a1cba92111cb",
)
AUG_IMAGES = 9118  # of SBD outside VOC 2012's train and val

CIFAR10 = Published(
    "cifar10",
    [
        _at(
            f"{CIFAR}/cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        )
    ],
    download.everything,
    class_folders.check_cifar10,
    {"train": 50_000, "test": 10_000},
)
CIFAR100 = Published(
    "cifar100",
    [
        _at(
            f"{CIFAR}/cifar-100-binary.tar.gz",
            168_513_733,
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        )
    ],
    download.everything,
    class_folders.check_cifar,
    {"train": 50_000, "test": 10_000},
)
TINY_IMAGENET = Published(
    "tiny-imagenet-200",
    [
        _at(
            "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
            248_100_043,
            "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
        )
    ],
    download.below("tiny-imagenet-200/"),
    class_folders.check_tiny,
    {"train": 100_000, "val": 10_000},
)
COCO2017 = Published(
    "coco",
    [
        _at(
            f"{COCO}/annotations/annotations_trainval2017.zip",
            252_907_541,
            "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        ),
        _at(
            f"{COCO}/zips/val2017.zip", 815_585_330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05"
        ),
        _at(
            f"{COCO}/zips/train2017.zip",
            19_336_861_798,
            "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        ),
    ],
    download.everything,
    coco.check,
    {"train2017": 118_287, "val2017": 5_000},
)
VOC2007 = Published(
    "VOC2007",
    [
        _at(
            f"{VOC}/voc2007/VOCtrainval_06-Nov-2007.tar",
            460_032_000,
            "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
        ),
        _at(
            f"{VOC}/voc2007/VOCtest_06-Nov-2007.tar",
            451_020_800,
            "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
        ),
    ],
    download.below("VOCdevkit/VOC2007/"),
    voc.check,
    {"Main/trainval": 5_011, "Main/test": 4_952},
)
VOC2012 = Published(
    "VOC2012",
    [
        _at(
            f"{VOC}/voc2012/VOCtrainval_11-May-2012.tar",
            1_999_639_040,
            "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
        )
    ],
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
            "https://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
            967_382_037,
            "7ff1be44964418441f542a7cc1e1a650e7dc0fc275f5d23252bc9bbdbc977b29",
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
