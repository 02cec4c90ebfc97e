"""Networks for Detectron2: ResNets of any width, ConvNeXt, each alone and under an FPN, and the C4 head with an extra norm.

Importing this file registers them and gives Detectron2's defaults the keys ``MODEL.CONVNEXT``. ConvNeXt (arXiv 2201.03545,
sec. 3.2 and app. A.3) has the names of Detectron2's ResNet (``stem.conv1``, ``res2.0``, ...), so that a converted file is
matched, and proven to be loaded, in the same way. ``FAMILIES`` has an entry for every family of ``core.backbones``.
"""

from transfer.frameworks.detectron2 import compat  # noqa: F401, I001 - first: it prepares Detectron2's import

from collections import OrderedDict
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.config.defaults import _C as DEFAULTS
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, ROI_HEADS_REGISTRY
from detectron2.modeling.backbone import FPN, Backbone, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock
from detectron2.modeling.roi_heads import Res5ROIHeads
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import StochasticDepth

from core.backbones.convnext import EPSILON, residual
from core.backbones.resnet import BLOCKS
from core.backbones.timm import last_module, stages_of
from core.errors import InputError
from transfer.convert.recipe import Recipe
from transfer.frameworks._protocol import Family
from transfer.frameworks._timm import TimmStages

STAGES = ("res2", "res3", "res4", "res5")


def add_config(cfg: CfgNode) -> None:
    """Add ``MODEL.CONVNEXT`` (``DROP_PATH`` is the last block's stochastic depth) and ``MODEL.TIMM``."""
    if "CONVNEXT" not in cfg.MODEL:
        cfg.MODEL.CONVNEXT = CfgNode(
            {"BLOCKS": [3, 3, 9, 3], "WIDTH": 96, "DROP_PATH": 0.0, "OUT_FEATURES": list(STAGES)}
        )
        cfg.MODEL.TIMM = CfgNode({"NAME": "", "NORM": "BN", "OUT_FEATURES": list(STAGES)})


add_config(DEFAULTS)


class Block(nn.Module):
    """One residual block; the first of a later stage halves the size before."""

    def __init__(self, channels: int, drop_path: float, previous: int | None = None) -> None:
        super().__init__()
        self.downsample = nn.Sequential() if previous is None else _halving(previous, channels)
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.expand = nn.Linear(channels, 4 * channels)
        self.reduce = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Return the input, downsampled if the stage begins, plus the residual."""
        images = self.downsample(images)
        added = residual(images, self.depthwise, self.norm, self.expand, self.reduce, self.gamma)
        return images + self.drop_path(added)


class ConvNeXt(Backbone):
    """The four stages as Detectron2 names them; ``out_norms`` adds a new layer norm to each output, as dense tasks do."""

    def __init__(
        self,
        blocks: tuple[int, ...],
        width: int,
        out_features: tuple[str, ...] = STAGES,
        drop_path: float = 0.0,
        freeze_at: int = 0,
        out_norms: bool = True,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential()
        self.stem.add_module("conv1", nn.Conv2d(3, width, 4, 4))
        self.stem.add_module("norm", LayerNorm2d(width, eps=EPSILON))
        chances = [drop_path * index / max(1, sum(blocks) - 1) for index in range(sum(blocks))]
        for index, (name, count) in enumerate(zip(STAGES, blocks, strict=True)):
            channels = width * 2**index
            first = channels // 2 if index else None
            stage = [Block(channels, chances.pop(0), first if position == 0 else None) for position in range(count)]
            self.add_module(name, nn.Sequential(*stage))
        self._out_features = list(out_features)
        self._out_feature_strides = {name: 4 * 2**index for index, name in enumerate(STAGES)}
        self._out_feature_channels = {name: width * 2**index for index, name in enumerate(STAGES)}
        self.out_norms = nn.ModuleDict()
        if out_norms:
            sizes = self._out_feature_channels
            self.out_norms.update({name: LayerNorm2d(sizes[name], eps=EPSILON) for name in out_features})
        for frozen in [self.stem, *(getattr(self, name) for name in STAGES)][:freeze_at]:
            frozen.requires_grad_(False)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """Return the asked stages by name."""
        features, found = self.stem(images), {}
        for name in STAGES:
            features = getattr(self, name)(features)
            if name in self._out_features:
                found[name] = self.out_norms[name](features) if name in self.out_norms else features
        return found

    @property
    def size_divisibility(self) -> int:
        """Return 32: a smaller remainder would be cut off by the strided convolutions."""
        return 32


class TimmNetwork(TimmStages, Backbone):
    """timm's network with its four stages as ``res2`` to ``res5``; ``last`` of them are built."""

    def __init__(
        self, model: str, out_features: tuple[str, ...] = STAGES, freeze_at: int = 0, norm: str = "BN", last: int = 4
    ) -> None:
        super().__init__()
        self.open(model, frozen=freeze_at, norm=norm, last=last)
        self._out_features = list(out_features)
        self._out_feature_strides = {name: 4 * 2**index for index, name in enumerate(STAGES)}
        self._out_feature_channels = dict(zip(STAGES, self.channels, strict=False))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """Return the asked stages by name."""
        return {n: found for n, found in zip(STAGES, self.maps(images), strict=False) if n in self._out_features}

    @property
    def size_divisibility(self) -> int:
        """Return 32: a smaller remainder would be cut off by the strided convolutions."""
        return 32


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: Any, input_shape: ShapeSpec) -> Backbone:
    """Build timm's network as ``MODEL.TIMM`` says, without the stages after the last that is asked for."""
    asked = cfg.MODEL.TIMM
    if not asked.NAME:
        raise InputError("MODEL.TIMM.NAME is empty; give weights of a network of timm, or its name")
    last = 1 + max(STAGES.index(name) for name in asked.OUT_FEATURES)
    return TimmNetwork(asked.NAME, tuple(asked.OUT_FEATURES), cfg.MODEL.BACKBONE.FREEZE_AT, asked.NORM, last)


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> Backbone:
    """Build an FPN on it."""
    return _fpn(cfg, build_timm_backbone(cfg, input_shape))


class _Within(nn.Module):
    """A module under the dotted name that it has in timm's network, so that its tensors keep their names."""

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        first, _, rest = name.partition(".")
        self.first = first
        self.add_module(first, _Within(rest, module) if rest else module)

    def forward(self, features: Tensor) -> Tensor:
        """Pass through."""
        found: Tensor = getattr(self, self.first)(features)
        return found


@ROI_HEADS_REGISTRY.register()
class TimmRes5ROIHeads(Res5ROIHeads):
    """C4 heads whose res5 is the fourth stage of timm's network, where that is one module."""

    @classmethod
    def _build_res5_block(cls, cfg: Any) -> tuple[nn.Sequential, int]:
        asked = cfg.MODEL.TIMM
        name = last_module(asked.NAME)
        network = TimmNetwork(asked.NAME, norm=asked.NORM).network
        return nn.Sequential(OrderedDict(network=_Within(name, network.get_submodule(name)))), stages_of(asked.NAME)[1][
            -1
        ]


@BACKBONE_REGISTRY.register()
def build_convnext_backbone(cfg: Any, input_shape: ShapeSpec) -> Backbone:
    """Build a ConvNeXt as ``MODEL.CONVNEXT`` says."""
    asked = cfg.MODEL.CONVNEXT
    return ConvNeXt(
        tuple(asked.BLOCKS), asked.WIDTH, tuple(asked.OUT_FEATURES), asked.DROP_PATH, cfg.MODEL.BACKBONE.FREEZE_AT
    )


@BACKBONE_REGISTRY.register()
def build_convnext_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> Backbone:
    """Build an FPN on it."""
    return _fpn(cfg, build_convnext_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_slim_resnet_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> Backbone:
    """Build an FPN on a ResNet-18/34 of any width; Detectron2's own builder asserts 64 (``RES2_OUT_CHANNELS``)."""
    model = cfg.MODEL
    given = {"out_features": model.RESNETS.OUT_FEATURES, "freeze_at": model.BACKBONE.FREEZE_AT}
    return _fpn(cfg, resnet(model.RESNETS.DEPTH, model.RESNETS.STEM_OUT_CHANNELS, model.RESNETS.NORM, **given))


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(Res5ROIHeads):
    """C4 heads with one more norm after res5, for Faster and Mask R-CNN (MoCo, arXiv 1911.05722, sec. 4.2 and app. B).

    The added norm is ``roi_heads.res5.norm``; the blocks keep Detectron2's names, so res5 loads as ever. Under a ResNet-18/34 the
    blocks are basic ones, which Detectron2's own head has not.
    """

    @classmethod
    def _build_res5_block(cls, cfg: Any) -> tuple[nn.Sequential, int]:
        depth, width = cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS
        if depth < 50:
            channels, count = 8 * width, BLOCKS[depth][1][3]
            shape = {"in_channels": 4 * width, "out_channels": channels, "norm": cfg.MODEL.RESNETS.NORM}
            strides = [2] + [1] * (count - 1)
            res5 = nn.Sequential(*ResNet.make_stage(BasicBlock, count, stride_per_block=strides, **shape))
        else:
            res5, channels = super()._build_res5_block(cfg)
        res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
        return res5, channels


def resnet(depth: int, width: int, norm: str = "BN", stride_in_1x1: bool = False, **given: Any) -> ResNet:
    """Build Detectron2's own ResNet of a depth and width; ``given`` are further settings."""
    _, counts = BLOCKS[depth]
    basic = depth < 50
    stages, channels = [], width
    for index, count in enumerate(counts):
        planes = width * 2**index
        out = planes if basic else 4 * planes
        extra = {} if basic else {"bottleneck_channels": planes, "stride_in_1x1": stride_in_1x1}
        strides = [1 if index == 0 else 2] + [1] * (count - 1)
        shape = {"in_channels": channels, "out_channels": out, "norm": norm, **extra}
        block = BasicBlock if basic else BottleneckBlock
        stages.append(ResNet.make_stage(block, count, stride_per_block=strides, **shape))
        channels = out
    return ResNet(BasicStem(3, width, norm), stages, **{"out_features": list(STAGES), **given})


def _fpn(cfg: Any, bottom_up: Backbone) -> Backbone:
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def _halving(channels: int, out: int) -> nn.Sequential:
    """Return the norm and the convolution of 2x2 patches that stand between stages."""
    return nn.Sequential(LayerNorm2d(channels, eps=EPSILON), nn.Conv2d(channels, out, 2, 2))


def _pixels(recipe: Recipe) -> dict[str, Any]:
    return {
        "INPUT.FORMAT": recipe.channel_order,
        "MODEL.PIXEL_MEAN": list(recipe.mean),
        "MODEL.PIXEL_STD": list(recipe.std),
    }


def _resnet_facts(recipe: Recipe) -> dict[str, Any]:
    basic = recipe.depth < 50
    values = {
        **_pixels(recipe),
        "MODEL.RESNETS.DEPTH": recipe.depth,
        "MODEL.RESNETS.STRIDE_IN_1X1": recipe.stride_in_1x1,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": recipe.width,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": recipe.width * (1 if basic else 4),
    }
    return values if basic else {**values, "MODEL.RESNETS.WIDTH_PER_GROUP": recipe.width}


def _convnext_facts(recipe: Recipe) -> dict[str, Any]:
    return {
        **_pixels(recipe),
        "MODEL.BACKBONE.NAME": "build_convnext_fpn_backbone",
        "MODEL.CONVNEXT.BLOCKS": list(recipe.blocks),
        "MODEL.CONVNEXT.WIDTH": recipe.width,
    }


def _timm_facts(recipe: Recipe) -> dict[str, Any]:
    return {**_pixels(recipe), "MODEL.TIMM.NAME": recipe.model}


# Networks return res2 to res5 as their blocks leave them. Most of Detectron2's defaults load without a message and compute
# something else: BGR, std 1, and above all the stride in the 1x1 convolution, which changes res3 to res5.
FAMILIES = {
    "resnet": Family(
        lambda recipe: resnet(recipe.depth, recipe.width, stride_in_1x1=recipe.stride_in_1x1), _resnet_facts
    ),
    "convnext": Family(lambda recipe: ConvNeXt(recipe.blocks, recipe.width, out_norms=False), _convnext_facts),
    "timm": Family(lambda recipe: TimmNetwork(recipe.model), _timm_facts),
}
