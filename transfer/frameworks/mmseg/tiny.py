"""Shorten any segmentation protocol to a smoke run: same network, a few small crops and iterations."""

from pathlib import Path
from typing import Any

from mmengine.config import Config

from core.errors import InputError
from core.files import datasets_root
from core.shapes import CLASSES

ITERATIONS = 4
BATCH = 2
TRAIN_IMAGES, TEST_IMAGES = 40, 6
CROP = (64, 64)
EMBEDDED = "shapes"
VOC = 21


def shorten(cfg: Config, data: str) -> None:
    """Change ``cfg``, already fitted to the devices, in place; ``data`` is ``shapes`` or a folder in VOC layout."""
    dataset, classes = _dataset(data)
    for name, split, count in (("train", "train", TRAIN_IMAGES), ("val", "val", TEST_IMAGES)):
        loader = cfg[f"{name}_dataloader"]
        part = {"ann_file": f"ImageSets/Segmentation/{split}.txt", "indices": count, "pipeline": _pipeline(name)}
        loader.dataset = {**dataset, **part}
        loader.batch_size, loader.num_workers, loader.persistent_workers = BATCH if name == "train" else 1, 0, False
    cfg.test_dataloader = cfg.val_dataloader
    cfg.model.data_preprocessor["size"] = CROP
    for head in _heads(cfg):
        if head.num_classes != classes:
            head.num_classes = classes
            head.loss_decode.pop("class_weight", None)  # it has one weight per class
    _shorten_schedule(cfg, ITERATIONS / cfg.train_cfg.max_iters)


def _dataset(data: str) -> tuple[dict[str, Any], int]:
    """Return the dataset of a source and its number of classes."""
    folders = {"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"}
    if data == EMBEDDED:
        classes = ("background", *CLASSES)
        palette = [[(index * 53) % 256, (index * 97) % 256, (index * 193) % 256] for index in range(len(classes))]
        names = {"metainfo": {"classes": classes, "palette": palette}, "img_suffix": ".jpg", "seg_map_suffix": ".png"}
        root = str(datasets_root() / "shapes" / "VOC")
        return {"type": "BaseSegDataset", "data_root": root, "data_prefix": folders, **names}, len(classes)
    if not (Path(data) / "ImageSets" / "Segmentation").is_dir():
        raise InputError(
            f"--tiny {data}: no folder in VOC layout (ImageSets/Segmentation/); make one with tools/prepare_data.py "
            "coco-to-voc, or give 'shapes', which is embedded"
        )
    return {"type": "PascalVOCDataset", "data_root": data, "data_prefix": folders}, VOC


def _pipeline(name: str) -> list[dict[str, Any]]:
    load, labels, pack = ({"type": kind} for kind in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs"))
    if name == "val":
        return [load, {"type": "Resize", "scale": (256, 64), "keep_ratio": True}, labels, pack]
    resize = {"type": "RandomResize", "scale": (256, 64), "ratio_range": (0.5, 2.0), "keep_ratio": True}
    crop = {"type": "RandomCrop", "crop_size": CROP, "cat_max_ratio": 0.75}
    return [load, labels, resize, crop, {"type": "RandomFlip", "prob": 0.5}, pack]


def _heads(cfg: Config) -> list[Any]:
    named = [cfg.model.get(name) or [] for name in ("decode_head", "auxiliary_head")]
    return [head for heads in named for head in ([heads] if isinstance(heads, dict) else heads)]


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
