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


def _sequential(first: int) -> Rules:
    """Return the rules from the places in a list, of which ``first`` is the first stage's, to torchvision's names."""
    stages = (rf"^([{first}-{first + 3}])\.(?=\d)", lambda match: f"layer{int(match[1]) - first + 1}.")
    return [stages, (r"^0\.", "conv1."), (r"^1\.", "bn1."), (r"^\d+\.", "fc.")]


# What is read: naming -> (the name that tells it, rules to torchvision's names).
READINGS: dict[str, tuple[str, Rules]] = {
    # torchvision's, and those of codes that differ in a word: SupContrast (shortcut), maskrcnn-benchmark (stem.conv1),
    # convolutions with their norm in one module (conv1.conv)
    "torchvision": (
        r"layer1\.0\.conv1\.weight$",
        [
            (r"^(?:stem|layer0)\.(conv1|bn1)\.", r"\1."),
            (r"^conv1\.conv\.", "conv1."),
            (r"^conv1\.bn\.", "bn1."),
            (r"\bshortcut\.([01])\.", r"downsample.\1."),
        ],
    ),
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
    # torch.nn.Sequential of a ResNet's children, as in lightly's tutorials and many BYOL codes; CIFAR's have no pooling
    # (Un-Mix), or neither that nor an activation (lightly). What follows the stages is a projector.
    "sequential without pooling and activation": (r"2\.0\.conv1\.weight$", _sequential(2)),
    "sequential without pooling": (r"3\.0\.conv1\.weight$", _sequential(3)),
    "sequential": (r"4\.0\.conv1\.weight$", _sequential(4)),
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
    """A ResNet with the stride in the 3x3 convolution, or in the 1x1 before it.

    torchvision has it in the 3x3, Detectron2 with STRIDE_IN_1X1 False, MMSegmentation with style pytorch; Caffe's ResNets
    (MSRA's, Detectron2's model zoo, MMSegmentation's style caffe) have it in the 1x1.
    """

    heads = ("fc.",)

    class Config(PluginSettings):
        """``width`` is the number of channels of the stem and of the first stage's 3x3 convolutions (64 in the paper).

        Stems: ``imagenet`` 7x7 stride 2 and pooling, ``cifar`` 3x3, ``small`` 5x5 stride 2: a quarter of ``cifar``'s arithmetic,
        for comparisons on 32 px images within minutes. ``zero_last_norm`` starts the last norm of each block at 0, so that each
        block begins as the identity (arXiv 1706.02677, sec. 5.1), as SimCLR's and SimSiam's releases do.
        """

        name: Literal["resnet"] = "resnet"
        depth: Literal[18, 34, 50, 101] = 50
        width: int = Field(64, ge=4, le=512, multiple_of=4)
        stem: Stem = "imagenet"
        zero_last_norm: bool = False
        stride_in_1x1: bool = Field(False, exclude_if=lambda value: not value)  # runs of before have no such key

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
        if config.stride_in_1x1:
            for module in self.modules():
                if isinstance(module, Bottleneck):
                    module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
        _initialise(self, config.zero_last_norm)

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
                "(or transposed tensors) that no model of timm's list here has; name it with --arch, such as resnext50_32x4d"
            )
        counts = tuple(len(found) for found in blocks)
        for depth, (block, known) in BLOCKS.items():
            if counts == known and bottleneck == (block.expansion == 4):
                return ResNet.Config.model_validate({"depth": depth, "width": width, "stem": stem})
        raise InputError(
            f"it has {counts} blocks a stage, which is no ResNet-18/34/50/101: another depth, or another architecture; "
            "a network of timm's is named with --arch, such as resnet152"
        )

    @classmethod
    def arch(cls, config: Any) -> str:
        """Return ``resnet50``, or ``resnet18-width16`` when the width is not 64."""
        return f"resnet{config.depth}" + ("" if config.width == 64 else f"-width{config.width}")

    @classmethod
    def facts(cls, config: Any) -> dict[str, Any]:
        """Return depth, width, stem, the stride's place and the norm."""
        shape = {key: getattr(config, key) for key in ("depth", "width", "stem", "stride_in_1x1")}
        return {"family": "resnet", **shape, "norm": "BN"}

    @classmethod
    def stage_of(cls, name: str, config: Any) -> str:
        """Return ``stage1`` for ``layer1.*``."""
        return f"stage{name[5]}" if name.startswith("layer") else "stem"


def _stem(tensors: Mapping[str, Tensor]) -> tuple[int, str]:
    """Return the stem's width and kind; refuse deep, grey and transposed ones."""
    if "conv1.0.weight" in tensors or "stem.0.weight" in tensors:
        raise InputError(
            "it has a deep stem (three 3x3 convolutions), as ResNetV1c and, with pooled shortcuts, ResNetV1d have; a ResNet's "
            "one 7x7 convolution would stay random. Give a plain ResNet, or one of timm's under timm's names (--arch resnet50d)"
        )
    if any(name.startswith("attnpool.") for name in tensors) or "conv3.weight" in tensors:
        raise InputError(
            "it is CLIP's ResNet (three convolutions as stem, pooling before each stride, an attention pool), which computes "
            "something else than a ResNet; give a plain ResNet, or one of timm's under timm's names (--arch resnet50_clip)"
        )
    whole = "conv1.weight" in tensors and any(name.startswith("layer4.") for name in tensors)
    if whole and not any(name.endswith("running_mean") for name in tensors):
        raise InputError(
            "its norms have no running statistics: GroupNorm, or a norm folded into its neighbours; the ResNets here have "
            "BatchNorm. Give a network with BatchNorm, or one of timm's under timm's names (--arch resnet50_gn)"
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
def _initialise(network: nn.Module, zero_last_norm: bool) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_last_norm and isinstance(module, BasicBlock | Bottleneck):
            nn.init.zeros_((module.bn3 if isinstance(module, Bottleneck) else module.bn2).weight)
