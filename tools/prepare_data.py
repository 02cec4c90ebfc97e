"""Fetch, make, place and check datasets. ROOT is DETECTRON2_DATASETS or ./datasets where it is not given."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import checkout  # noqa: F401

from core.errors import InputError, cli
from core.files import datasets_root

if TYPE_CHECKING:
    from transfer.datasets import Counts

FETCHED = {
    "cifar100": "CIFAR-100, the authors' binary files, into ROOT/cifar100",
    "tiny-imagenet": "Tiny-ImageNet in its own layout, into ROOT/tiny-imagenet-200",
    "coco": "COCO 2017 train, val and their annotations, into ROOT/coco (19 GiB to fetch)",
    "voc": "PASCAL VOC 2007 and 2012, into ROOT/VOC2007 and ROOT/VOC2012",
    "cityscapes": "Cityscapes from the two files of its site (a login is needed), into ROOT/cityscapes",
    "ade20k": "ADE20K of the 2016 challenge, into ROOT/ADEChallengeData2016",
}
LISTED = ("caltech101", "flowers102", "pets", "dtd", "food101", "places205", "inat18")  # transfer/datasets/listed.py
IMAGENET100 = Path(__file__).parent.parent / "configs/pretrain/_base_/datasets/imagenet100.txt"


def show(found: dict[str, "Counts"]) -> None:
    """Print one row per dataset and split."""
    from rich.console import Console
    from rich.table import Table

    table = Table("dataset", "split", "content")
    for name, counts in found.items():
        for split, values in counts.items():
            table.add_row(name, split, ", ".join(f"{number} {what}" for what, number in values.items()))
    Console(width=None if Console().is_terminal else 120).print(table)


class AnyOrder(argparse.ArgumentParser):
    """A subcommand's parser, which takes options and positionals in any order."""

    begun = False

    def parse_known_args(self, args=None, namespace=None):
        if self.begun:
            return super().parse_known_args(args, namespace)
        self.begun = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.begun = False


def parser() -> argparse.ArgumentParser:
    """Describe the subcommands."""
    every = argparse.ArgumentParser(description=__doc__)
    commands = every.add_subparsers(dest="command", required=True, parser_class=AnyOrder)

    def add(name: str, told: str, root: bool = True) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=told, description=told)
        if root:
            one.add_argument("root", type=Path, nargs="?", default=datasets_root())
            one.add_argument("--check", action="store_true", help="check an existing copy and fetch nothing")
        return one

    add("shapes", "render the embedded set into ROOT/shapes")
    told = "fetch CIFAR-10 into ROOT/cifar10, or unpack there a TAR of class folders cifar10/{train,test}/<class>/*.jpg"
    one = add("cifar10", told, root=False)
    one.add_argument("paths", type=Path, nargs="*", metavar="[TAR] ROOT")
    one.add_argument("--check", action="store_true", help="check an existing copy and fetch nothing")
    for name, told in FETCHED.items():
        add(name, f"fetch, unpack and check {told}")
    for name in LISTED:
        one = add(name, f"link the unpacked download SOURCE into ROOT/{name} by its own lists, or check it", root=False)
        one.add_argument("source", type=Path, nargs="?", help="not needed with --check")
        one.add_argument("root", type=Path, nargs="?")
        one.add_argument("--check", action="store_true", help="check an existing copy")
    add(
        "voc-aug",
        "fetch SBD's masks (1.3 GiB) and add them to ROOT/VOC2012 as SegmentationClassAug, lists aug and trainaug",
    )
    one = add(
        "imagenet100",
        "check that ROOT/imagenet has the classes of a list; the config imagenet100.yaml reads them there",
    )
    one.add_argument("--classes", type=Path, default=IMAGENET100, help="one wnid a line; by default the list of CMC")
    one = add("coco-to-voc", "write a COCO folder as a VOC-layout set of the 20 VOC classes", root=False)
    one.add_argument("source", type=Path)
    one.add_argument("folder", type=Path)
    one = add("link-coco", "check a COCO folder and place it at FOLDER, as ROOT/coco or ROOT/tiny_coco", root=False)
    one.add_argument("source", type=Path)
    one.add_argument("folder", type=Path)
    one.add_argument("--copy", action="store_true", help="copy the files instead of linking the folder")
    one = add("check", "check the datasets under ROOT, or your own folder as training will read it", root=False)
    one.add_argument("root", type=Path, nargs="?", default=datasets_root())
    one.add_argument("--skip-bad", action="store_true", help="leave out what of your own folder cannot be used")
    one.add_argument("--masks", action="store_true", help="every object of your own folder must have an outline")
    return every


def main() -> None:
    """Run a subcommand and print what is there."""
    asked = parser().parse_args()
    # Here, so that --help does not wait for OpenCV and pycocotools.
    from core.data.imagefolder import class_names
    from transfer.datasets import checking, class_folders, coco, published, shapes, voc

    if asked.command == "check":
        found, notes = checking.check(asked.root, skip_bad=asked.skip_bad, outlines=asked.masks)
        show(found)
        for note in notes:
            print(f"note: {note}")
    elif asked.command == "link-coco":
        show({str(asked.folder): coco.link(asked.source, asked.folder, copy=asked.copy)})
    elif asked.command == "coco-to-voc":
        show({str(asked.folder): voc.from_coco(asked.source, asked.folder)})
    elif asked.command == "cifar10":
        show(_cifar10(asked.paths, asked.check))
    elif asked.command == "shapes":
        folder = asked.root / "shapes" if asked.check else shapes.ensure(asked.root)
        show({str(folder): shapes.check(folder)})
    elif asked.command == "imagenet100":
        classes = class_names(asked.classes)
        show({str(asked.root / "imagenet"): class_folders.check_imagenet(asked.root / "imagenet", classes)})
    elif asked.command in LISTED:
        show(_listed(asked.command, asked.source, asked.root, asked.check))
    elif asked.command == "voc-aug":
        show(_voc_aug(asked.root, asked.check))
    else:
        show((published.check if asked.check else published.prepare)(asked.command, asked.root))


def _cifar10(paths: list[Path], only_check: bool) -> dict[str, "Counts"]:
    from transfer.datasets import class_folders, published

    if len(paths) > 2:
        raise InputError(f"cifar10 takes at most a tar and a root, not {len(paths)} paths")
    tar = paths[:1] if len(paths) == 2 or (paths and paths[0].suffix in (".tar", ".tgz", ".gz")) else []
    root = [*paths[len(tar) :], datasets_root()][0]
    if only_check:
        return {str(root / "cifar10"): class_folders.check_cifar10(root / "cifar10")}
    if tar:
        return {str(root / "cifar10"): class_folders.unpack_cifar10(tar[0], root)}
    return published.prepare("cifar10", root)


def _listed(name: str, source: Path | None, root: Path | None, only_check: bool) -> dict[str, "Counts"]:
    from transfer.datasets import listed

    if only_check:  # one path is the root
        place = (root or source or datasets_root()) / name
        return {str(place): listed.check(name, place)}
    if source is None:
        raise InputError(f"{name} is not fetched: give the folder of its unpacked download, and ROOT")
    place = (root or datasets_root()) / name
    return {str(place): listed.lay_out(name, source, place.parent)}


def _voc_aug(root: Path, only_check: bool) -> dict[str, "Counts"]:
    from transfer.datasets import published, voc
    from transfer.datasets.download import obtain

    folder = root / "VOC2012"
    if not only_check and not (folder / "ImageSets" / "Segmentation" / "trainaug.txt").is_file():
        voc.require(folder, ("Segmentation/train", "Segmentation/val"))
        voc.augment(folder, obtain([published.SBD], root / "downloads")[0])
    counts = voc.check(folder)
    if (found := counts.get("Segmentation/aug", {}).get("images", 0)) != published.AUG_IMAGES:
        raise InputError(
            f"{folder} lists {found} images in aug, {published.AUG_IMAGES} are expected; remove trainaug.txt and do voc-aug again"
        )
    return {str(folder): counts}


if __name__ == "__main__":
    cli(main)
