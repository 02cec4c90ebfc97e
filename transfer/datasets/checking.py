"""Check whatever data sets lie under a root, and ask for one before training: a missing or half-copied one stops a benchmark."""

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from core.errors import InputError
from core.files import datasets_root
from transfer.datasets import Counts, ade20k, cityscapes, class_folders, coco, listed, shapes, voc

PLACES: dict[str, Callable[[Path], Counts]] = {
    "shapes": shapes.check,
    "coco": coco.check,
    "tiny_coco": coco.check,
    "VOC2007": voc.check,
    "VOC2012": voc.check,
    "tiny_coco_voc": voc.check,
    "cityscapes": cityscapes.check,
    "ADEChallengeData2016": ade20k.check,
    "cifar10": class_folders.check_cifar10,
    "cifar100": class_folders.check_cifar,
    "tiny-imagenet-200": class_folders.check_tiny,
    "imagenet": class_folders.check_imagenet,
    **{name: functools.partial(listed.check, name) for name in listed.SETS},
}
MARKS = {  # a folder that only this layout has
    "unlabelled": shapes.check,
    "leftImg8bit": cityscapes.check,
    "images/training": ade20k.check,
    "wnids.txt": class_folders.check_tiny,
}


def check(root: Path, *, skip_bad: bool = False, outlines: bool = False) -> tuple[dict[str, Counts], list[str]]:
    """Check every known dataset under ``root``, or ``root`` itself: one of those, or a folder of the user's own.

    Returns what is there, and what was put right in a user's own.
    """
    root = root.expanduser()
    if not root.is_dir():
        raise InputError(f"no folder {root}; make the embedded set with: python tools/prepare_data.py shapes {root}")
    look = PLACES.get(root.name) or next((MARKS[mark] for mark in MARKS if any(root.glob(mark))), None)
    if look is not None:
        return {str(root): look(root)}, []
    if found := {name: look(root / name) for name, look in PLACES.items() if (root / name).exists()}:
        return found, []
    from transfer.datasets import own  # here: it imports torch, which a list of the places need not wait for

    if not own.holds_any(root):
        raise InputError(
            f"{root} holds none of {', '.join(PLACES)}, nor a set of your own ({'; '.join(own.WANTED.values())}); make the "
            f"embedded set with: python tools/prepare_data.py shapes {root}"
        )
    sets = own.check(root, skip_bad=skip_bad, outlines=outlines)
    counts = {f"{one.name} ({one.layout}, {len(one.classes)} classes)": one.counts for one in sets}
    return counts, [note for one in sets for note in one.notes]


# Names of Detectron2's catalogue and ours -> folder below the root, split of its layout
NAMES: tuple[tuple[str, str, str], ...] = (
    (r"coco_2017_(train|val)", "coco", r"\g<1>2017"),
    (r"tiny_coco_(train|val)", "tiny_coco", r"\g<1>2017"),
    (r"tiny_coco_few", "tiny_coco", "train2017"),
    (r"voc_(2007|2012)_(train|val|trainval|test)", r"VOC\1", r"Main/\2"),
    (r"shapes_(train|val)", "shapes/coco", r"\1"),
    (r"shapes_voc_(train|val)", "shapes/VOC", r"Main/\1"),
    (r"cityscapes_fine_\w+_seg_(train|val)", "cityscapes", r"\1"),
    (r"ade20k_sem_seg_train", "ADEChallengeData2016", "training"),
    (r"ade20k_sem_seg_val", "ADEChallengeData2016", "validation"),
)


def require(dataset: str | Path, *splits: str) -> None:
    """Raise InputError unless a dataset is there with all its files; the embedded set is rendered if it is not.

    ``dataset`` is a name of Detectron2's catalogue (``coco_2017_train``, ``voc_2007_test``; the split is in the name), or a
    folder, absolute or below the datasets root (``VOC2012``, ``cityscapes``), of which ``splits`` are asked for
    (``Main/trainval``, ``Segmentation/aug``, ``train2017``, ``val``, ``training``; none: all there are).
    """
    folder = Path(dataset)
    for pattern, place, split in NAMES:
        if found := re.fullmatch(pattern, str(dataset)):
            folder, splits = Path(found.expand(place)), (found.expand(split),)
    if not folder.is_absolute() and not folder.is_dir():
        folder = datasets_root() / folder
    if folder.parent == datasets_root() / "shapes" and not folder.is_dir():
        shapes.ensure(datasets_root())
    if str(dataset).startswith("ade20k_sem_seg"):
        ade20k.require(folder, splits, "annotations_detectron2")
        return
    _layout(folder)(folder, splits)


def _layout(folder: Path) -> Callable[[Path, Sequence[str]], None]:
    """Tell the layout of a folder by its name, or else by what is in it."""
    if folder.name == "ADEChallengeData2016" or (folder / "images" / "training").is_dir():
        return ade20k.require
    if folder.name == "cityscapes" or (folder / "leftImg8bit").is_dir():
        return cityscapes.require
    if folder.name.startswith("VOC") or folder.name.endswith("_voc") or (folder / "JPEGImages").is_dir():
        return voc.require
    if "coco" in folder.name or (folder / "annotations").is_dir():
        return coco.require
    raise InputError(f"no dataset of a known layout at {folder}; see python tools/prepare_data.py --help")
