"""Two augmented views of an image: geometry per image near the decoder, colour per batch on the training device.

The recipe is MoCo v2's (arXiv 2003.04297, sec. 3): crop, flip, colour jitter, grayscale, Gaussian blur. All parameters of
an image come from its own generator, so a view is the same on any number of workers or processes.
"""

import itertools
import math
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from pydantic import AfterValidator, Field, field_validator
from torch import Generator, Tensor

from core.config import Settings
from pretrain.cutting import Box, cut

ORDERS = torch.tensor(list(itertools.permutations(range(4))))  # orders of brightness, contrast, saturation, hue
NEUTRAL = (1.0, 1.0, 1.0, 0.0)  # brightness, contrast, saturation and hue that change nothing
SOLARIZE_FROM = 0.5  # brighter pixels are inverted (BYOL, arXiv 2006.07733, app. B)
TRIES, UNITS = 10, 10  # at a box, of four numbers each; numbers of a colour change
GRAY = torch.tensor([0.299, 0.587, 0.114])  # ITU-R BT.601 luma, as Pillow and torchvision use


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if not 0 < bounds[0] <= bounds[1]:
        raise ValueError(f"needs 0 < low <= high, got {list(bounds)}")
    return bounds


Ascending = Annotated[tuple[float, float], AfterValidator(_ascending)]
UpToOne = Annotated[float, Field(ge=0, le=1)]
AboveZero = Annotated[float, Field(gt=0, le=1)]


class ViewSettings(Settings):
    """``size`` in pixels; ``mean`` and ``std`` on the 0-1 scale; each ``_probability`` is per view.

    The ``second_`` ones are the second view's where it differs, as in BYOL (arXiv 2006.07733, table 6).
    """

    size: int = Field(224, ge=8)
    scale: Ascending = (0.2, 1.0)
    flip_probability: float = Field(0.5, ge=0, le=1)
    jitter_probability: float = Field(0.8, ge=0, le=1)
    brightness: float = Field(0.4, ge=0, le=1)
    contrast: float = Field(0.4, ge=0, le=1)
    saturation: float = Field(0.4, ge=0, le=1)
    hue: float = Field(0.1, ge=0, le=0.5)
    gray_probability: float = Field(0.2, ge=0, le=1)
    blur_probability: float = Field(0.5, ge=0, le=1)
    blur_sigma: Ascending = (0.1, 2.0)
    solarize_probability: float = Field(0, ge=0, le=1)
    second_blur_probability: float | None = Field(None, ge=0, le=1)
    second_solarize_probability: float | None = Field(None, ge=0, le=1)
    mean: tuple[UpToOne, UpToOne, UpToOne] = (0.485, 0.456, 0.406)
    std: tuple[AboveZero, AboveZero, AboveZero] = (0.229, 0.224, 0.225)

    @field_validator("scale")
    @classmethod
    def _a_share(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[1] > 1:
            raise ValueError(f"is a share of the image: at most 1, got {list(scale)}")
        return scale

    def of_view(self, number: int) -> "ViewSettings":
        """Return the settings of view 0 or 1."""
        seconds = {
            "blur_probability": self.second_blur_probability,
            "solarize_probability": self.second_solarize_probability,
        }
        changed = {key: value for key, value in seconds.items() if value is not None}
        return self.model_copy(update=changed) if number == 1 and changed else self


class View(NamedTuple):
    """The numbers in [0, 1) that decide a view: ``box`` and ``flip`` its geometry, ``unit`` its colours."""

    box: list[float]
    flip: float
    unit: list[float]


def draw(generator: Generator) -> View:
    """Draw a view's numbers, all in one call, which costs less than the drawing."""
    values = torch.rand(TRIES * 4 + 1 + UNITS, generator=generator).tolist()
    return View(values[: TRIES * 4], values[TRIES * 4], values[TRIES * 4 + 1 :])


def crop(
    image: UInt8[Tensor, "3 height width"], settings: ViewSettings, generator: Generator
) -> UInt8[Tensor, "3 size size"]:
    """Take a random part of the image with an aspect ratio of 3/4 to 4/3, resize it to ``size``, and flip it by chance."""
    box = crop_box(image.shape[1], image.shape[2], settings.scale, generator)
    flipped = torch.rand((), generator=generator).item() < settings.flip_probability
    out = torch.empty(3, settings.size, settings.size, dtype=torch.uint8)
    cut(image, box, flipped, out.numpy())
    return out


def crop_box(height: int, width: int, scale: tuple[float, float], generator: Generator) -> Box:
    """Draw (top, left, height, width): up to ten tries, then the largest central box of a permitted aspect ratio."""
    return box_of(height, width, scale, torch.rand(TRIES * 4, generator=generator).tolist())


def box_of(height: int, width: int, scale: tuple[float, float], drawn: list[float]) -> Box:
    """Return the box of forty drawn numbers: share of the area, aspect ratio, and place, for each try."""
    low, high = math.log(3 / 4), math.log(4 / 3)
    for start in range(0, len(drawn), 4):
        share, ratio, down, right = drawn[start : start + 4]
        area = height * width * (scale[0] + share * (scale[1] - scale[0]))
        aspect = math.exp(low + ratio * (high - low))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            return int(down * (height - box_height + 1)), int(right * (width - box_width + 1)), box_height, box_width
    box_width = min(width, round(height * 4 / 3))
    box_height = min(height, round(width * 4 / 3))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def draw_colour(settings: ViewSettings, generator: Generator) -> Float[Tensor, " 8"]:
    """Draw one view's brightness, contrast, saturation, hue, order, gray, blur sigma (0: no blur) and solarisation."""
    return torch.tensor(colour_of(settings, torch.rand(UNITS, generator=generator).tolist()))


def colour_of(settings: ViewSettings, unit: list[float]) -> list[float]:
    """Return the colour changes of ten drawn numbers, as ``draw_colour`` lists them."""
    strengths = (settings.brightness, settings.contrast, settings.saturation, settings.hue)
    factors = [middle + (2 * u - 1) * strength for middle, u, strength in zip(NEUTRAL, unit, strengths, strict=False)]
    if unit[4] >= settings.jitter_probability:
        factors = list(NEUTRAL)
    order = int(unit[5] * len(ORDERS))
    gray = float(unit[6] < settings.gray_probability)
    low, high = settings.blur_sigma
    sigma = low + unit[8] * (high - low) if unit[7] < settings.blur_probability else 0.0
    solarized = float(unit[9] < settings.solarize_probability)
    return [*factors, order, gray, sigma, solarized]


def colour(
    images: UInt8[Tensor, "batch 3 height width"], drawn: Float[Tensor, "batch 8"], settings: ViewSettings
) -> Float[Tensor, "batch 3 height width"]:
    """Apply each row's drawn colour changes, then normalise."""
    pixels = jitter(images.float() / 255, drawn[:, :4], drawn[:, 4].long())
    gray = drawn[:, 5].view(-1, 1, 1, 1).bool()
    pixels = torch.where(gray, luma(pixels).expand_as(pixels), pixels)
    pixels = blur(pixels, drawn[:, 6], settings.blur_sigma[1])
    inverted = drawn[:, 7].view(-1, 1, 1, 1).bool() & (pixels >= SOLARIZE_FROM)
    pixels = torch.where(inverted, 1 - pixels, pixels)
    mean, std = pixels.new_tensor(settings.mean), pixels.new_tensor(settings.std)
    return (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def luma(pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Return the brightness of each pixel."""
    return (pixels * GRAY.to(pixels).view(3, 1, 1)).sum(dim=1, keepdim=True)


def jitter(
    pixels: Float[Tensor, "batch 3 height width"], factors: Float[Tensor, "batch 4"], orders: Tensor
) -> Float[Tensor, "batch 3 height width"]:
    """Change brightness, contrast, saturation and hue of each image by its factors, in its order."""
    changes = (_brightness, _contrast, _saturation, _hue)
    pixels = pixels.clone()
    neutral = torch.tensor(NEUTRAL, device=factors.device)
    for place in range(4):
        which = ORDERS.to(orders.device)[orders, place]
        for number, change in enumerate(changes):
            rows = ((which == number) & (factors[:, number] != neutral[number])).nonzero()[:, 0]
            if len(rows):
                pixels[rows] = change(pixels[rows], factors[rows, number].view(-1, 1, 1, 1))
    return pixels


def _brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    return (pixels * factor).clamp_(0, 1)


def _contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    mean = luma(pixels).mean(dim=(2, 3), keepdim=True)
    return torch.lerp(mean.expand_as(pixels), pixels, factor.expand_as(pixels)).clamp_(0, 1)


def _saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(luma(pixels).expand_as(pixels), pixels, factor.expand_as(pixels)).clamp_(0, 1)


def _hue(pixels: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by ``shift`` turns: to HSV and back."""
    value, where = pixels.max(dim=1, keepdim=True)
    spread = value - pixels.min(dim=1, keepdim=True).values
    red, green, blue = pixels.split(1, dim=1)
    safe = torch.where(spread > 0, spread, torch.ones_like(spread))
    third = torch.where(where == 1, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    hue = torch.where(where == 0, (green - blue) / safe, third) / 6 + shift
    # channel = value - spread * clamp(min(k, 4 - k), 0, 1) with k = (n + 6 * hue) mod 6 and n = 5, 3, 1
    k = (pixels.new_tensor([5.0, 3.0, 1.0]).view(3, 1, 1) + 6 * hue) % 6
    return value - spread * torch.minimum(k, 4 - k).clamp_(0, 1)


def blur(
    pixels: Float[Tensor, "batch 3 height width"], sigma: Float[Tensor, " batch"], largest: float
) -> Float[Tensor, "batch 3 height width"]:
    """Blur each image with a Gaussian of its own sigma in pixels; 0 leaves it as it is. Edges are reflected."""
    rows = (sigma > 0).nonzero()[:, 0]
    if not len(rows):
        return pixels
    radius = min(math.ceil(3 * largest), min(pixels.shape[2:]) - 1)
    offsets = torch.arange(-radius, radius + 1, device=pixels.device, dtype=pixels.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma[rows].view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)
    height, width = pixels.shape[2:]
    part = pixels[rows].reshape(1, -1, height, width)
    part = F.conv2d(F.pad(part, (radius, radius, 0, 0), mode="reflect"), kernel[:, None, None, :], groups=len(kernel))
    part = F.conv2d(F.pad(part, (0, 0, radius, radius), mode="reflect"), kernel[:, None, :, None], groups=len(kernel))
    blurred = pixels.clone()
    blurred[rows] = part.view(-1, 3, height, width)
    return blurred
