"""A config and a weights file agree; the whole backbone is loaded from the file and proven to have arrived."""

from transfer.frameworks.mmseg import compat  # noqa: F401, I001 - first: it prepares the mm* packages

import dataclasses
import re
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from core.errors import InputError
from core.files import FileError
from core.weights_file import read_weights_file
from transfer.convert.load_check import compare
from transfer.convert.recipe import Recipe
from transfer.frameworks._protocol import check_known, same
from transfer.frameworks.mmseg.backbones import FAMILIES
from transfer.frameworks.mmseg.heads import agree, fit


# Keys of model.backbone that are the same for every backbone of this suite, and what the other value would do.
FIXED: dict[str, tuple[Any, str]] = {
    "type": ("ResNet", "ResNetV1c and V1d have another stem, which would stay random"),
    "contract_dilation": (True, "otherwise a dilated stage is not torchvision's"),
    "frozen_stages": (-1, "nothing is frozen in the protocols"),
    "norm_eval": (False, "all norms are trained in the protocols"),
    "deep_stem": (False, "the weights have one 7x7 convolution as stem"),
    "avg_down": (False, "the weights have a strided 1x1 as shortcut"),
    "pretrained": (None, "the backbone comes from --weights"),
}
STYLE = "the other style has the stride in another convolution: it loads silently and computes something else"
COUNTER = "num_batches_tracked"  # a counter, not a weight; converted files may leave it out
OUTPUT_NORM = re.compile(r"norm\d+\.")  # ConvNeXt's norms of what its stages return: new with each task, in no file


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
    """Write what the weights and this suite's protocols decide into ``cfg`` where it is unset.

    Raises InputError naming the key and both values where the config says otherwise.
    """
    model = cfg.model
    backbone = model.backbone
    family = _family(backbone, weights)
    if family == "resnet":
        whole = {"frozen_stages": 4, "norm_eval": True}
        frozen = all(backbone.get(key) == value for key, value in whole.items())
        for key, (wanted, reason) in FIXED.items():
            if frozen and key in whole:
                continue  # a linear probe: all of the backbone stays as it is
            agree(backbone, key, wanted, f"{source}: model.backbone", reason)
    agree(model, "pretrained", None, f"{source}: model", FIXED["pretrained"][1])
    if family == "resnet" and (backbone.get("norm_cfg") or {"type": "BN"})["type"] not in ("BN", "SyncBN"):
        raise InputError(f"{source}: model.backbone.norm_cfg.type is {backbone.norm_cfg.type!r}; use 'SyncBN' or 'BN'")
    if weights is not None:
        agree(backbone, "init_cfg", None, f"{source}: model.backbone", FIXED["pretrained"][1])
        agree(cfg, "load_from", None, str(source), FIXED["pretrained"][1])
        if weights.recipe is not None:
            _inject_recipe(cfg, weights.recipe, source, weights.path)
    if family == "resnet" and (weights is None or weights.recipe is None):
        agree(backbone, "style", "pytorch", f"{source}: model.backbone", STYLE)
    fit(model, source)


def _family(backbone: ConfigDict, weights: Weights | None) -> str:
    """Return the family that the weights name, else the one that defines the config's type, else ResNet's."""
    if weights is not None and weights.recipe is not None:
        return weights.recipe.family
    return {"ConvNeXt": "convnext", "Timm": "timm"}.get(backbone.get("type", ""), "resnet")


def _inject_recipe(cfg: Config, recipe: Recipe, source: Path, file: Path) -> None:
    wanted = {"stem": "imagenet", "norm": "BN"}
    check_known(recipe, FAMILIES, "MMSegmentation", wanted, file)
    model = cfg.model
    if model.get("data_preprocessor") is None:
        model.data_preprocessor = cfg.get("data_preprocessor") or ConfigDict(type="SegDataPreProcessor")
    reason = f"{file} says so"
    for key, value in FAMILIES[recipe.family].facts(recipe).items():
        if not model.backbone.get(key):  # a config may leave it empty, as model=""
            model.backbone[key] = value
        if key == "style" and model.backbone.get(key) == "pytorch":
            model.backbone[key] = value
        agree(model.backbone, key, value, f"{source}: model.backbone", STYLE if key == "style" else reason)
    where = f"{source}: model.data_preprocessor"
    usual = Recipe()  # which the suite's configs spell out; it yields to the weights'
    pixels: dict[str, tuple[Any, Any]] = {
        "mean": (list(recipe.mean), list(usual.mean)),
        "std": (list(recipe.std), list(usual.std)),
        "bgr_to_rgb": (recipe.channel_order == "RGB", True),
    }
    for key, (value, own) in pixels.items():
        if key in model.data_preprocessor and same(model.data_preprocessor[key], own):
            model.data_preprocessor[key] = value
        agree(model.data_preprocessor, key, value, where, reason)


def load_backbone(backbone: nn.Module, weights: Weights) -> int:
    """Copy the file's tensors into the backbone, compare them one by one and return how many there are."""
    named = (name for name in backbone.state_dict() if not OUTPUT_NORM.match(name))
    network = {name for name in named if not name.endswith(COUNTER)}
    expected = {name: tensor for name, tensor in weights.tensors.items() if not name.endswith(COUNTER)}
    if missing := sorted(network - set(expected)):
        raise InputError(
            f"{weights.path} lacks {len(missing)} of the backbone's {len(network)} tensors, first {missing[0]}; "
            "convert the whole network with tools/convert_to_mmseg.py"
        )
    own = backbone.state_dict()
    fitting = {name: tensor for name, tensor in expected.items() if name in own and own[name].shape == tensor.shape}
    backbone.load_state_dict(fitting, strict=False)
    return check_backbone(backbone, weights)


def check_backbone(backbone: nn.Module, weights: Weights) -> int:
    """Compare every tensor of ``backbone.`` with the file and return how many; raise LoadError at the first that differs."""
    expected = {f"backbone.{n}": t for n, t in weights.tensors.items() if not n.endswith(COUNTER)}
    loaded = {f"backbone.{n}": t for n, t in backbone.state_dict().items()}
    return compare(loaded, expected, str(weights.path))
