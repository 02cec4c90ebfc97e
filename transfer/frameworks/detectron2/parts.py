"""What the configs name beyond Detectron2: the C4 head with an extra norm, and slim ResNets with an FPN."""

from transfer.frameworks.detectron2 import compat  # noqa: F401, I001 - first: it prepares Detectron2's import

from typing import Any

from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, ROI_HEADS_REGISTRY
from detectron2.modeling.backbone import FPN, Backbone, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import nn

from core.backbones.resnet import BLOCKS


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(Res5ROIHeads):
    """C4 heads with one more norm after res5, for Faster and Mask R-CNN (MoCo, arXiv 1911.05722, sec. 4.2 and app. B).

    The added norm is ``roi_heads.res5.norm``; the blocks keep Detectron2's names, so res5 loads as ever.
    """

    @classmethod
    def _build_res5_block(cls, cfg: Any) -> tuple[nn.Sequential, int]:
        res5, channels = super()._build_res5_block(cfg)
        res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
        return res5, channels


@BACKBONE_REGISTRY.register()
def build_slim_resnet_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> Backbone:
    """Build an FPN on a ResNet-18/34 of any width; Detectron2's own builder asserts 64 (``RES2_OUT_CHANNELS``)."""
    return FPN(
        bottom_up=build_slim_resnet(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def build_slim_resnet(cfg: Any, input_shape: ShapeSpec) -> ResNet:
    """Build a ResNet of basic blocks with ``STEM_OUT_CHANNELS`` and ``RES2_OUT_CHANNELS`` as its width."""
    settings = cfg.MODEL.RESNETS
    _, counts = BLOCKS[settings.DEPTH]
    stem = BasicStem(input_shape.channels, settings.STEM_OUT_CHANNELS, settings.NORM)
    stages, channels = [], settings.STEM_OUT_CHANNELS
    for index, count in enumerate(counts):
        out = settings.RES2_OUT_CHANNELS * 2**index
        strides = [1 if index == 0 else 2] + [1] * (count - 1)
        shape = {"in_channels": channels, "out_channels": out, "norm": settings.NORM}
        stages.append(ResNet.make_stage(BasicBlock, count, stride_per_block=strides, **shape))
        channels = out
    return ResNet(stem, stages, out_features=settings.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)
