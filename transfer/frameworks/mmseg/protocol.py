"""Fit a published protocol to the devices at hand, and depart from it as asked: short, at another rate, on a part."""

from transfer.frameworks.mmseg import compat  # noqa: F401, I001 - first: it prepares the mm* packages

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from core.errors import InputError
from core.files import datasets_root
from core.shapes import CLASSES
from transfer.frameworks._protocol import departures, held
from transfer.frameworks.mmseg.data import check, images, leaves
from transfer.frameworks.mmseg.heads import every


ITERATIONS = 4
BATCH = 2
TRAIN_IMAGES, TEST_IMAGES = 40, 6
CROP = (64, 64)
EMBEDDED = "shapes"
VOC = 21


def adapt(cfg: Config, processes: int, cuda: bool) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Change ``cfg`` in place for ``processes`` devices; return the effective and the published recipe, and what to say.

    The published batch is ``auto_scale_lr.base_batch_size`` (MMEngine's field). With a share s of it at hand, lr is
    multiplied by s and warm-up, steps and iterations are divided by it (linear scaling rule, Goyal et al. 2017).
    """
    batch = processes * cfg.train_dataloader.batch_size
    before = published(cfg, processes)
    if not cuda or processes == 1:
        _replace_sync_bn(cfg.model)
    if batch != before["batch"]:
        _scale(cfg, batch / before["batch"])
        cfg.auto_scale_lr.base_batch_size = batch
    after = summary(cfg, processes, batch)
    where = "one device" if processes == 1 else "SyncBN needs CUDA; statistics stay per process"
    said = [f"SyncBN becomes BN ({where})"] if before["norm"] != after["norm"] else []
    return {"effective": after, "published": before}, said


def published(cfg: Config, processes: int) -> dict[str, Any]:
    """Return the recipe as the config has it, for its own number of devices where it says that."""
    own = cfg.train_dataloader.batch_size
    batch = (cfg.get("auto_scale_lr") or {}).get("base_batch_size", processes * own)
    return summary(cfg, batch // own, batch)


def _scale(cfg: Config, share: float) -> None:
    def longer(count: int) -> int:
        return max(1, round(count / share))

    cfg.optim_wrapper.optimizer.lr *= share
    for key in ("max_iters", "val_interval"):
        if key in cfg.train_cfg:
            cfg.train_cfg[key] = longer(cfg.train_cfg[key])
    hooks = cfg.get("default_hooks") or {}
    if (hook := hooks.get("checkpoint")) and not hook.get("by_epoch", True) and hook.get("interval", -1) > 0:
        hook.interval = longer(hook.interval)
    for scheduler in cfg.get("param_scheduler") or []:
        if "eta_min" in scheduler:
            scheduler.eta_min *= share
        if scheduler.get("by_epoch", True):
            continue
        for key in ("begin", "end", "T_max", "step_size"):
            if scheduler.get(key):
                scheduler[key] = longer(scheduler[key])
        if scheduler.get("milestones"):
            scheduler.milestones = [longer(step) for step in scheduler.milestones]


def summary(cfg: Config, devices: int, batch: int) -> dict[str, Any]:
    """Return the facts of a protocol that depend on the number of devices; ``batch`` is that of all of them."""
    schedulers = cfg.get("param_scheduler") or []
    warm_ups = [s.get("end", 0) for s in schedulers if s.type in ("LinearLR", "ConstantLR")]
    return {
        "devices": devices,
        "batch": batch,
        "lr": cfg.optim_wrapper.optimizer.lr,
        "warm_up": max(warm_ups, default=0),
        "steps": [step for s in schedulers for step in s.get("milestones", [])],
        "iterations": cfg.train_cfg.get("max_iters"),
        "norm": (cfg.model.backbone.get("norm_cfg") or {"type": "BN"})["type"],
    }


def _replace_sync_bn(node: Any) -> None:
    for mapping in _mappings(node):
        if mapping.get("type") == "SyncBN":
            mapping["type"] = "BN"


def _mappings(node: Any) -> Iterator[ConfigDict]:
    if isinstance(node, Mapping):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for value in node:
            yield from _mappings(value)


def vary(cfg: Config, shortened: str, lr_factor: float, hold_out: float) -> list[str]:
    """Change ``cfg`` in place and return what was changed, as text; raise FileError when a dataset is not whole."""
    if shortened:
        shorten(cfg, shortened)
    check(cfg)
    if lr_factor != 1:
        cfg.optim_wrapper.optimizer.lr *= lr_factor
        for scheduler in cfg.get("param_scheduler") or []:
            if "eta_min" in scheduler:
                scheduler.eta_min *= lr_factor
    if hold_out:
        hold_back(cfg, hold_out)
    return departures(shortened, ITERATIONS, lr_factor, hold_out)


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
    for _, head in every(cfg.model):
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
