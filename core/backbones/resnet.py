"""ResNet-18/34/50/101 with torchvision's tensor names, a width, and three stems (arXiv 1512.03385)."""

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from core.backbones import Backbone, Rules, rename  # noqa: F401 - rename is used by callers of the tables below
from core.config import PluginSettings
from core.errors import InputError

Stem = Literal["imagenet", "cifar", "small"]
STEMS: dict[Stem, tuple[int, int]] = {
    "imagenet": (7, 2),
    "cifar": (3, 1),
    "small": (5, 2),
}  # kernel, which tells it, and stride
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
SAME: Rules = []  # torchvision, timm's resnet18/34/50/101 and MMSegmentation's ResNet(style='pytorch') have one naming

# What is read: naming -> (the name that tells it, rules to torchvision's names).
READINGS: dict[str, tuple[str, Rules]] = {
    "torchvision": (r"layer1\.0\.conv1\.weight$", SAME),
    "detectron2": (
        r"res2\.0\.conv1\.weight$",
        [
            (r"^stem\.conv1\.norm\.", "bn1."),
            (r"^stem\.", ""),
            (r"^res(\d)\.", lambda match: f"layer{int(match[1]) - 1}."),
            (r"\bconv(\d)\.norm\.", r"bn\1."),
            (r"shortcut\.norm\.", "downsample.1."),
            (r"shortcut\.", "downsample.0."),
        ],
    ),
    # torch.nn.Sequential(*resnet.children()), as in lightly's tutorials and many BYOL codes
    "sequential": (
        r"4\.0\.conv1\.weight$",
        [(r"^0\.", "conv1."), (r"^1\.", "bn1."), (r"^([4-7])\.", lambda match: f"layer{int(match[1]) - 3}.")],
    ),
    # Hugging Face transformers, modeling_resnet.py
    "huggingface": (
        r"encoder\.stages\.0\.layers\.0\.layer\.0\.convolution\.weight$",
        [
            (r"^embedder\.embedder\.convolution\.", "conv1."),
            (r"^embedder\.embedder\.normalization\.", "bn1."),
            (r"^encoder\.stages\.(\d)\.layers\.", lambda match: f"layer{int(match[1]) + 1}."),
            (r"\blayer\.(\d)\.convolution\.", lambda match: f"conv{int(match[1]) + 1}."),
            (r"\blayer\.(\d)\.normalization\.", lambda match: f"bn{int(match[1]) + 1}."),
            (r"shortcut\.convolution\.", "downsample.0."),
            (r"shortcut\.normalization\.", "downsample.1."),
        ],
    ),
}


class ResNet(Backbone):
    """A ResNet with the stride in the 3x3 convolution.

    torchvision has it so, Detectron2 with STRIDE_IN_1X1 False, and MMSegmentation with style pytorch.
    """

    heads = ("fc.",)

    class Config(PluginSettings):
        """``width`` is the number of channels of the stem and of the first stage's 3x3 convolutions (64 in the paper).

        Stems: ``imagenet`` 7x7 stride 2 and pooling, ``cifar`` 3x3, ``small`` 5x5 stride 2: a quarter of ``cifar``'s arithmetic,
        for comparisons on 32 px images within minutes.
        """

        name: Literal["resnet"] = "resnet"
        depth: Literal[18, 34, 50, 101] = 50
        width: int = Field(64, ge=4, le=512, multiple_of=4)
        stem: Stem = "imagenet"

    def __init__(self, config: "ResNet.Config") -> None:
        super().__init__()
        block, counts = BLOCKS[config.depth]
        width = config.width
        kernel, stride = STEMS[config.stem]
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
        """Return the feature maps at strides 4, 8, 16, 32 (1, 2, 4, 8 with the CIFAR stem, 2, 4, 8, 16 with the small one)."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        found = []
        for index in range(1, 5):
            features = getattr(self, f"layer{index}")(features)
            found.append(features)
        return found

    @classmethod
    def rename_rules(cls, framework: str) -> Rules:
        """Return the rename table of one framework."""
        return DETECTRON2 if framework == "detectron2" else SAME

    @classmethod
    def readings(cls) -> dict[str, tuple[str, Rules]]:
        """Return the namings of torchvision, Detectron2, ``nn.Sequential`` and Hugging Face."""
        return READINGS

    @classmethod
    def recognise(cls, tensors: Mapping[str, Tensor]) -> "ResNet.Config | None":
        """Read depth, width and stem off the names and shapes; refuse other stems, blocks and orders of axes."""
        if not any(name.startswith("layer1.0.conv1.") for name in tensors):
            return None
        width, stem = _stem(tensors)
        blocks = [{m[1] for name in tensors if (m := re.match(rf"layer{i}\.(\d+)\.", name))} for i in range(1, 5)]
        if not all(blocks):
            missing = next(index for index, found in enumerate(blocks, 1) if not found)
            raise InputError(f"it lacks layer{missing}; save the whole backbone, not a part of it")
        bottleneck = "layer1.0.conv3.weight" in tensors
        inner = tensors.get("layer1.0.conv2.weight")
        if inner is not None and bottleneck and inner.shape != (width, width, 3, 3):
            raise InputError(
                f"layer1.0.conv2.weight has shape {tuple(inner.shape)} for a stem of {width}: a wide or grouped ResNet "
                "(or transposed tensors); only plain ResNet-18/34/50/101 are carried"
            )
        counts = tuple(len(found) for found in blocks)
        for depth, (block, known) in BLOCKS.items():
            if counts == known and bottleneck == (block.expansion == 4):
                return ResNet.Config.model_validate({"depth": depth, "width": width, "stem": stem})
        raise InputError(
            f"it has {counts} blocks a stage, which is no ResNet-18/34/50/101; is it another architecture?"
        )

    @classmethod
    def arch(cls, config: Any) -> str:
        """Return ``resnet50``, or ``resnet18-width16`` when the width is not 64."""
        return f"resnet{config.depth}" + ("" if config.width == 64 else f"-width{config.width}")

    @classmethod
    def facts(cls, config: Any) -> dict[str, Any]:
        """Return depth, width, stem, the stride's place and the norm."""
        shape = {"depth": config.depth, "width": config.width, "stem": config.stem}
        return {"family": "resnet", **shape, "stride_in_1x1": False, "norm": "BN"}

    @classmethod
    def stage_of(cls, name: str) -> str:
        """Return ``stage1`` for ``layer1.*``."""
        return f"stage{name[5]}" if name.startswith("layer") else "stem"


def _stem(tensors: Mapping[str, Tensor]) -> tuple[int, str]:
    """Return the stem's width and kind; refuse deep, grey and transposed ones."""
    if "conv1.0.weight" in tensors:
        raise InputError(
            "it has a deep stem (conv1.0.weight: three 3x3 convolutions, as resnet50d and ResNetV1c/d have); Detectron2's "
            "and MMSegmentation's ResNet have one 7x7 convolution there, which would stay random: give a resnet50"
        )
    weight = tensors.get("conv1.weight")
    if weight is None or weight.ndim != 4:
        raise InputError("it has no ResNet stem (conv1.weight); save the whole backbone, not a part of it")
    width, channels, kernel, _ = weight.shape
    if channels != 3 and weight.shape[2] == 3 and width in (3, 7):
        raise InputError(
            f"conv1.weight has shape {tuple(weight.shape)}, transposed as in TensorFlow and JAX; "
            "permute convolutions to (out, in, height, width)"
        )
    if channels != 3:
        raise InputError(f"conv1.weight takes {channels} channel(s), not 3; pre-train on RGB images")
    kinds = [stem for stem, (size, _) in STEMS.items() if size == kernel]
    if not kinds:
        raise InputError(f"conv1.weight is {kernel}x{kernel}; known are the 7x7, the 3x3 CIFAR and the 5x5 small stem")
    return width, kinds[0]


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
