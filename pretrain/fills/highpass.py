"""The image's fine detail and noise (saliency-guided masking, arXiv 2309.12757, sec. 3.2)."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Generator, Tensor

from core.config import PluginSettings
from pretrain.fills import Fill, Kernel, check_kernel, high_pass, row_noise


class Highpass(Fill):
    """Shows what a Gaussian blur takes away, plus noise that covers the mask's edges.

    The kernel and the noise are MSCN's (arXiv 2206.07700; the noise's 0.18 from a third-party re-implementation).
    """

    class Config(PluginSettings):
        """``kernel`` and ``sigma`` in pixels, ``std`` in units of the normalised image."""

        name: Literal["highpass"] = "highpass"
        kernel: Kernel = 11
        sigma: float = Field(5.0, gt=0)
        std: float = Field(0.18, ge=0)

    def __init__(self, config: "Highpass.Config") -> None:
        self.config = config

    def check(self, size: int, group_rows: int) -> None:
        """Refuse a kernel that does not fit."""
        check_kernel(self.config.kernel, size, "fill.kernel")

    def content(self, images: Tensor, generators: Sequence[Generator], partner: Tensor | None = None) -> Tensor:
        """Filter each image and add noise from its own generator."""
        noise = self.config.std * row_noise(images, generators)
        return high_pass(images, self.config.kernel, self.config.sigma) + noise
