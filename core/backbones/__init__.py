"""Backbones: ConvNets with four stages that every framework here can hold.

To add one, write ``core/backbones/NAME.py`` with a class named like the file (underscores removed) that extends
``Backbone``, has a ``Config``, and gives its tensors' names in each framework; then name it in a config:
``backbone: {name: NAME}``.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from core.config import PluginSettings
from core.plugins import build as _build

Rules = list[tuple[str, str | Callable[[re.Match[str]], str]]]


class Backbone(nn.Module, ABC):
    """A ConvNet with four stages; ``feature_dim`` is the number of channels after the last."""

    Config: type[PluginSettings]
    feature_dim: int

    @abstractmethod
    def stages(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Return the four stages' feature maps, fine to coarse."""

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch feature_dim"]:
        """Return the average-pooled last stage."""
        return self.stages(images)[-1].mean(dim=(2, 3))

    @classmethod
    @abstractmethod
    def rename_rules(cls, framework: str) -> Rules:
        """Return the (pattern, replacement) pairs from our tensor names to those of ``detectron2`` or ``mmsegmentation``."""


def build(config: Any) -> Backbone:
    """Make the backbone that ``config.name`` names, randomly initialised from torch's global generator."""
    return _build("core.backbones", config)
