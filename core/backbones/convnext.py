"""ConvNeXt with torchvision's tensor names, any blocks a stage and width; the default is ConvNeXt-T (arXiv 2201.03545)."""

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from core.backbones import Backbone, Rules, rename, renamed
from core.config import PluginSettings
from core.errors import InputError

EPSILON = 1e-6  # of all layer norms (the paper's code; PyTorch's default is 1e-5)
SIZES = {  # (blocks, width) -> the paper's sizes (sec. 3.1)
    ((3, 3, 9, 3), 96): "tiny",
    ((3, 3, 27, 3), 96): "small",
    ((3, 3, 27, 3), 128): "base",
    ((3, 3, 27, 3), 192): "large",
}
SCALE = "layer_scale"  # [channels, 1, 1] in torchvision, [channels] everywhere else

# torchvision's ConvNeXt is one list: features.0 is the stem, features.1/3/5/7 the stages, features.2/4/6 the
# downsampling before a stage; in a block, block.0 is the depthwise convolution, 2 the norm, 3 and 5 the two layers.
TORCHVISION: Rules = []
TIMM: Rules = [
    (r"^features\.0\.", "stem."),
    (r"^features\.([246])\.", lambda match: f"stages.{int(match[1]) // 2}.downsample."),
    (r"^features\.([1357])\.(\d+)\.", lambda match: f"stages.{int(match[1]) // 2}.blocks.{match[2]}."),
    (r"layer_scale$", "gamma"),
    (r"block\.0\.", "conv_dw."),
    (r"block\.2\.", "norm."),
    (r"block\.3\.", "mlp.fc1."),
    (r"block\.5\.", "mlp.fc2."),
]
# mmpretrain's ConvNeXt; ``transfer/frameworks/mmseg/backbones.py`` registers one with the same names for MMSegmentation
MMSEG: Rules = [
    (r"^features\.([0246])\.", lambda match: f"downsample_layers.{int(match[1]) // 2}."),
    (r"^features\.([1357])\.", lambda match: f"stages.{int(match[1]) // 2}."),
    (r"layer_scale$", "gamma"),
    (r"block\.0\.", "depthwise_conv."),
    (r"block\.2\.", "norm."),
    (r"block\.3\.", "pointwise_conv1."),
    (r"block\.5\.", "pointwise_conv2."),
]
# ``transfer/frameworks/detectron2/backbones.py``; in the form of Detectron2's ResNet, so that what matches one matches the other
DETECTRON2: Rules = [
    (r"^features\.0\.0\.", "stem.conv1."),
    (r"^features\.0\.1\.", "stem.norm."),
    (r"^features\.([246])\.", lambda match: f"res{int(match[1]) // 2 + 2}.0.downsample."),
    (r"^features\.([1357])\.", lambda match: f"res{int(match[1]) // 2 + 2}."),
    (r"layer_scale$", "gamma"),
    (r"block\.0\.", "depthwise."),
    (r"block\.2\.", "norm."),
    (r"block\.3\.", "expand."),
    (r"block\.5\.", "reduce."),
]
WRITTEN = {"detectron2": DETECTRON2, "mmseg": MMSEG, "timm": TIMM}


def residual(
    images: Float[Tensor, "batch channels height width"],
    depthwise: nn.Module,
    norm: nn.Module,
    expand: nn.Module,
    reduce: nn.Module,
    scale: Float[Tensor, " channels"],
) -> Float[Tensor, "batch channels height width"]:
    """Return what a block adds to its input (sec. 2.6): 7x7 depthwise, norm, two layers with GELU, scale per channel."""
    features = norm(depthwise(images).permute(0, 2, 3, 1))
    return (scale * reduce(F.gelu(expand(features)))).permute(0, 3, 1, 2)


def _block(depthwise: str, norm: str, expand: str, reduce: str, scale: str) -> Rules:
    """Return the rules from one naming of a block's parts to torchvision's."""
    parts = {depthwise: "block.0", norm: "block.2", expand: "block.3", reduce: "block.5"}
    rules: Rules = [(rf"(?<=\d\.){re.escape(name)}\.(?=weight$|bias$)", f"{ours}.") for name, ours in parts.items()]
    return [*rules, (rf"{scale}$", SCALE)]


def _odd(match: re.Match[str]) -> str:
    return f"features.{2 * int(match[1]) + 1}."


def _even(match: re.Match[str]) -> str:
    return f"features.{2 * int(match[1])}."


LISTED: Rules = [(r"^downsample_layers\.(\d)\.", _even), (r"^stages\.(\d)\.", _odd)]

# What is read: naming -> (the name that tells it, rules to torchvision's names).
READINGS: dict[str, tuple[str, Rules]] = {
    "torchvision": (r"features\.1\.0\.block\.0\.weight$", TORCHVISION),
    "timm": (
        r"stages\.0\.blocks\.0\.conv_dw\.weight$",
        [
            (r"^stem\.", "features.0."),
            (r"^stages\.(\d)\.downsample\.", _even),
            (r"^stages\.(\d)\.blocks\.", _odd),
            *_block("conv_dw", "norm", "mlp.fc1", "mlp.fc2", "gamma"),
        ],
    ),
    # facebookresearch/ConvNeXt, models/convnext.py
    "convnext": (r"stages\.0\.0\.dwconv\.weight$", [*LISTED, *_block("dwconv", "norm", "pwconv1", "pwconv2", "gamma")]),
    "mmseg": (
        r"stages\.0\.0\.depthwise_conv\.weight$",
        [*LISTED, *_block("depthwise_conv", "norm", "pointwise_conv1", "pointwise_conv2", "gamma")],
    ),
    # Hugging Face transformers, modeling_convnext.py
    "huggingface": (
        r"encoder\.stages\.0\.layers\.0\.dwconv\.weight$",
        [
            (r"^embeddings\.patch_embeddings\.", "features.0.0."),
            (r"^embeddings\.layernorm\.", "features.0.1."),
            (r"^encoder\.stages\.(\d)\.downsampling_layer\.", _even),
            (r"^encoder\.stages\.(\d)\.layers\.", _odd),
            *_block("dwconv", "layernorm", "pwconv1", "pwconv2", "layer_scale_parameter"),
        ],
    ),
    # transformers, modeling_dinov3_convnext.py
    "huggingface, DINOv3": (
        r"stages\.0\.layers\.0\.depthwise_conv\.weight$",
        [
            (r"^stages\.(\d)\.downsample_layers\.", _even),
            (r"^stages\.(\d)\.layers\.", _odd),
            *_block("depthwise_conv", "layer_norm", "pointwise_conv1", "pointwise_conv2", "gamma"),
        ],
    ),
    "detectron2": (
        r"res2\.0\.depthwise\.weight$",
        [
            (r"^stem\.conv1\.", "features.0.0."),
            (r"^stem\.norm\.", "features.0.1."),
            (r"^res([345])\.0\.downsample\.", lambda match: f"features.{2 * int(match[1]) - 4}."),
            (r"^res([2-5])\.", lambda match: f"features.{2 * int(match[1]) - 3}."),
            *_block("depthwise", "norm", "expand", "reduce", "gamma"),
        ],
    ),
}


class Convnext(Backbone):
    """Patch stem, four stages of depthwise 7x7 blocks with layer norms; the pooled output is normalised without weights."""

    # the pooled norm and the classifier, and the norms that dense tasks put on each stage's output
    # (``norms.`` of DINOv3, ``hidden_states_norms.`` of transformers' ConvNextBackbone)
    heads = (
        *("classifier.", "head.", "norm.", "norm0.", "norm1.", "norm2.", "norm3.", "layernorm.", "layer_norm."),
        *("out_norms.", "norms.", "hidden_states_norms."),
    )

    class Config(PluginSettings):
        """``blocks`` a stage and ``width`` of the first stage; it doubles at each. ``drop_path`` of the last block."""

        name: Literal["convnext"] = "convnext"
        blocks: tuple[int, int, int, int] = (3, 3, 9, 3)
        width: int = Field(96, ge=4, le=512, multiple_of=4)
        drop_path: float = Field(0.0, ge=0.0, lt=1.0)
        layer_scale: float = Field(1e-6, gt=0.0)

    def __init__(self, config: "Convnext.Config") -> None:
        super().__init__()
        widths: list[int | None] = [config.width * 2**index for index in range(4)]
        settings = [
            CNBlockConfig(width, following, count)
            for width, following, count in zip(widths, [*widths[1:], None], config.blocks, strict=True)
        ]
        network = ConvNeXt(settings, stochastic_depth_prob=config.drop_path, layer_scale=config.layer_scale)
        self.features = network.features
        self.feature_dim = 8 * config.width

    def stages(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Return the feature maps at strides 4, 8, 16, 32."""
        features, found = images, []
        for index, module in enumerate(self.features):
            features = module(features)
            if index % 2:
                found.append(features)
        return found

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch feature_dim"]:
        """Return the average-pooled last stage after a layer norm without weights (the paper's belong to its classifier)."""
        return F.layer_norm(super().forward(images), (self.feature_dim,), eps=EPSILON)

    @classmethod
    def rename_rules(cls, framework: str) -> Rules:
        """Return the rename table of one framework."""
        return WRITTEN.get(framework, TORCHVISION)

    @classmethod
    def readings(cls) -> dict[str, tuple[str, Rules]]:
        """Return six namings: torchvision, timm, the paper's code, mmpretrain, Hugging Face, Detectron2 (ours)."""
        return READINGS

    @classmethod
    def recognise(cls, tensors: Mapping[str, Tensor]) -> "Convnext.Config | None":
        """Read blocks and width off the names and shapes; refuse another stem and ConvNeXt V2."""
        if not any(name.startswith("features.1.0.block.0.") for name in tensors):
            return None
        if any(".grn." in name for name in tensors):
            raise InputError("it is a ConvNeXt V2 (tensors of a GRN); only ConvNeXt is carried")
        stem = tensors.get("features.0.0.weight")
        if stem is None or stem.ndim != 4:
            raise InputError("it has no ConvNeXt stem (features.0.0.weight); save the whole backbone, not a part of it")
        if tuple(stem.shape[1:]) != (3, 4, 4):
            raise InputError(
                f"its stem has shape {tuple(stem.shape)}; the patch stem is (width, 3, 4, 4), on RGB images"
            )
        blocks = [
            len({m[1] for name in tensors if (m := re.match(rf"features\.{index}\.(\d+)\.", name))})
            for index in (1, 3, 5, 7)
        ]
        if 0 in blocks:
            raise InputError(f"it lacks stage {blocks.index(0) + 1}; save the whole backbone, not a part of it")
        return Convnext.Config.model_validate({"blocks": blocks, "width": stem.shape[0]})

    @classmethod
    def arch(cls, config: Any) -> str:
        """Return ``convnext-tiny``, ``-small``, ``-base``, ``-large``, or the blocks and the width of another size."""
        if (name := SIZES.get((tuple(config.blocks), config.width))) is not None:
            return f"convnext-{name}"
        return f"convnext-{'.'.join(map(str, config.blocks))}-width{config.width}"

    @classmethod
    def facts(cls, config: Any) -> dict[str, Any]:
        """Return blocks, their sum as depth, width, stem and norm."""
        shape = {"blocks": tuple(config.blocks), "depth": sum(config.blocks), "width": config.width}
        return {"family": "convnext", **shape, "stem": "patch", "norm": "LN"}

    @classmethod
    def stage_of(cls, name: str, config: Any) -> str:
        """Return ``stage2`` for ``features.2.*`` (its downsampling) and ``features.3.*``."""
        index = int(name.split(".")[1])
        return f"stage{(index + 1) // 2 if index % 2 else index // 2 + 1}" if index else "stem"

    @classmethod
    def export(cls, tensors: Mapping[str, Tensor], framework: str) -> dict[str, Tensor]:
        """Rename; all but torchvision hold the layer scale as [channels]."""
        if framework not in WRITTEN:
            return dict(tensors)
        rules = WRITTEN[framework]
        return {rename(n, rules): t.reshape(-1) if n.endswith(SCALE) else t for n, t in tensors.items()}

    @classmethod
    def native(cls, tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]] | None:
        """Rename, and give the layer scale torchvision's shape."""
        for naming, (mark, rules) in cls.readings().items():
            if any(re.match(mark, name) for name in tensors):
                found = renamed(tensors, rules)
                return naming, {n: t.reshape(-1, 1, 1) if n.endswith(SCALE) else t for n, t in found.items()}
        return None
