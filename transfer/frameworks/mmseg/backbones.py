"""Backbones for MMSegmentation: its own ResNet, and ConvNeXt with mmpretrain's tensor names (mmpretrain is not needed).

Importing this file registers ``ConvNeXt`` (arXiv 2201.03545, sec. 3.3); a config does so with
``custom_imports = dict(imports=["transfer.frameworks.mmseg.backbones"])``.
"""

from transfer.frameworks.mmseg import compat  # noqa: F401, I001 - first: it prepares the mm* packages

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from mmengine.model import BaseModule
from mmseg.models.backbones import ResNet
from mmseg.registry import MODELS
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import StochasticDepth

from core.backbones.convnext import EPSILON, residual
from transfer.convert.recipe import Recipe
from transfer.frameworks._protocol import Family
from transfer.frameworks._timm import TimmStages


class Block(BaseModule):
    """One residual block."""

    def __init__(self, channels: int, drop_path: float) -> None:
        super().__init__()
        self.depthwise_conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.pointwise_conv1 = nn.Linear(channels, 4 * channels)
        self.pointwise_conv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Return the input plus the residual."""
        parts = (self.depthwise_conv, self.norm, self.pointwise_conv1, self.pointwise_conv2)
        return images + self.drop_path(residual(images, *parts, self.gamma))


@MODELS.register_module()
class ConvNeXt(BaseModule):
    """Four stages; ``out_norms`` adds a new layer norm (``norm0`` to ``norm3``) to each output, as dense tasks do."""

    def __init__(
        self,
        blocks: Sequence[int] = (3, 3, 9, 3),
        width: int = 96,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path: float = 0.0,
        out_norms: bool = True,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.out_indices = tuple(out_indices)
        chances = [drop_path * index / max(1, sum(blocks) - 1) for index in range(sum(blocks))]
        self.downsample_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        for index, count in enumerate(blocks):
            channels = width * 2**index
            self.downsample_layers.append(_halving(channels // 2, channels) if index else _stem(channels))
            self.stages.append(nn.Sequential(*(Block(channels, chances.pop(0)) for _ in range(count))))
            if out_norms and index in self.out_indices:
                self.add_module(f"norm{index}", LayerNorm2d(channels, eps=EPSILON))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> tuple[Tensor, ...]:
        """Return the asked stages, fine to coarse."""
        features, found = images, []
        for index, (downsample, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            features = stage(downsample(features))
            if index in self.out_indices:
                norm = getattr(self, f"norm{index}", None)
                found.append(features if norm is None else norm(features))
        return tuple(found)


@MODELS.register_module()
class Timm(TimmStages, BaseModule):
    """timm's network ``model``; stages up to ``frozen_stages`` are frozen, as in MMSegmentation's ResNet (0 is the stem)."""

    def __init__(
        self,
        model: str,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        norm = (norm_cfg or {"type": "BN"})["type"]
        self.open(model, frozen=frozen_stages + 1, norm=norm, norm_eval=norm_eval)
        self.out_indices = tuple(out_indices)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> tuple[Tensor, ...]:
        """Return the asked stages, fine to coarse."""
        found = self.maps(images)
        return tuple(found[index] for index in self.out_indices)


def _stem(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, channels, 4, 4), LayerNorm2d(channels, eps=EPSILON))


def _halving(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(LayerNorm2d(channels, eps=EPSILON), nn.Conv2d(channels, out, 2, 2))


def resnet(recipe: Recipe) -> nn.Module:
    """Build MMSegmentation's own ResNet, undilated; it returns its four stages."""
    size = {"base_channels": recipe.width, "stem_channels": recipe.width}
    return ResNet(recipe.depth, **size, style=recipe.style, norm_cfg={"type": "BN"}, norm_eval=False)


def _resnet_facts(recipe: Recipe) -> dict[str, Any]:
    return {"style": recipe.style, "depth": recipe.depth, "base_channels": recipe.width, "stem_channels": recipe.width}


def _convnext_facts(recipe: Recipe) -> dict[str, Any]:
    return {"type": "ConvNeXt", "blocks": list(recipe.blocks), "width": recipe.width}


FAMILIES = {
    "resnet": Family(resnet, _resnet_facts),
    "convnext": Family(lambda recipe: ConvNeXt(recipe.blocks, recipe.width, out_norms=False), _convnext_facts),
    "timm": Family(lambda recipe: Timm(recipe.model), lambda recipe: {"type": "Timm", "model": recipe.model}),
}
