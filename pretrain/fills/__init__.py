"""Fills: what is shown where an image is hidden.

To add one, write ``pretrain/fills/NAME.py`` with a class named like the file that extends ``Fill`` and has a ``Config``.
"""

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import AfterValidator, Field
from torch import Generator, Tensor

from core.config import PluginSettings
from core.errors import InputError
from pretrain.drawing import once
from pretrain.upload import fused, upload


class Fill(ABC):
    """Makes the content for hidden areas."""

    Config: ClassVar[type[PluginSettings]]
    mixes: ClassVar[bool] = False  # shows another image, so that the view belongs to two

    def check(self, size: int, group_rows: int) -> None:
        """Raise InputError when images of ``size`` pixels or groups of ``group_rows`` cannot be filled."""

    def partner(self, count: int, groups: Sequence[Generator]) -> Int[Tensor, " count"] | None:
        """Return the image that fills each row, for fills that mix; one generator a group."""
        return None

    @abstractmethod
    def content(
        self,
        images: Float[Tensor, "batch 3 height width"],
        generators: Sequence[Generator],
        partner: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Return an image to show through the hidden areas of each row; one generator a row."""


def paste(images: Tensor, mask: Tensor, content: Tensor) -> Tensor:
    """Show ``content`` where ``mask`` is True and ``images`` elsewhere."""
    return torch.where(mask, content, images)


def row_noise(
    images: Float[Tensor, "batch channels height width"], generators: Sequence[Generator]
) -> Float[Tensor, "batch channels height width"]:
    """Draw standard normal noise for each row from its generator; on a GPU there, from a seed that the generator gives.

    Noise is as large as the images: drawn on the host, 32 images of 224 px take 50 ms, more than the step of the GPU that
    docs/scaling.md models. CPUs and GPUs draw other numbers.
    """
    if images.device.type in ("cuda", "meta"):
        seeds = once(
            generators, "seeds", lambda: torch.stack([torch.randint(2**62, (), generator=g) for g in generators])
        )
        return noise_from(upload(seeds, images.device), images)
    rows = [torch.randn(images.shape[1:], generator=generator) for generator in generators]
    return upload(torch.stack(rows).to(images.dtype), images.device)


GAMMA = -0x61C8864680B583EB  # of SplitMix64
GAMMA_INVERSE = -0xE217C1E66C88CC3  # modulo 2**64


@fused
def noise_from(seeds: Int[Tensor, " rows"], images: Tensor) -> Tensor:
    """Draw standard normal noise like ``images`` on their device, each row from its seed, in as many kernels as one row takes.

    A pixel's bits are those of its number, mixed as SplitMix64 does (Steele, Lea and Flood 2014, fig. 16); two of 32 bits give
    one normal number (Box and Muller 1958).
    """
    place = torch.arange(images[0].numel(), device=images.device).view(images.shape[1:])
    # seed + number * GAMMA; as written, a compiled kernel would multiply numbers of 32 bits, and Triton refuses
    bits = (seeds.view(-1, *[1] * place.ndim) * GAMMA_INVERSE + (place + 1)) * GAMMA
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        bits = (bits ^ ((bits >> shift) & (2 ** (64 - shift) - 1))) * factor  # the shift of an unsigned number
    radius = (((bits >> 32) & 0xFFFFFFFF).to(torch.float32) + 0.5) / 2**32
    turn = (bits & 0xFFFFFFFF).to(torch.float32) / 2**32
    noise = (-2 * radius.log()).sqrt() * (2 * math.pi * turn).cos()
    return torch.empty_like(images).copy_(noise)


def blurred(
    images: Float[Tensor, "batch channels height width"], kernel: int, sigma: float
) -> Float[Tensor, "batch channels height width"]:
    """Blur with a Gaussian of ``sigma`` pixels cut off at ``kernel`` pixels (odd), edges reflected."""
    radius, channels = kernel // 2, images.shape[1]
    device = images.device.type
    unrounded = contextlib.nullcontext() if device == "meta" else torch.autocast(device, enabled=False)
    with unrounded:  # in bf16 a high-pass, a small difference, would lose 1.2 %
        offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
        weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
        weights = (weights / weights.sum()).expand(channels, 1, 1, -1)
        rows = F.conv2d(F.pad(images, (radius, radius, 0, 0), mode="reflect"), weights, groups=channels)
        return F.conv2d(F.pad(rows, (0, 0, radius, radius), mode="reflect"), weights.transpose(2, 3), groups=channels)


def high_pass(
    images: Float[Tensor, "batch channels height width"], kernel: int, sigma: float
) -> Float[Tensor, "batch channels height width"]:
    """Return ``x - GaussianBlur(x)`` (MSCN, arXiv 2206.07700)."""
    return images - blurred(images, kernel, sigma)


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError(f"needs a middle pixel: take an odd number, got {size}")
    return size


Kernel = Annotated[int, Field(ge=3), AfterValidator(_odd)]


def check_kernel(kernel: int, size: int, key: str) -> None:
    """Refuse a kernel whose reflected edge is larger than the image."""
    if kernel // 2 >= size:
        raise InputError(f"{key}={kernel} is too large for {size} px images; make it smaller than {2 * size}")
