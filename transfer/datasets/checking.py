"""Check whatever datasets lie under a root."""

from collections.abc import Callable
from pathlib import Path

from core.errors import InputError
from transfer.datasets import Counts, ade20k, cifar10, cifar_binary, cityscapes, class_folders, coco, shapes, voc

PLACES: dict[str, Callable[[Path], Counts]] = {
    "shapes": shapes.check,
    "coco": coco.check,
    "tiny_coco": coco.check,
    "VOC2007": voc.check,
    "VOC2012": voc.check,
    "tiny_coco_voc": voc.check,
    "cityscapes": cityscapes.check,
    "ADEChallengeData2016": ade20k.check,
    "cifar10": cifar10.check,
    "cifar100": cifar_binary.check,
    "tiny-imagenet-200": class_folders.check_tiny,
    "imagenet": class_folders.check_imagenet,
}
MARKS = {  # a folder that only this layout has
    "unlabelled": shapes.check,
    "annotations/instances_*.json": coco.check,
    "JPEGImages": voc.check,
    "leftImg8bit": cityscapes.check,
    "images/training": ade20k.check,
    "wnids.txt": class_folders.check_tiny,
}


def check(root: Path) -> dict[str, Counts]:
    """Check every known dataset under ``root``, or ``root`` itself where it is one of the known layouts."""
    if not root.is_dir():
        raise InputError(f"no folder {root}; make the embedded set with: python tools/prepare_data.py shapes {root}")
    for mark, look in MARKS.items():
        if any(root.glob(mark)):
            return {str(root): look(root)}
    found = {name: look(root / name) for name, look in PLACES.items() if (root / name).exists()}
    if not found:
        raise InputError(
            f"{root} holds none of {', '.join(PLACES)}; make the embedded set with: python tools/prepare_data.py shapes {root}"
        )
    return found
