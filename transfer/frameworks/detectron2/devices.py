"""Fit a published protocol to the devices at hand: the same images per iteration, norms over as many, the same schedule."""

from transfer.frameworks.detectron2 import compat  # noqa: F401, I001 - first: it prepares Detectron2's import

import functools
from collections.abc import Callable, Collection
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

from core.errors import InputError
from core.run_folder import flat
from transfer.frameworks._protocol import spread

SYNCHRONISED = ("SyncBN", "naiveSyncBN")
REGIONS = 10  # annotated objects of an image in the trial of memory


def adapt(
    cfg: CfgNode,
    processes: int,
    cuda: bool,
    norm: str = "",
    given: Collection[str] = (),
    limit: int = 0,
    linear: bool = False,
    trial: Callable[[CfgNode, int], bool] | None = None,
) -> tuple[CfgNode, list[str]]:
    """Return ``cfg`` for ``processes`` devices and what was changed, as text; ``norm`` replaces SyncBN where it is given.

    The published images per iteration, ``SOLVER.IMS_PER_BATCH``, are kept, as MoCo's author advises (facebookresearch/moco,
    issue 11), and with them lr and schedule; ``linear`` scales these instead. A device takes at most ``limit`` images at a
    time, or without a limit as many as ``trial`` finds room for. Keys in ``given`` (the user's own) are never scaled.
    """
    cfg = cfg.clone()
    solver, said = cfg.SOLVER, list[str]()
    reference = solver.REFERENCE_WORLD_SIZE or processes
    batch = solver.IMS_PER_BATCH
    if batch % reference:
        raise InputError(
            f"SOLVER.IMS_PER_BATCH {batch} is not a multiple of "
            f"{f'SOLVER.REFERENCE_WORLD_SIZE {reference}' if solver.REFERENCE_WORLD_SIZE else f'{processes} devices'}; "
            "change one of them"
        )
    if not cuda:
        cfg.MODEL.DEVICE = "cpu"
    if cfg.MODEL.DEVICE == "cpu" and solver.AMP.ENABLED:
        solver.AMP.ENABLED = False
        said.append("SOLVER.AMP is off: Detectron2 has it for CUDA only")
    seen = norm_group(cfg, batch, reference)
    said += _replace(cfg, _norm(processes, cuda, norm), processes, cuda)
    own = batch // reference

    def holds(images: int) -> bool:
        if limit:
            return images <= limit
        return trial is None or images <= own or trial(cfg, images)

    found = spread(batch, own, processes, seen, functools.cache(holds), linear)
    solver.ACCUMULATE, solver.REFERENCE_WORLD_SIZE = found.accumulate, processes  # else Detectron2 scales it once more
    solver.IMS_PER_BATCH = found.forward * found.accumulate * processes
    _scale(cfg, found.scale, given)
    said += [found.said] if found.said else []
    if "TEST.PRECISE_BN.NUM_ITER" not in given and seen:  # as many images as in the original
        images = norm_group(cfg, found.forward * processes, processes)
        cfg.TEST.PRECISE_BN.NUM_ITER = max(1, round(cfg.TEST.PRECISE_BN.NUM_ITER * seen / images))
    return cfg, said


def summary(cfg: CfgNode, processes: int) -> dict[str, Any]:
    """Return what a protocol's numbers depend on besides data and network, for ``processes`` devices.

    ``batch`` counts the images of an iteration, ``norm_group`` those that a batch norm sees (0: there is none),
    ``precise_bn_images`` those that the final statistics are made of.
    """
    solver, precise = cfg.SOLVER, cfg.TEST.PRECISE_BN
    group = norm_group(cfg, solver.IMS_PER_BATCH // solver.ACCUMULATE, processes)
    return {
        "devices": processes,
        "batch": solver.IMS_PER_BATCH,
        "accumulate": solver.ACCUMULATE,
        "lr": solver.BASE_LR,
        "warm_up": solver.WARMUP_ITERS,
        "steps": list(solver.STEPS),
        "iterations": solver.MAX_ITER,
        "norm": norms[0] if (norms := list(_norms(cfg).values())) else "none",
        "norm_group": group,
        "precise_bn_images": precise.NUM_ITER * group if precise.ENABLED else 0,
    }


def norm_group(cfg: CfgNode, batch: int, processes: int) -> int:
    """Return how many of the ``batch`` images of a forward on ``processes`` devices a batch norm sees, 0 without one."""
    norms = set(_norms(cfg).values())
    if norms & set(SYNCHRONISED):
        return batch
    return batch // processes if "BN" in norms else 0


def _norms(cfg: CfgNode) -> dict[str, str]:
    """Return the norms that the network has, by key: the backbone's first."""
    model, name = cfg.MODEL, cfg.MODEL.BACKBONE.NAME
    parts = {
        "RESNETS": "resnet" in name,
        "FPN": "fpn" in name,
        "ROI_BOX_HEAD": model.ROI_BOX_HEAD.NUM_CONV > 0 and not model.ROI_HEADS.NAME.startswith("Res5"),
        "ROI_MASK_HEAD": model.MASK_ON,
    }
    return {f"MODEL.{part}.NORM": model[part].NORM for part, there in parts.items() if there and model[part].NORM}


def _norm(processes: int, cuda: bool, asked: str) -> str:
    if processes == 1:
        return "BN"
    if not cuda and asked in ("", "SyncBN"):
        return "naiveSyncBN"  # the one synchronised norm of Detectron2 that gloo can carry
    return asked


def _replace(cfg: CfgNode, norm: str, processes: int, cuda: bool) -> list[str]:
    """Put ``norm`` for the synchronised ones, where it is given and another; return what to say."""
    found = {key: value for key, value in flat(cfg) if key.endswith(".NORM") and value in SYNCHRONISED}
    changed = [key for key in sorted(found) if norm not in ("", found[key])]
    if not changed:
        return []
    before = "/".join(sorted({found[key] for key in changed}))
    for key in changed:
        cfg.merge_from_list([key, norm])
    reason = "one device" if processes == 1 else "asked for" if cuda else "SyncBN fails on the CPU"
    return [f"{before} becomes {norm} ({reason}) in {', '.join(key.removesuffix('.NORM') for key in changed)}"]


def _scale(cfg: CfgNode, scale: float, given: Collection[str]) -> None:
    """Multiply lr by ``scale`` and divide what counts iterations, but for the keys that the user gave."""
    if scale == 1:
        return
    changed: dict[str, Any] = {"SOLVER.BASE_LR": cfg.SOLVER.BASE_LR * scale}
    for key in ("SOLVER.WARMUP_ITERS", "SOLVER.MAX_ITER", "SOLVER.CHECKPOINT_PERIOD", "TEST.EVAL_PERIOD"):
        part, name = key.split(".")
        changed[key] = round(cfg[part][name] / scale)
    changed["SOLVER.STEPS"] = tuple(round(step / scale) for step in cfg.SOLVER.STEPS)
    for key, value in changed.items():
        if key not in given:
            cfg.merge_from_list([key, value])


def fits(cfg: CfgNode, images: int) -> bool:
    """Try a step on ``images`` images of the largest size with one device; tell whether its memory holds it."""
    try:
        _step(cfg, images)
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def _step(cfg: CfgNode, images: int) -> None:
    height, width = max(cfg.INPUT.MIN_SIZE_TRAIN), cfg.INPUT.MAX_SIZE_TRAIN
    corners = torch.linspace(0, 0.5, REGIONS)[:, None] * torch.tensor([width, height] * 2)
    boxes = corners + torch.tensor([0, 0, width / 2, height / 2])
    truth = Instances((height, width), gt_boxes=Boxes(boxes), gt_classes=torch.zeros(REGIONS, dtype=torch.long))
    if cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT == "polygon":
        truth.gt_masks = PolygonMasks([[box[[0, 1, 2, 1, 2, 3]].double().numpy()] for box in boxes])
    elif cfg.MODEL.MASK_ON:
        truth.gt_masks = BitMasks(torch.ones(REGIONS, height, width, dtype=torch.bool))
    model = build_model(cfg).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    with EventStorage(), torch.autocast("cuda", enabled=cfg.SOLVER.AMP.ENABLED):
        losses = model([{"image": pixels, "instances": truth}] * images)
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
