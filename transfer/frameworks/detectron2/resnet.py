"""Detectron2's own ResNet, built from a recipe (detectron2/modeling/backbone/resnet.py)."""

from transfer.frameworks.detectron2 import compat  # noqa: F401, I001 - first: it prepares Detectron2's import

from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock, ResNet
from torch import nn

from core.backbones.resnet import BLOCKS
from transfer.convert.recipe import Recipe


def build_network(recipe: Recipe) -> nn.Module:
    """Build the ResNet of the recipe's depth and width, stride in the 3x3 convolution; it returns ``res2`` to ``res5``."""
    _, counts = BLOCKS[recipe.depth]
    basic = recipe.depth < 50
    stages, channels = [], recipe.width
    for index, count in enumerate(counts):
        planes = recipe.width * 2**index
        out = planes if basic else 4 * planes
        extra = {} if basic else {"bottleneck_channels": planes, "stride_in_1x1": False}
        stages.append(
            ResNet.make_stage(
                BasicBlock if basic else BottleneckBlock,
                count,
                stride_per_block=[1 if index == 0 else 2] + [1] * (count - 1),
                in_channels=channels,
                out_channels=out,
                norm="BN",
                **extra,
            )
        )
        channels = out
    return ResNet(BasicStem(3, recipe.width, "BN"), stages, out_features=["res2", "res3", "res4", "res5"])
