"""Depart from a published protocol as was asked: a short run, another learning rate, a part of the training set to test on."""

import hashlib
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from core.errors import InputError
from transfer.frameworks.mmseg import tiny
from transfer.frameworks.mmseg.data import check, images, leaves


def vary(cfg: Config, shortened: str, lr_factor: float, hold_out: float) -> list[str]:
    """Change ``cfg`` in place and return what was changed, as text; raise FileError when a dataset is not whole."""
    said = []
    if shortened:
        tiny.shorten(cfg, shortened)
        said.append(f"tiny: {tiny.ITERATIONS} iterations on {shortened}; this measures nothing")
    check(cfg)
    if lr_factor != 1:
        cfg.optim_wrapper.optimizer.lr *= lr_factor
        for scheduler in cfg.get("param_scheduler") or []:
            if "eta_min" in scheduler:
                scheduler.eta_min *= lr_factor
        said.append(f"lr times {lr_factor:g}")
    if hold_out:
        hold_back(cfg, hold_out)
        said.append(f"{hold_out:.0%} of the training images are held out and measured on instead of the test set")
    return said


def hold_back(cfg: Config, share: float) -> None:
    """Train on all but a share of the training images, and measure on that share with the test pipeline."""
    pipeline = next(leaves(cfg.val_dataloader.dataset)).pipeline
    held = []
    for dataset in leaves(cfg.train_dataloader.dataset):
        names = [path.stem for path in images(dataset)][: dataset.get("indices")]
        chosen = [_held(name, share) for name in names]
        if all(chosen) or not any(chosen):
            raise InputError(
                f"--hold-out {share:g}: {len(names)} images in {dataset.data_root} are too few for that part"
            )
        held.append(_part(dataset, [i for i, out in enumerate(chosen) if out], pipeline))
        dataset.indices = [i for i, out in enumerate(chosen) if not out]
    cfg.val_dataloader.dataset = held[0] if len(held) == 1 else ConfigDict(type="ConcatDataset", datasets=held)
    cfg.test_dataloader = cfg.val_dataloader


def _part(dataset: ConfigDict, indices: list[int], pipeline: Any) -> ConfigDict:
    return ConfigDict({**dataset.to_dict(), "indices": indices, "pipeline": pipeline})


def _held(name: str, share: float) -> bool:
    """Tell whether an image is in the held-out share, by the hash of its name (Detectron2's side does the same)."""
    digest = hashlib.sha256(Path(name).stem.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
