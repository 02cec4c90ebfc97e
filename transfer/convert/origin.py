"""What a checkpoint and the files beside it say of a network beyond its tensors: its architecture, its pixels, where it strides.

Two networks can have the same names and shapes and compute something else: Caffe's ResNets (BGR, std 1, stride in the 1x1
convolution), timm's resnetaa50 and resnetblur50. What is found goes into the recipe; what nothing tells is assumed, and said.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from core import bounds

# of MMDetection's resnet50_caffe and Detectron2's MSRA models, in BGR (detectron2/config/defaults.py, MODEL.PIXEL_MEAN)
CAFFE = {"channel_order": "BGR", "mean": (103.53, 116.28, 123.675), "std": (1.0, 1.0, 1.0), "stride_in_1x1": True}
PIXELS = ("channel_order", "mean", "std", "stride_in_1x1")
NEIGHBOURS = ("config.json", "preprocessor_config.json", "config.yaml")


@dataclasses.dataclass
class Origin:
    """``arch`` is the name that the file or its neighbours give, ``facts`` are keys of a recipe, ``notes`` say who told them."""

    arch: str = ""
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    def say(self, who: str, **facts: Any) -> None:
        """Take what is not known yet."""
        new = {key: value for key, value in facts.items() if value is not None and key not in self.facts}
        self.facts |= new
        if new.get("stride_in_1x1") or new.get("channel_order") == "BGR" or new.get("std") == CAFFE["std"]:
            told = ", ".join(f"{key} {_shown(value)}" for key, value in new.items())
            self.notes.append(f"{who}: {told}")


def of(
    checkpoint: Mapping[str, Any], tensors: Mapping[str, Tensor], backbone: Mapping[str, Tensor], path: Path
) -> Origin:
    """Ask, in this order: the recipe of a converted file, ``meta.cfg``, ``pixel_mean``, the files beside it, the norms.

    ``tensors`` are all of the file, ``backbone`` the wanted ones.
    """
    found = Origin(arch=name(checkpoint, path))
    recipe = checkpoint.get("recipe")
    if isinstance(recipe, Mapping):
        found.say("its recipe", **{key: _value(recipe[key]) for key in PIXELS if key in recipe})
    meta = checkpoint.get("meta")
    if isinstance(meta, Mapping):
        _openmmlab(found, str(meta.get("cfg") or meta.get("config") or ""))
    _pixel_buffers(found, tensors)
    if not isinstance(recipe, Mapping):
        _neighbours(found, path)
    if not found.facts.get("std") and _folded(backbone):
        found.say(
            "all means of its norms are 0 and all variances 1, as in MSRA's ResNets, whose recipe is assumed", **CAFFE
        )
    return found


def name(checkpoint: Mapping[str, Any], path: Path) -> str:
    """Return what the file, its recipe or the config.json beside it call the network, or nothing."""
    for key in ("architecture", "arch", "model_name"):
        if isinstance(checkpoint.get(key), str):
            return str(checkpoint[key])
    if isinstance(recipe := checkpoint.get("recipe"), Mapping):
        return str(recipe.get("model", ""))
    config = _read(path.parent / NEIGHBOURS[0])
    inner = config.get("pretrained_cfg")
    found = config.get("architecture") or (inner.get("architecture") if isinstance(inner, Mapping) else None)
    return found if isinstance(found, str) else ""


def _openmmlab(found: Origin, text: str) -> None:
    """Read the config that mm* packages keep as text: ``style='caffe'``, ``bgr_to_rgb`` (``to_rgb`` before 3.0), mean, std."""
    order = re.search(r"\b(?:bgr_to_rgb|to_rgb)['\"]?\s*[=:]\s*(True|False)", text)
    if order is None and "caffe" not in text:
        return
    caffe = bool(re.search(r"\bstyle['\"]?\s*[=:]\s*['\"]caffe['\"]", text))
    found.say(
        "meta.cfg",
        channel_order=None if order is None else ("RGB" if order[1] == "True" else "BGR"),
        mean=_listed(text, "mean"),
        std=_listed(text, "std"),
        stride_in_1x1=caffe or None,
    )


def _pixel_buffers(found: Origin, tensors: Mapping[str, Tensor]) -> None:
    """Read what detectors keep beside their weights; blue has the smallest mean of photographs, which tells the order."""
    values = {
        part: tensor.flatten().tolist()
        for name, tensor in tensors.items()
        if (part := name.rpartition(".")[2]) in ("pixel_mean", "pixel_std")
        and tensor.numel() == 3
        and not tensor.is_meta
    }
    if "pixel_mean" in values:
        mean, std = _scaled(values["pixel_mean"], 1.0), _scaled(values.get("pixel_std", (1.0, 1.0, 1.0)), 1.0)
        order = "BGR" if mean[0] < mean[2] else "RGB"
        found.say("pixel_mean", channel_order=order, mean=mean, std=std, stride_in_1x1=std == CAFFE["std"] or None)


def _neighbours(found: Origin, path: Path) -> None:
    """Read what stands beside the file: timm's and transformers' config.json, Detectron2's config.yaml."""
    values = {name: _read(path.parent / name) for name in NEIGHBOURS}
    config, pixels, detectron2 = (values[name] for name in NEIGHBOURS)
    inner = config.get("pretrained_cfg")
    if isinstance(inner, Mapping):
        found.say("config.json", mean=_triple(inner.get("mean")), std=_triple(inner.get("std")))
    found.say("config.json", stride_in_1x1=config.get("downsample_in_bottleneck") is True or None)
    found.say("preprocessor_config.json", mean=_triple(pixels.get("image_mean")), std=_triple(pixels.get("image_std")))
    model = detectron2.get("MODEL")
    if isinstance(model, Mapping) and "PIXEL_MEAN" in model:
        order, resnets = detectron2.get("INPUT"), model.get("RESNETS")
        found.say(
            "config.yaml",
            channel_order=order.get("FORMAT") if isinstance(order, Mapping) else None,
            mean=_triple(model["PIXEL_MEAN"], 1.0),
            std=_triple(model.get("PIXEL_STD"), 1.0),
            stride_in_1x1=(isinstance(resnets, Mapping) and resnets.get("STRIDE_IN_1X1") is True) or None,
        )


def _read(file: Path) -> dict[str, Any]:
    """Read a mapping of JSON or YAML; nothing when there is none."""
    try:
        if file.suffix == ".json":
            return bounds.mapping(file) or {}
        value = yaml.safe_load(bounds.yaml_text(file))
    except (ValueError, RecursionError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}


def _folded(backbone: Mapping[str, Tensor]) -> bool:
    """Tell whether all norms have means 0 and variances 1 but scales of their own: a fresh network's are 1, or 0."""
    parts = {part: [t for n, t in backbone.items() if n.endswith(part)] for part in ("running_mean", "running_var")}
    usual = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    if not parts["running_mean"] or any(t.is_meta or t.dtype not in usual for p in parts.values() for t in p):
        return False
    if any(bool((t != 0).any()) for t in parts["running_mean"]) or any(
        bool((t != 1).any()) for t in parts["running_var"]
    ):
        return False
    scales = [t for n in backbone if n.endswith("running_mean") and (t := backbone.get(f"{n[:-12]}weight")) is not None]
    return any(bool(((t != 1) & (t != 0)).any()) for t in scales)


def _listed(text: str, name: str) -> tuple[float, ...] | None:
    found = re.search(rf"\b{name}['\"]?\s*[=:]\s*[\[(]([\d\s.,eE+-]*)[\])]", text)
    try:
        return _triple([float(value) for value in found[1].split(",") if value.strip()], 1.0) if found else None
    except ValueError:
        return None


def _triple(values: Any, scale: float = 255.0) -> tuple[float, ...] | None:
    known = isinstance(values, list | tuple) and len(values) == 3
    return _scaled(values, scale) if known and all(isinstance(value, int | float) for value in values) else None


def _scaled(values: Any, scale: float) -> tuple[float, ...]:
    """Return values on the 0-255 scale; ``scale`` is 255 where their source has 0 to 1."""
    return tuple(round(float(value) * scale, 4) for value in values)


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _shown(value: Any) -> str:
    return "/".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)
