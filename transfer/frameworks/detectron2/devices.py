"""Fit a protocol to the devices at hand without changing what is learned per image."""

from transfer.frameworks.detectron2 import compat  # noqa: F401, I001 - first: it prepares Detectron2's import

from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer

from core.errors import InputError
from core.run_folder import flat


def adapt(cfg: CfgNode, processes: int, cuda: bool, norm: str = "") -> tuple[CfgNode, list[str]]:
    """Return ``cfg`` for ``processes`` devices and what was changed, as text; ``norm`` replaces SyncBN where it is given.

    With ``SOLVER.REFERENCE_WORLD_SIZE`` set, the batch per device stays, lr follows the batch, and warm-up, steps and
    iterations are divided by it (Detectron2's rule, after Goyal et al. 2017, arXiv 1706.02677).
    """
    said = []
    reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference and cfg.SOLVER.IMS_PER_BATCH % reference:
        raise InputError(
            f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} is not a multiple of SOLVER.REFERENCE_WORLD_SIZE "
            f"{reference}; change one of them"
        )
    cfg = DefaultTrainer.auto_scale_workers(cfg, processes).clone()
    if cfg.SOLVER.IMS_PER_BATCH % processes:
        raise InputError(f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} is not a multiple of {processes} devices")
    if not cuda and cfg.MODEL.DEVICE != "cpu":
        cfg.MODEL.DEVICE = "cpu"
    if cfg.MODEL.DEVICE == "cpu" and cfg.SOLVER.AMP.ENABLED:
        cfg.SOLVER.AMP.ENABLED = False
        said.append("SOLVER.AMP is off: Detectron2 has it for CUDA only")
    norm = _norm(processes, cuda, norm)
    synchronised = sorted(key for key, value in flat(cfg) if key.endswith(".NORM") and value == "SyncBN")
    changed = synchronised if norm != "SyncBN" else []
    for key in changed:
        cfg.merge_from_list([key, norm])
    if changed:
        reason = "one device" if processes == 1 else "asked for" if cuda else "SyncBN fails on the CPU"
        said.append(f"SyncBN becomes {norm} ({reason}) in {', '.join(key.removesuffix('.NORM') for key in changed)}")
    return cfg, said


def summary(cfg: CfgNode, processes: int) -> dict[str, Any]:
    """Return the facts of a protocol that depend on the number of devices."""
    solver, model = cfg.SOLVER, cfg.MODEL
    return {
        "devices": processes,
        "batch": solver.IMS_PER_BATCH,
        "lr": solver.BASE_LR,
        "warm_up": solver.WARMUP_ITERS,
        "steps": list(solver.STEPS),
        "iterations": solver.MAX_ITER,
        "norm": model.RESNETS.NORM if "resnet" in model.BACKBONE.NAME else model.FPN.NORM,
    }


def describe(published: dict[str, Any], effective: dict[str, Any]) -> list[str]:
    """Return the published and the effective protocol as lines that stand one under the other."""
    lines = []
    for name, r in (("published", published), ("effective", effective)):
        lines.append(
            f"{name}: {r['devices']} x {r['batch'] // r['devices']} images, lr {r['lr']:g}, warm-up {r['warm_up']}, "
            f"steps {'/'.join(map(str, r['steps']))}, {r['iterations']} iterations, {r['norm']}"
        )
    return lines


def _norm(processes: int, cuda: bool, asked: str) -> str:
    if processes == 1:
        return "BN"
    if not cuda and asked in ("", "SyncBN"):
        return "naiveSyncBN"  # the one synchronised norm of Detectron2 that gloo can carry
    return asked or "SyncBN"
