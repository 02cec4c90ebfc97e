"""Depart from a published protocol as asked: short, at another rate, on a part."""

from transfer.frameworks.mmseg import compat  # noqa: F401, I001 - first: it prepares the mm* packages

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from core.errors import InputError
from core.files import datasets_root
from core.shapes import CLASSES
from transfer.datasets import own
from transfer.frameworks._protocol import departures, held
from transfer.frameworks.mmseg.data import check, images, leaves
from transfer.frameworks.mmseg.devices import mappings
from transfer.frameworks.mmseg.heads import every


ITERATIONS = 4
BATCH = 2
TRAIN_IMAGES, TEST_IMAGES = 40, 6
CROP = (64, 64)
EMBEDDED = "shapes"


def use_own(cfg: Config, data: str, skip_bad: bool = False) -> list[str]:
    """Change ``cfg`` in place to a user's folder: its sets, its classes and the head; return what to say."""
    found = own.prepare(data, "masks", skip_bad=skip_bad)
    for name, split in (("train", "train"), ("val", "val"), ("test", "val")):
        loader = cfg[f"{name}_dataloader"]
        pipeline = next(leaves(loader.dataset)).pipeline
        for step in mappings(pipeline):
            step.pop("reduce_zero_label", None)  # the canonical label maps count classes from 0
        part = {"ann_file": f"ImageSets/Segmentation/{split}.txt", "pipeline": pipeline}
        loader.dataset = ConfigDict({**_dataset(Path(found.folder), found.classes), **part})
    _fit_heads(cfg, len(found.classes))
    return [f"data: {found.name}, {len(found.classes)} classes ({', '.join(found.classes[:3])}, ...)", *found.notes]


def _fit_heads(cfg: Config, classes: int) -> None:
    for _, head in every(cfg.model):
        if head.num_classes != classes:
            head.num_classes = classes
            head.loss_decode.pop("class_weight", None)  # it has one weight per class


def vary(cfg: Config, shortened: str, lr_factor: float, hold_out: float, owned: bool = False) -> list[str]:
    """Change ``cfg`` in place and return what was changed, as text; raise FileError when a dataset is not whole.

    ``owned``: its data is the user's already, and stays.
    """
    said = [] if owned or shortened in ("", EMBEDDED) else use_own(cfg, shortened)
    if shortened:
        shorten(cfg, not owned and not said)
    check(cfg)
    if lr_factor != 1:
        cfg.optim_wrapper.optimizer.lr *= lr_factor
        for scheduler in cfg.get("param_scheduler") or []:
            if "eta_min" in scheduler:
                scheduler.eta_min *= lr_factor
    if hold_out:
        hold_back(cfg, hold_out)
    return [*said, *departures(shortened, ITERATIONS, lr_factor, hold_out)]


def hold_back(cfg: Config, share: float) -> None:
    """Train on all but a share of the training images, and measure on that share with the test pipeline."""
    pipeline = next(leaves(cfg.val_dataloader.dataset)).pipeline
    parts = []
    for dataset in leaves(cfg.train_dataloader.dataset):
        names = [path.stem for path in images(dataset)][: dataset.get("indices")]
        chosen = [held(name, share) for name in names]
        if all(chosen) or not any(chosen):
            raise InputError(
                f"--hold-out {share:g}: {len(names)} images in {dataset.data_root} are too few for that part"
            )
        parts.append(_part(dataset, [i for i, out in enumerate(chosen) if out], pipeline))
        dataset.indices = [i for i, out in enumerate(chosen) if not out]
    cfg.val_dataloader.dataset = parts[0] if len(parts) == 1 else ConfigDict(type="ConcatDataset", datasets=parts)
    cfg.test_dataloader = cfg.val_dataloader


def _part(dataset: ConfigDict, indices: list[int], pipeline: Any) -> ConfigDict:
    return ConfigDict({**dataset.to_dict(), "indices": indices, "pipeline": pipeline})


def shorten(cfg: Config, embedded: bool) -> None:
    """Change ``cfg``, already fitted to the devices, in place: on the embedded set, or on the data that it has."""
    classes = ("background", *CLASSES)
    for name, split, count in (("train", "train", TRAIN_IMAGES), ("val", "val", TEST_IMAGES)):
        loader = cfg[f"{name}_dataloader"]
        root = datasets_root() / "shapes" / "VOC"
        dataset = _dataset(root, classes) if embedded else next(leaves(loader.dataset)).to_dict()
        listing = {"ann_file": f"ImageSets/Segmentation/{split}.txt"} if embedded else {}
        loader.dataset = {**dataset, **listing, "indices": count, "pipeline": _pipeline(name)}
        loader.batch_size, loader.num_workers, loader.persistent_workers = 1, 0, False
    parts = cfg.optim_wrapper.get("accumulative_counts", 1)
    cfg.train_dataloader.batch_size = parts if parts > 1 else BATCH
    cfg.test_dataloader = cfg.val_dataloader
    cfg.model.data_preprocessor["size"] = CROP
    if embedded:
        _fit_heads(cfg, len(classes))
    _shorten_schedule(cfg, ITERATIONS / cfg.train_cfg.max_iters)


def _dataset(root: Path, classes: Sequence[str]) -> dict[str, Any]:
    """Return a data set in VOC layout whose label maps hold the indices of ``classes``."""
    palette = [[(index * 53) % 256, (index * 97) % 256, (index * 193) % 256] for index in range(len(classes))]
    return {
        "type": "BaseSegDataset",
        "data_root": str(root),
        "data_prefix": {"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
        "metainfo": {"classes": tuple(classes), "palette": palette},
        "img_suffix": ".jpg",
        "seg_map_suffix": ".png",
    }


def _pipeline(name: str) -> list[dict[str, Any]]:
    load, labels, pack = ({"type": kind} for kind in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs"))
    if name == "val":
        return [load, {"type": "Resize", "scale": (256, 64), "keep_ratio": True}, labels, pack]
    resize = {"type": "RandomResize", "scale": (256, 64), "ratio_range": (0.5, 2.0), "keep_ratio": True}
    crop = {"type": "RandomCrop", "crop_size": CROP, "cat_max_ratio": 0.75}
    return [load, labels, resize, crop, {"type": "RandomFlip", "prob": 0.5}, pack]


def _shorten_schedule(cfg: Config, share: float) -> None:
    """Keep the form of the schedule; what becomes shorter than an iteration is left out."""
    cfg.train_cfg.max_iters = cfg.train_cfg.val_interval = ITERATIONS
    cfg.default_hooks.checkpoint.interval = ITERATIONS // 2  # so that a killed run has something to go on from
    cfg.default_hooks.logger.interval = 1
    kept = []
    for scheduler in cfg.get("param_scheduler") or []:
        scheduler.begin, scheduler.end = round(scheduler.get("begin", 0) * share), round(scheduler.end * share)
        if "milestones" in scheduler:
            scheduler.milestones = [max(1, round(step * share)) for step in scheduler.milestones]
        if scheduler.end > scheduler.begin:
            kept.append(scheduler)
    cfg.param_scheduler = kept
