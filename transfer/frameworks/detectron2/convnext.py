"""ConvNeXt for Detectron2, alone and under an FPN (arXiv 2201.03545, sec. 3.2 and app. A.3).

Importing this file registers ``build_convnext_backbone`` and ``build_convnext_fpn_backbone`` and gives Detectron2's defaults the
keys ``MODEL.CONVNEXT``. Names are those of Detectron2's ResNet (``stem.conv1``, ``res2.0``, ...), so that a converted file is
matched, and proven to be loaded, in the same way.
"""

from transfer.frameworks.detectron2 import compat  # noqa: F401, I001 - first: it prepares Detectron2's import

from typing import Any

from detectron2.config import CfgNode
from detectron2.config.defaults import _C as DEFAULTS
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from jaxtyping import Float
from torch import Tensor, nn
import torch
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import StochasticDepth

from core.backbones.convnext import EPSILON, residual
from transfer.convert.recipe import Recipe

STAGES = ("res2", "res3", "res4", "res5")


def add_config(cfg: CfgNode) -> None:
    """Add ``MODEL.CONVNEXT``: blocks a stage, width of the first, stochastic depth of the last block, outputs."""
    if "CONVNEXT" not in cfg.MODEL:
        cfg.MODEL.CONVNEXT = CfgNode(
            {"BLOCKS": [3, 3, 9, 3], "WIDTH": 96, "DROP_PATH": 0.0, "OUT_FEATURES": list(STAGES)}
        )


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
    return FPN(
        bottom_up=build_convnext_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def build_network(recipe: Recipe) -> nn.Module:
    """Build the ConvNeXt of a recipe; it returns ``res2`` to ``res5`` as the blocks leave them."""
    return ConvNeXt(recipe.blocks, recipe.width, out_norms=False)


def facts(recipe: Recipe) -> dict[str, Any]:
    """Return the config keys that the weights decide, with the values they need (see ``injection.facts``)."""
    return {
        "INPUT.FORMAT": recipe.channel_order,
        "MODEL.PIXEL_MEAN": list(recipe.mean),
        "MODEL.PIXEL_STD": list(recipe.std),
        "MODEL.BACKBONE.NAME": "build_convnext_fpn_backbone",
        "MODEL.CONVNEXT.BLOCKS": list(recipe.blocks),
        "MODEL.CONVNEXT.WIDTH": recipe.width,
    }


def _halving(channels: int, out: int) -> nn.Sequential:
    """Return the norm and the convolution of 2x2 patches that stand between stages."""
    return nn.Sequential(LayerNorm2d(channels, eps=EPSILON), nn.Conv2d(channels, out, 2, 2))
