"""Decode heads: that of the FCN-16s protocol, and every head's channels fitted to the backbone.

Importing this file registers ``FCN16sHead``; a config does so with ``custom_imports``.
"""

from transfer.frameworks.mmseg import compat  # noqa: F401, I001 - first: it prepares the mm* packages

from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS

from core.backbones.timm import stages_of
from core.errors import InputError
from transfer.frameworks._protocol import same

EXPANSION = {18: 1, 34: 1, 50: 4, 101: 4, 152: 4}


@MODELS.register_module()
class FCN16sHead(FCNHead):
    """Two 3x3 convolutions of 256 channels and dilation 6 with BN and ReLU, then a 1x1 (MoCo, arXiv 1911.05722, appendix)."""

    def __init__(self, **settings: Any) -> None:
        # no dropout, and the input is not joined to the output: MMSegmentation's FCNHead does both by default
        own = {"channels": 256, "num_convs": 2, "dilation": 6, "concat_input": False, "dropout_ratio": 0.0}
        super().__init__(**{**own, **settings})


def every(model: ConfigDict) -> list[tuple[str, ConfigDict]]:
    """Return the decode head or heads and the auxiliary ones, each with its key in the config."""
    found = {name: model.get(name) or [] for name in ("decode_head", "auxiliary_head")}
    return [(name, head) for name, heads in found.items() for head in ([heads] if isinstance(heads, dict) else heads)]


def agree(node: ConfigDict | Config, key: str, wanted: Any, where: str, reason: str) -> None:
    """Set ``key`` where it is unset or None; raise InputError where it has another value."""
    found = node.get(key)
    if found is None:
        if wanted is not None:
            node[key] = wanted
    elif not same(found, wanted):
        raise InputError(f"{where}.{key} is {found!r}, but it must be {wanted!r} ({reason}); change the config")


def fit(model: ConfigDict, source: Path) -> None:
    """Set or check each head's ``in_channels`` against the stages it reads, and the ``channels`` of a linear one."""
    backbone = model.backbone
    chosen = backbone.get("out_indices", (0, 1, 2, 3))
    if backbone.get("type") == "Timm":
        if not backbone.get("model"):
            raise InputError(f"{source}: model.backbone names no model; give weights of a network of timm, or its name")
        channels = [stages_of(backbone.model)[1][stage] for stage in chosen]
    elif backbone.get("type") != "ResNet":
        channels = [backbone.get("width", 0) * 2**stage for stage in chosen]
    elif backbone.get("depth") not in EXPANSION:
        raise InputError(f"{source}: model.backbone.depth is {backbone.get('depth')!r}; there are {sorted(EXPANSION)}")
    else:
        channels = [backbone.get("base_channels", 64) * EXPANSION[backbone.depth] * 2**stage for stage in chosen]
    if model.get("neck") is not None:
        return  # the heads read the neck, and the neck checks itself
    for name, head in every(model):
        index = head.get("in_index", -1)
        wanted = [channels[i] for i in index] if isinstance(index, list | tuple) else channels[index]
        reason = f"stage {index} of the backbone has that many"
        agree(head, "in_channels", wanted, f"{source}: model.{name}", reason)
        if head.get("num_convs") == 0:
            width = sum(wanted) if isinstance(wanted, list) else wanted
            agree(head, "channels", width, f"{source}: model.{name}", "its one convolution reads the stages themselves")
