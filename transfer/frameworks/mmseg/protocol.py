"""Fit a published protocol to the devices at hand, and depart from it as asked: short, at another rate, on a part."""

from transfer.frameworks.mmseg import compat  # noqa: F401, I001 - first: it prepares the mm* packages

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from core.errors import InputError
from core.files import datasets_root
from core.shapes import CLASSES
from transfer.datasets import own
from transfer.frameworks._protocol import departures, held
from transfer.frameworks.mmseg.data import check, images, leaves
from transfer.frameworks.mmseg.heads import every


ITERATIONS = 4
BATCH = 2
TRAIN_IMAGES, TEST_IMAGES = 40, 6
CROP = (64, 64)
EMBEDDED = "shapes"


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


def use_own(cfg: Config, data: str, skip_bad: bool = False) -> list[str]:
    """Change ``cfg`` in place to a user's folder: its sets, its classes and the head; return what to say."""
    found = own.prepare(data, "masks", skip_bad=skip_bad)
    for name, split in (("train", "train"), ("val", "val"), ("test", "val")):
        loader = cfg[f"{name}_dataloader"]
        pipeline = next(leaves(loader.dataset)).pipeline
        for step in _mappings(pipeline):
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
        loader.batch_size, loader.num_workers, loader.persistent_workers = BATCH if name == "train" else 1, 0, False
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
