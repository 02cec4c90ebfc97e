"""ResNet-18/34/50/101 with torchvision's tensor names, a width, and an ImageNet or CIFAR stem (arXiv 1512.03385)."""

import re
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from core.backbones import Backbone, Rules
from core.config import PluginSettings

BLOCKS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}

# torchvision's name -> the field's usual Detectron2 name (layerN -> resN+1, bnN -> convN.norm, downsample -> shortcut)
DETECTRON2: Rules = [
    (r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}"),
    (r"^(conv1|bn1)\.", r"stem.\1."),
    (r"\bbn(\d)\.", r"conv\1.norm."),
    (r"downsample\.0\.", "shortcut."),
    (r"downsample\.1\.", "shortcut.norm."),
]
MMSEGMENTATION: Rules = []  # ResNet(style='pytorch') uses torchvision's names


class ResNet(Backbone):
    """A ResNet with the stride in the 3x3 convolution.

    torchvision has it so, Detectron2 with STRIDE_IN_1X1 False, and MMSegmentation with style pytorch.
    """

    class Config(PluginSettings):
        """``width`` is the number of channels of the stem and of the first stage's 3x3 convolutions (64 in the paper)."""

        name: Literal["resnet"] = "resnet"
        depth: Literal[18, 34, 50, 101] = 50
        width: int = Field(64, ge=4, le=512, multiple_of=4)
        stem: Literal["imagenet", "cifar"] = "imagenet"

    def __init__(self, config: "ResNet.Config") -> None:
        super().__init__()
        block, counts = BLOCKS[config.depth]
        width = config.width
        kernel, stride = (7, 2) if config.stem == "imagenet" else (3, 1)
        self.conv1 = nn.Conv2d(3, width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if config.stem == "imagenet" else nn.Identity()
        channels = width
        for index, count in enumerate(counts):
            planes = width * 2**index
            stage, channels = _stage(block, channels, planes, count, stride=1 if index == 0 else 2)
            self.add_module(f"layer{index + 1}", stage)
        self.feature_dim = channels
        _initialise(self)

    def stages(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Return the feature maps at strides 4, 8, 16, 32 (1, 2, 4, 8 with the CIFAR stem)."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        found = []
        for index in range(1, 5):
            features = getattr(self, f"layer{index}")(features)
            found.append(features)
        return found

    @classmethod
    def rename_rules(cls, framework: str) -> Rules:
        """Return the rename table of one framework."""
        return {"detectron2": DETECTRON2, "mmsegmentation": MMSEGMENTATION}[framework]


def rename(name: str, rules: Rules) -> str:
    """Apply the (pattern, replacement) pairs of a rename table in order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _stage(
    block: type[BasicBlock] | type[Bottleneck], channels: int, planes: int, count: int, stride: int
) -> tuple[nn.Sequential, int]:
    out = planes * block.expansion
    downsample = None
    if stride != 1 or channels != out:
        downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
    blocks: list[nn.Module] = [block(channels, planes, stride, downsample)]
    blocks += [block(out, planes) for _ in range(1, count)]
    return nn.Sequential(*blocks), out


@torch.no_grad()
def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
