"""The image itself, blurred (saliency-guided masking, arXiv 2309.12757, sec. 3.2)."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Generator, Tensor

from core.config import PluginSettings
from pretrain.fills import Fill, Kernel, blurred, check_kernel


class Blur(Fill):
    """Shows a Gaussian blur of the image: its colours without its edges."""

    class Config(PluginSettings):
        """``kernel`` and ``sigma`` in pixels; 31 and 10 at 224 px in the paper."""

        name: Literal["blur"] = "blur"
        kernel: Kernel = 31
        sigma: float = Field(10.0, gt=0)

    def __init__(self, config: "Blur.Config") -> None:
        self.kernel, self.sigma = config.kernel, config.sigma

    def check(self, size: int, group_rows: int) -> None:
        """Refuse a kernel that does not fit."""
        check_kernel(self.kernel, size, "fill.kernel")

    def content(self, images: Tensor, generators: Sequence[Generator], partner: Tensor | None = None) -> Tensor:
        """Blur each image."""
        return blurred(images, self.kernel, self.sigma)
