"""Any ConvNet of timm that gives out a feature pyramid: ``backbone: {name: timm, model: convnextv2_tiny}``.

The four stages are timm's feature maps of strides 4, 8, 16 and 32; what stands after the last of them is not built. Names are
timm's own under ``network.``; mean, std and input size come from timm's configuration of the model (timm/models/_registry.py).
"""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from jaxtyping import Float
from pydantic import field_validator
from torch import Tensor

from core.backbones import Backbone, Rules, without_values
from core.config import PluginSettings
from core.errors import InputError

STRIDES = (4, 8, 16, 32)
PREFIX = "network."
COUNTER = "num_batches_tracked"

# What is tried for a file that does not name its architecture: a name that is in each network's file, and models.
_LISTED = """
conv1.0.weight: resnet50d resnet18d resnet34d resnet26d resnet101d resnet152d resnet50c resnest50d
conv1.0.weight: ecaresnet50d seresnet50 resnet200d
layer1.0.conv1.weight: wide_resnet50_2 wide_resnet101_2 resnext50_32x4d resnext101_32x8d resnext101_64x4d resnet152
layer1.0.conv1.weight: resnet26 resnet14t resnet50_gn seresnet50 seresnext50_32x4d skresnet50 resnext101_32x4d
layer1.0.convs.0.weight: res2net50_26w_4s res2net50_14w_8s res2net101_26w_4s res2next50
conv_stem.weight: mobilenetv2_100 mobilenetv2_140 mobilenetv2_050 mobilenetv3_large_100 mobilenetv3_small_100
conv_stem.weight: mobilenetv4_conv_small mobilenetv4_conv_medium mobilenetv4_conv_large mnasnet_100 ghostnet_100
conv_stem.weight: efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5
conv_stem.weight: efficientnetv2_rw_t efficientnetv2_rw_s tf_efficientnetv2_s tf_efficientnetv2_m mixnet_s
stem.conv.weight: regnety_002 regnety_004 regnety_006 regnety_008 regnety_016 regnety_032 regnety_040 regnety_064 regnety_080
stem.conv.weight: regnetx_002 regnetx_004 regnetx_006 regnetx_008 regnetx_016 regnetx_032 regnetx_040 regnetx_064 regnetx_080
stem.conv.weight: regnety_120 regnety_160 regnetx_120 regnetx_160 rexnet_100
features.conv0.weight: densenet121 densenet169 densenet201 densenet161
stages.0.blocks.0.mlp.grn.weight: convnextv2_tiny convnextv2_atto convnextv2_femto convnextv2_pico convnextv2_nano
stages.0.blocks.0.mlp.grn.weight: convnextv2_base convnextv2_large convnextv2_huge
stages.0.blocks.0.conv_dw.weight: convnext_atto convnext_femto convnext_pico convnext_nano
"""
# torchvision's networks whose tensors stand in the order of timm's of the same forward; others differ in eps, or in order
TORCHVISION = {"mobilenet_v2": "mobilenetv2_100"} | {
    f"efficientnet_b{size}": f"efficientnet_b{size}" for size in range(5)
}
KNOWN = [(mark, models.split()) for mark, _, models in (line.partition(": ") for line in _LISTED.strip().splitlines())]


class Timm(Backbone):
    """One of timm's networks without what stands after its four stages."""

    class Config(PluginSettings):
        """``model`` as timm calls it, such as ``regnety_032``; weights come from a file, never from the network."""

        name: Literal["timm"] = "timm"
        model: str

        @field_validator("model")
        @classmethod
        def _exists(cls, value: str) -> str:
            stages_of(value)
            return value

    def __init__(self, config: "Timm.Config", last: int = 4) -> None:
        """Build the first ``last`` stages."""
        super().__init__()
        indices, channels = stages_of(config.model)
        self.indices = indices[:last]
        self.network = _create(config.model)
        self.network.prune_intermediate_layers(list(self.indices), prune_norm=True, prune_head=True)
        self.feature_dim = channels[last - 1]

    def stages(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Return the feature maps at strides 4, 8, 16, 32."""
        found = self.network.forward_intermediates(images, indices=list(self.indices), intermediates_only=True)
        return list(found)

    @classmethod
    def rename_rules(cls, framework: str) -> Rules:
        """Return timm's own names where a file is for any code, and those of the wrappers of this project elsewhere."""
        return [(rf"^{PREFIX}", "")] if framework in ("timm", "safetensors") else []

    @classmethod
    def readings(cls) -> dict[str, tuple[str, Rules]]:
        """Return the names that tell the first blocks of timm's networks; ``native`` reads them."""
        marks = (
            r"conv_stem\.weight$",
            r"stem\.conv\.weight$",
            r"features\.conv0\.weight$",
            r"features\.0\.0\.weight$",
            r"layer1\.0\.convs\.0\.weight$",
        )
        return {f"timm {index}": (mark, []) for index, mark in enumerate(marks)}

    @classmethod
    def native(cls, tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
        """Put the tensors of any network under ``network.``; which one it is, ``recognise`` tells."""
        naming, names = "timm", {name: PREFIX + name.removeprefix(PREFIX) for name in tensors}
        if "features.0.0.weight" in tensors:
            theirs = next((network for network in TORCHVISION if names.keys() <= _positions(network).keys()), None)
            naming, names = ("torchvision", _positions(theirs)) if theirs else (naming, names)
        return naming, {names[name]: tensor for name, tensor in tensors.items()}

    @classmethod
    def recognise(cls, tensors: Mapping[str, Tensor]) -> "Timm.Config | None":
        """Return the first of the ``KNOWN`` models whose stages the tensors are, or None."""
        bare = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
        models = (model for mark, models in KNOWN if mark in bare for model in models)
        return next((cls.Config(model=model) for model in models if cls.fits(model, tensors)), None)

    @classmethod
    def fits(cls, model: str, tensors: Mapping[str, Tensor]) -> bool:
        """Tell whether the tensors have every name and shape of the model's four stages, and beside them its head's at most."""
        try:
            expected, whole = _shapes(model)
        except InputError:
            return False
        if any(name not in whole and not name.endswith(COUNTER) for name in tensors):
            return False
        return all(name in tensors and tuple(tensors[name].shape) == shape for name, shape in expected.items())

    @classmethod
    def names(cls, model: str) -> list[str]:
        """Return our names of a model's tensors."""
        return list(_shapes(model)[0])

    @classmethod
    def after(cls, config: Any, names: Iterable[str]) -> list[str]:
        """Return those of the names that stand after the four stages."""
        return [name for name in names if name not in _shapes(config.model)[0] and not name.endswith(COUNTER)]

    @classmethod
    def arch(cls, config: Any) -> str:
        """Return timm's name."""
        return str(config.model)

    @classmethod
    def facts(cls, config: Any) -> dict[str, Any]:
        """Return the model, its channels, and mean, std and input size from timm's configuration of it."""
        own = pretrained_cfg(config.model)
        pixels: dict[str, Any] = {
            key: tuple(round(255 * value, 4) for value in own[key]) for key in ("mean", "std") if key in own
        }
        shape = {"channels": tuple(stages_of(config.model)[1]), "input_size": tuple(own.get("input_size", ())[1:])}
        return {
            "family": "timm",
            "model": config.model,
            "depth": 0,
            "width": 0,
            "stem": "timm",
            "norm": "",
            **pixels,
            **shape,
        }

    @classmethod
    def stage_of(cls, name: str, config: Any) -> str:
        """Return the first stage whose last tensor does not come before this one; ``stem`` for what is beside the stages."""
        ends = _ends(config.model)
        own = name.removeprefix(PREFIX).split(".")[0]
        if own not in {module.split(".")[0] for module, _ in ends}:
            return "stem"
        place = _places(config.model).get(name, 0)
        return next((f"stage{index}" for index, (_, last) in enumerate(ends, 1) if place <= last), "stage4")


@functools.cache
def stages_of(model: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the indices of the four stages among a model's feature maps, and their channels; raise InputError for others."""
    information = _outline(model)[0]
    if information is None:
        raise InputError(f"timm's {model} gives out no feature maps; choose a ConvNet of timm.list_models()")
    last = {entry["reduction"]: (index, entry["num_chs"]) for index, entry in enumerate(information)}
    if any(stride not in last for stride in STRIDES):
        raise InputError(f"timm's {model} has no feature maps of strides 4, 8, 16 and 32; choose another network")
    chosen = [last[stride] for stride in STRIDES]
    return tuple(index for index, _ in chosen), tuple(channels for _, channels in chosen)


def known(model: str) -> bool:
    """Tell whether timm has a ConvNet of that name, with or without the tag of its weights."""
    import timm

    return bool(model) and timm.is_model(model)


def plain(model: str) -> bool:
    """Tell whether timm's model is one that the families ``resnet`` and ``convnext`` hold, with the same forward."""
    return (
        re.fullmatch(r"(tv_|gluon_)?resnet(18|34|50|101)|convnext_(tiny|small|base|large|xlarge)", model.split(".")[0])
        is not None
    )


def pretrained_cfg(model: str) -> dict[str, Any]:
    """Return timm's configuration of a model: mean, std, input size."""
    import timm

    found = timm.get_pretrained_cfg(model)
    return found.to_dict() if found is not None else {}


Shapes = dict[str, tuple[int, ...]]


def _shapes(model: str) -> tuple[Shapes, frozenset[str]]:
    """Return the names and shapes of the four stages, in their order, and the names of the whole network."""
    stages_of(model)
    return _outline(model)[1:]


@functools.lru_cache(maxsize=64)
def _outline(model: str) -> tuple[list[dict[str, Any]] | None, Shapes, frozenset[str]]:
    """Build a model once, without values; return what it says of its feature maps, and what ``_shapes`` returns.

    Without feature maps of the four strides there are no stages. Raises InputError when timm has no such model.
    """
    try:
        with without_values():
            network = _create(model, num_classes=2)
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"timm has no model {model!r}{_close(model)}") from error
    information = getattr(network, "feature_info", None)
    if not hasattr(network, "forward_intermediates") or not isinstance(information, list):
        return None, {}, frozenset()
    whole = frozenset(PREFIX + name for name in network.state_dict())
    last = {entry["reduction"]: index for index, entry in enumerate(information)}
    if any(stride not in last for stride in STRIDES):
        return information, {}, whole
    network.prune_intermediate_layers([last[stride] for stride in STRIDES], prune_norm=True, prune_head=True)
    stages = {PREFIX + n: tuple(t.shape) for n, t in network.state_dict().items() if not n.endswith(COUNTER)}
    return information, stages, whole


@functools.cache
def _positions(theirs: str) -> dict[str, str]:
    """Return our name of each tensor of torchvision's network: that in the same place of timm's."""
    import torchvision

    with without_values():
        own, timms = getattr(torchvision.models, theirs)(weights=None), _create(TORCHVISION[theirs], num_classes=2)
    return dict(zip(own.state_dict(), (PREFIX + name for name in timms.state_dict()), strict=True))


@functools.lru_cache(maxsize=64)
def _places(model: str) -> dict[str, int]:
    return {name: place for place, name in enumerate(_shapes(model)[0])}


def last_module(model: str) -> str:
    """Return the name of the one module that is the fourth stage; raise InputError where it is more than one, or less."""
    module, last = _ends(model)[3]
    names = list(_shapes(model)[0])
    inside = [name.startswith(f"{PREFIX}{module}.") for name in names]
    if last < 0 or inside != sorted(inside) or sum(inside) != len(names) - 1 - _ends(model)[2][1]:
        raise InputError(
            f"the last stage of timm's {model} is no module of its own, which C4's head needs; use an FPN config"
        )
    return module


@functools.lru_cache(maxsize=64)
def _ends(model: str) -> list[tuple[str, int]]:
    """Return each stage's last module, and the place of its last tensor."""
    information: Any = _outline(model)[0]
    modules = [information[index]["module"] for index in stages_of(model)[0]]
    names = list(_shapes(model)[0])
    return [(m, max((i for i, n in enumerate(names) if n.startswith(f"{PREFIX}{m}.")), default=-1)) for m in modules]


def _create(model: str, num_classes: int = 0) -> Any:
    import timm

    return timm.create_model(model, pretrained=False, num_classes=num_classes)


def _close(model: str) -> str:
    import difflib

    import timm

    near: Iterable[str] = difflib.get_close_matches(model, timm.list_models(), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else "; timm.list_models() lists them"
