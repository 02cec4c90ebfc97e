"""Make a config and a weights file agree: fill what the config leaves open, refuse what it contradicts."""

from transfer.frameworks.detectron2 import compat  # noqa: F401, I001 - first: the families import Detectron2

import importlib
import importlib.util
import math
from pathlib import Path
from typing import Any

from core import plugins
from core.errors import InputError
from transfer.convert.recipe import Recipe

SLIM = "build_slim_resnet_fpn_backbone"
# Every backbone of core.backbones has its side of Detectron2 in a module of the same name; importing it registers what it has.
FAMILIES = {
    name: importlib.import_module(f"transfer.frameworks.detectron2.{name}")
    for name in plugins.names("core.backbones")
    if importlib.util.find_spec(f"transfer.frameworks.detectron2.{name}")
}


def facts(recipe: Recipe) -> dict[str, Any]:
    """Return the config keys that the weights decide, with the values they need.

    Most of Detectron2's defaults load without a message and compute something else: BGR, std 1, and above all the
    stride in the 1x1 convolution, which changes res3 to res5. Other families than ResNet say it in their own module.
    """
    if recipe.family != "resnet":
        values: dict[str, Any] = FAMILIES[recipe.family].facts(recipe)
        return values
    basic = recipe.depth < 50
    values = {
        "INPUT.FORMAT": recipe.channel_order,
        "MODEL.PIXEL_MEAN": list(recipe.mean),
        "MODEL.PIXEL_STD": list(recipe.std),
        "MODEL.RESNETS.DEPTH": recipe.depth,
        "MODEL.RESNETS.STRIDE_IN_1X1": recipe.stride_in_1x1,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": recipe.width,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": recipe.width * (1 if basic else 4),
    }
    return values if basic else {**values, "MODEL.RESNETS.WIDTH_PER_GROUP": recipe.width}


def inject(cfg: Any, recipe: Recipe, explicit: set[str], file: Path | str) -> list[str]:
    """Write the recipe's facts into ``cfg`` where ``explicit`` (keys the user wrote) leaves them open.

    Returns what was set, as text. Raises InputError with the key and both values where the user wrote otherwise.
    """
    _check_known(recipe, file)
    said = []
    for key, wanted in facts(recipe).items():
        found = get(cfg, key)
        if _same(found, wanted):
            continue
        if key in explicit:
            depth = (
                f"use a config for ResNet-{wanted} (r{wanted} in its name)"
                if key.endswith("DEPTH")
                else "remove the key"
            )
            raise InputError(
                f"{key} is {found!r} in the config, but {file} needs {wanted!r}; {depth}, or use other weights"
            )
        cfg.merge_from_list([key, wanted])
        said.append(f"{key} {wanted}")
    slim = recipe.family == "resnet" and recipe.depth < 50 and recipe.width != 64
    if slim and cfg.MODEL.BACKBONE.NAME == "build_resnet_fpn_backbone":
        cfg.MODEL.BACKBONE.NAME = SLIM  # Detectron2's own builder asserts a width of 64
        said.append(f"MODEL.BACKBONE.NAME {SLIM}")
    return said


def _check_known(recipe: Recipe, file: Path | str) -> None:
    if recipe.family not in FAMILIES:
        raise InputError(f"{file}: its recipe has family {recipe.family!r}; Detectron2 has {', '.join(FAMILIES)} here")
    for name, wanted in {"stem": "imagenet", "norm": "BN"}.items():
        if recipe.family == "resnet" and (found := getattr(recipe, name)) != wanted:
            raise InputError(f"{file}: its recipe has {name} {found!r}; Detectron2's ResNet here has {wanted!r}")


def refuse_impossible(cfg: Any) -> None:
    """Raise InputError for a network that Detectron2 would build wrongly without a message."""
    depth, name = cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.BACKBONE.NAME
    if "resnet" not in name and cfg.MODEL.ROI_HEADS.NAME.startswith("Res5"):
        raise InputError(
            f"MODEL.BACKBONE.NAME is {name} and MODEL.ROI_HEADS.NAME is {cfg.MODEL.ROI_HEADS.NAME}: C4 continues a "
            "ResNet in its heads; use an FPN config such as mask-rcnn_convnext-t-fpn"
        )
    if depth < 50 and cfg.MODEL.ROI_HEADS.NAME.startswith("Res5"):
        raise InputError(
            f"MODEL.RESNETS.DEPTH is {depth} and MODEL.ROI_HEADS.NAME is {cfg.MODEL.ROI_HEADS.NAME}: C4's res5 is "
            "three bottleneck blocks, which a ResNet-18/34 has not; use an FPN config such as mask-rcnn_r18-fpn"
        )


def get(cfg: Any, key: str) -> Any:
    """Return the value at a dotted path."""
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(
            math.isclose(a, b, rel_tol=1e-6) for a, b in zip(found, wanted, strict=True)
        )
    return bool(found == wanted)
