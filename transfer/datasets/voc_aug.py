"""The extra masks for VOC 2012 segmentation: SBD (Hariharan et al., "Semantic contours from inverse detectors", ICCV 2011).

Writes ``VOC2012/SegmentationClassAug`` and the lists ``aug`` (SBD's images outside VOC's train and val: 9,118) and ``trainaug``
(VOC's train and those: 10,582). VOC's own masks of train and val stand in that folder as well, so ``trainaug`` needs no other.
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from core.errors import InputError
from core.files import write_atomic
from core.meter import track
from transfer.datasets import archives, voc

FOLDER = "SegmentationClassAug"


def add(root: Path, archive: Path) -> int:
    """Add the masks of SBD's archive to the VOC folder ``root``; return how many images ``aug`` lists."""
    lists = root / "ImageSets" / "Segmentation"
    train, val = (voc.read_list(lists / f"{name}.txt") for name in ("train", "val"))
    try:
        extra = _write(root, archive, train, val)
        write_atomic(lists / "aug.txt", "".join(f"{name}\n" for name in extra))
        write_atomic(lists / "trainaug.txt", "".join(f"{name}\n" for name in (*train, *extra)))
    except OSError as error:
        raise InputError(f"cannot write {root} ({error}); free some space or choose another folder") from error
    return len(extra)


def _write(root: Path, archive: Path, train: list[str], val: list[str]) -> list[str]:
    """Make the folder of masks, whole or not at all; return the names of SBD's images outside VOC's lists."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{FOLDER}.", suffix=".tmp", dir=root))
    try:
        sbd, masks = temporary / "sbd", temporary / FOLDER
        archives.unpack(archive, sbd, _select)
        named = [name for split in ("train", "val") for name in voc.read_list(sbd / f"{split}.txt")]
        extra = sorted(set(named) - {*train, *val})
        masks.mkdir()
        for name in track(extra, "converting SBD masks", len(extra)):
            voc.write_labels(masks / f"{name}.png", _read_mask(sbd / "cls" / f"{name}.mat"))
        for name in (*train, *val):
            shutil.copyfile(root / "SegmentationClass" / f"{name}.png", masks / f"{name}.png")
        shutil.rmtree(root / FOLDER, ignore_errors=True)
        os.sync()
        os.rename(masks, root / FOLDER)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return extra


def _select(name: str) -> str | None:
    """Keep the class masks and the lists of ``benchmark_RELEASE/dataset``."""
    inside = archives.below("benchmark_RELEASE/dataset/")(name)
    return inside if inside and (inside in ("train.txt", "val.txt") or inside.startswith("cls/")) else None


def _read_mask(path: Path) -> voc.Labels:
    """Read the class map of an SBD file, uint8 [height, width]."""
    from scipy.io import loadmat  # here: only SBD comes in this format

    try:
        labels = np.asarray(loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0])
    except (OSError, ValueError, KeyError, TypeError, IndexError, NotImplementedError) as error:
        raise InputError(f"{path.name} of SBD is missing or damaged ({error}); download the archive again") from error
    if labels.ndim != 2 or labels.dtype != np.uint8 or labels.max() > len(voc.CLASSES):
        raise InputError(
            f"{path.name} of SBD holds no map of the {len(voc.CLASSES)} classes; download the archive again"
        )
    return labels
