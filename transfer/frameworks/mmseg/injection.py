"""Make a config and a weights file agree: fill what the config leaves open, refuse what it contradicts."""

import dataclasses
import importlib
import importlib.util
import math
from pathlib import Path
from typing import Any

from transfer.frameworks.mmseg import compat  # isort: skip # noqa: F401 - before any mm* package
from mmengine.config import Config, ConfigDict
from torch import Tensor

from core import plugins
from core.errors import InputError
from core.files import FileError, read_weights_file
from transfer.convert.recipe import Recipe

# Keys of model.backbone that are the same for every backbone of this suite, and what the other value would do.
FIXED: dict[str, tuple[Any, str]] = {
    "type": ("ResNet", "ResNetV1c and V1d have another stem, which would stay random"),
    "style": ("pytorch", "'caffe' puts the stride into the 1x1: it loads silently and computes something else"),
    "contract_dilation": (True, "otherwise a dilated stage is not torchvision's"),
    "frozen_stages": (-1, "nothing is frozen in the protocols"),
    "norm_eval": (False, "all norms are trained in the protocols"),
    "deep_stem": (False, "the weights have one 7x7 convolution as stem"),
    "avg_down": (False, "the weights have a strided 1x1 as shortcut"),
    "pretrained": (None, "the backbone comes from --weights"),
}
# Every backbone of core.backbones has its side of MMSegmentation in a module of the same name; importing it registers it.
FAMILIES = {
    name: importlib.import_module(f"transfer.frameworks.mmseg.{name}")
    for name in plugins.names("core.backbones")
    if importlib.util.find_spec(f"transfer.frameworks.mmseg.{name}")
}
EXPANSION = {18: 1, 34: 1, 50: 4, 101: 4, 152: 4}


@dataclasses.dataclass(frozen=True)
class Weights:
    """A converted backbone: tensors under torchvision's names, and the recipe if the file carries one."""

    path: Path
    tensors: dict[str, Tensor]
    recipe: Recipe | None


def read_weights(path: Path) -> Weights:
    """Read a file of tools/convert_to_mmseg.py safely; raise FileError when it is something else."""
    content = read_weights_file(path)
    state = content.get("state_dict", content)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    found = None if content.get("recipe") is None else Recipe.from_dict(content["recipe"], path)
    if "conv1.weight" not in tensors and (found is None or found.family == "resnet"):
        raise FileError(f"{path} has no backbone under torchvision's names; convert it with tools/convert_to_mmseg.py")
    return Weights(path, tensors, found)


def inject(cfg: Config, weights: Weights | None, source: Path) -> None:
    """Write the facts of DESIGN's table into ``cfg`` where they are unset.

    Raises InputError naming the key and both values where the config says otherwise.
    """
    model = cfg.model
    backbone = model.backbone
    family = _family(backbone, weights)
    if family == "resnet":
        for key, (wanted, reason) in FIXED.items():
            _agree(backbone, key, wanted, f"{source}: model.backbone", reason)
    _agree(model, "pretrained", None, f"{source}: model", FIXED["pretrained"][1])
    if family == "resnet" and (backbone.get("norm_cfg") or {"type": "BN"})["type"] not in ("BN", "SyncBN"):
        raise InputError(f"{source}: model.backbone.norm_cfg.type is {backbone.norm_cfg.type!r}; use 'SyncBN' or 'BN'")
    if weights is not None:
        _agree(backbone, "init_cfg", None, f"{source}: model.backbone", FIXED["pretrained"][1])
        _agree(cfg, "load_from", None, str(source), FIXED["pretrained"][1])
        if weights.recipe is not None:
            _inject_recipe(cfg, weights.recipe, source, weights.path)
    _fit_heads(model, source)


def _family(backbone: ConfigDict, weights: Weights | None) -> str:
    """Return the family that the weights name, else the one that defines the config's type, else ResNet's."""
    if weights is not None and weights.recipe is not None:
        return weights.recipe.family
    kind = backbone.get("type", "")
    return next((name for name, module in FAMILIES.items() if name != "resnet" and hasattr(module, kind)), "resnet")


def _inject_recipe(cfg: Config, recipe: Recipe, source: Path, file: Path) -> None:
    if recipe.family not in FAMILIES:
        raise InputError(
            f"{file}: its recipe has family {recipe.family!r}; MMSegmentation has {', '.join(FAMILIES)} here"
        )
    for name, wanted in {"stem": "imagenet", "stride_in_1x1": False, "norm": "BN"}.items():
        if recipe.family == "resnet" and (found := getattr(recipe, name)) != wanted:
            raise InputError(f"{file}: its recipe has {name} {found!r}, MMSegmentation's ResNet here has {wanted!r}")
    model = cfg.model
    if model.get("data_preprocessor") is None:
        model.data_preprocessor = cfg.get("data_preprocessor") or ConfigDict(type="SegDataPreProcessor")
    reason = f"{file} says so"
    facts = {"depth": recipe.depth, "base_channels": recipe.width, "stem_channels": recipe.width}
    for key, value in (facts if recipe.family == "resnet" else FAMILIES[recipe.family].facts(recipe)).items():
        _agree(model.backbone, key, value, f"{source}: model.backbone", reason)
    where = f"{source}: model.data_preprocessor"
    _agree(model.data_preprocessor, "mean", list(recipe.mean), where, reason)
    _agree(model.data_preprocessor, "std", list(recipe.std), where, reason)
    _agree(model.data_preprocessor, "bgr_to_rgb", recipe.channel_order == "RGB", where, reason)


def _agree(node: ConfigDict | Config, key: str, wanted: Any, where: str, reason: str) -> None:
    """Set ``key`` where it is unset or None; raise InputError where it has another value."""
    found = node.get(key)
    if found is None:
        if wanted is not None:
            node[key] = wanted
    elif not _same(found, wanted):
        raise InputError(f"{where}.{key} is {found!r}, but it must be {wanted!r} ({reason}); change the config")


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(math.isclose(a, b) for a, b in zip(found, wanted, strict=True))
    return bool(found == wanted)


def _fit_heads(model: ConfigDict, source: Path) -> None:
    """Set or check each head's ``in_channels`` against the stage it reads."""
    backbone = model.backbone
    if backbone.get("type") != "ResNet":
        first = backbone.get("width", 0)
    elif backbone.get("depth") not in EXPANSION:
        raise InputError(f"{source}: model.backbone.depth is {backbone.get('depth')!r}; there are {sorted(EXPANSION)}")
    else:
        first = backbone.get("base_channels", 64) * EXPANSION[backbone.depth]
    channels = [first * 2**stage for stage in backbone.get("out_indices", (0, 1, 2, 3))]
    if model.get("neck") is not None:
        return  # the heads read the neck, and the neck checks itself
    for name in ("decode_head", "auxiliary_head"):
        heads = model.get(name) or []
        for head in [heads] if isinstance(heads, dict) else heads:
            index = head.get("in_index", -1)
            many = isinstance(index, list | tuple)
            wanted = [channels[i] for i in index] if many else channels[index]
            where = f"{source}: model.{name}"
            _agree(head, "in_channels", wanted, where, f"stage {index} of the backbone has that many")
