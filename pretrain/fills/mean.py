"""The image's own mean colour (saliency-guided masking, arXiv 2309.12757)."""

from collections.abc import Sequence
from typing import Literal

from torch import Generator, Tensor

from core.config import PluginSettings
from pretrain.fills import Fill


class Mean(Fill):
    """Fills with the mean of each image and channel."""

    class Config(PluginSettings):
        """No settings."""

        name: Literal["mean"] = "mean"

    def __init__(self, config: "Mean.Config") -> None:
        pass

    def content(self, images: Tensor, generators: Sequence[Generator], partner: Tensor | None = None) -> Tensor:
        """Return one colour an image."""
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images)
