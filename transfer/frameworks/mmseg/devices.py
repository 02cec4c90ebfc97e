"""Fit a protocol to the devices at hand without changing what is learned per image."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict


def adapt(cfg: Config, processes: int, cuda: bool) -> dict[str, dict[str, Any]]:
    """Change ``cfg`` in place for ``processes`` devices and return the effective and the published recipe.

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
    return {"effective": summary(cfg, processes, batch), "published": before}


def published(cfg: Config, processes: int) -> dict[str, Any]:
    """Return the recipe as the config has it, for its own number of devices where it says that."""
    own = cfg.train_dataloader.batch_size
    batch = (cfg.get("auto_scale_lr") or {}).get("base_batch_size", processes * own)
    return summary(cfg, batch // own, batch)


def describe(recipes: dict[str, dict[str, Any]]) -> list[str]:
    """Return the two recipes as lines that stand one under the other, and what became of SyncBN."""
    lines = []
    for name in ("published", "effective"):
        r = recipes[name]
        warm_up = f", warm-up {r['warm_up']}" if r["warm_up"] else ""
        steps = f", steps {r['steps']}" if r["steps"] else ""
        lines.append(
            f"{name}: batch {r['batch']} ({r['devices']} x {r['batch'] // max(r['devices'], 1)}), lr {r['lr']:g}, "
            f"{r['iterations']} iterations{warm_up}{steps}, {r['norm']}"
        )
    effective = recipes["effective"]
    if recipes["published"]["norm"] != effective["norm"]:
        where = "on one device" if effective["devices"] == 1 else "SyncBN needs CUDA; statistics stay per process"
        lines.append(f"SyncBN becomes BN ({where})")
    return lines


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
