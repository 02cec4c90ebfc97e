"""Check whatever datasets lie under a root."""

from collections.abc import Callable
from pathlib import Path

from core.errors import InputError
from transfer.datasets import Counts, cifar10, coco, shapes, voc

PLACES: dict[str, Callable[[Path], Counts]] = {
    "shapes": shapes.check, "coco": coco.check, "tiny_coco": coco.check, "VOC2007": voc.check, "VOC2012": voc.check,
    "tiny_coco_voc": voc.check, "cifar10": cifar10.check,
}  # fmt: skip


def check(root: Path) -> dict[str, Counts]:
    """Check every known dataset under ``root``, or ``root`` itself where it is the embedded set or has a COCO or VOC layout."""
    if not root.is_dir():
        raise InputError(f"no folder {root}; make the embedded set with: python tools/prepare_data.py shapes {root}")
    if (root / "unlabelled").is_dir():
        return {str(root): shapes.check(root)}
    if (root / "annotations").is_dir():
        return {str(root): coco.check(root)}
    if (root / "JPEGImages").is_dir():
        return {str(root): voc.check(root)}
    found = {name: look(root / name) for name, look in PLACES.items() if (root / name).exists()}
    if not found:
        raise InputError(
            f"{root} holds none of {', '.join(PLACES)}; make the embedded set with: python tools/prepare_data.py shapes {root}"
        )
    return found
