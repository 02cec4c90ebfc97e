"""Two augmented views of an image: geometry per image near the decoder, colour per batch on the training device.

The recipe is MoCo v2's (arXiv 2003.04297, sec. 3): crop, flip, colour jitter, grayscale, Gaussian blur. All parameters of
an image come from its own generator, so a view is the same on any number of workers or processes.

A crop is torchvision's antialiased ``resized_crop`` in half its time: the same to the bit where a box shrinks, and within one
gray level where it is only enlarged. What is saved: box and result lie in memory that stays (new pages cost as much as a third of
the work), torch's AVX2 kernel is called without the layers above it, and the channels are taken apart by OpenCV (torch's copy
from [height, width, 3] to [3, height, width] takes 25 times as long), or by NumPy where they are few and its call costs more.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from pydantic import AfterValidator, Field, field_validator
from torch import Generator, Tensor

from core.config import Settings
from pretrain.upload import fused, upload

Box = tuple[int, int, int, int]  # top, left, height, width

FEW = 64 * 64  # pixels that NumPy takes apart in less time
_resize = torch.ops.aten._upsample_bilinear2d_aa.out
_scratch: dict[str, Tensor] = {}
# An image is one thread's work: small ones cost less than OpenCV's pool, and workers share the cores.
cv2.setNumThreads(1)


def cut(
    image: UInt8[np.ndarray, "height width 3"], box: Box, flipped: bool, out: UInt8[np.ndarray, "3 rows columns"]
) -> None:
    """Write the box of the image, resized to the size of ``out``, mirrored if ``flipped``."""
    top, left, height, width = box
    rows, columns = out.shape[1:]
    part = image[top : top + height, left : left + width]
    # where nothing is to be smoothed, OpenCV's linear filter is the same and has less overhead
    if height <= rows and width <= columns:
        pixels = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_LINEAR)
    else:
        pixels = _smoothed(part, rows, columns)
    if rows * columns <= FEW:
        np.copyto(out, (pixels[:, ::-1] if flipped else pixels).transpose(2, 0, 1))
    else:
        planes = cv2.split(pixels, list(out))
        if flipped:
            for plane in planes:
                cv2.flip(plane, 1, plane)


def _smoothed(part: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return the box resized with antialiasing, uint8 [rows, columns, 3], in memory that the next call uses again."""
    box = _memory("box", part.size).view(1, *part.shape)  # four axes, or torch takes its slow kernel
    made = _memory("made", rows * columns * 3).view(1, rows, columns, 3)
    copy = box[0].numpy()
    cv2.copyMakeBorder(part, 0, 0, 0, 0, cv2.BORDER_CONSTANT, copy)  # a border of nothing: OpenCV's fastest copy
    _resize(box.permute(0, 3, 1, 2), [rows, columns], False, out=made.permute(0, 3, 1, 2))
    return made[0].numpy()


def _memory(purpose: str, length: int) -> Tensor:
    """Return that many bytes of this process's scratch memory for a purpose, which only grows."""
    if len(_scratch.get(purpose, ())) < length:
        _scratch[purpose] = torch.empty(length, dtype=torch.uint8)
    return _scratch[purpose][:length]


PERMUTATIONS = list(itertools.permutations(range(4)))  # orders of brightness, contrast, saturation, hue
ORDERS = torch.tensor(PERMUTATIONS)
NEUTRAL = (1.0, 1.0, 1.0, 0.0)  # brightness, contrast, saturation and hue that change nothing
SOLARIZE_FROM = 0.5  # brighter pixels are inverted (BYOL, arXiv 2006.07733, app. B)
LOG_ASPECTS = (math.log(3 / 4), math.log(4 / 3))  # of a box
TRIES, UNITS = 10, 10  # at a box, of four numbers each; numbers of a colour change
CACHED = 2**21  # bytes of float pixels that a CPU core changes at a time
GRAY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma, as Pillow and torchvision use


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

    size: int = Field(224, ge=8, le=4096)
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


def box_of(height: int, width: int, scale: tuple[float, float], drawn: list[float]) -> Box:
    """Return the box of forty drawn numbers: share of the area, aspect ratio, and place, for each try."""
    area, low, high = height * width, *LOG_ASPECTS
    for start in range(0, len(drawn), 4):
        share, ratio, down, right = drawn[start : start + 4]
        part = area * (scale[0] + share * (scale[1] - scale[0]))
        aspect = math.exp(low + ratio * (high - low))
        box_width, box_height = round(math.sqrt(part * aspect)), round(math.sqrt(part / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            return int(down * (height - box_height + 1)), int(right * (width - box_width + 1)), box_height, box_width
    box_width = min(width, round(height * 4 / 3))
    box_height = min(height, round(width * 4 / 3))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def colours_of(settings: ViewSettings, units: Sequence[list[float]]) -> Float[np.ndarray, "views 8"]:
    """Return each view's brightness, contrast, saturation, hue, order, gray, blur sigma (0: no blur) and solarisation.

    ``units`` holds ten drawn numbers a view.
    """
    unit = np.array(units)
    strengths = (settings.brightness, settings.contrast, settings.saturation, settings.hue)
    found = np.empty((len(unit), 8), np.float32)
    jittered = unit[:, 4:5] < settings.jitter_probability
    found[:, :4] = np.where(jittered, NEUTRAL + (2 * unit[:, :4] - 1) * strengths, NEUTRAL)
    found[:, 4] = np.floor(unit[:, 5] * len(PERMUTATIONS))
    found[:, 5] = unit[:, 6] < settings.gray_probability
    low, high = settings.blur_sigma
    found[:, 6] = np.where(unit[:, 7] < settings.blur_probability, low + unit[:, 8] * (high - low), 0.0)
    found[:, 7] = unit[:, 9] < settings.solarize_probability
    return found


def colour(
    images: UInt8[Tensor, "batch 3 height width"], drawn: Float[Tensor, "batch 8"], settings: ViewSettings
) -> Float[Tensor, "batch 3 height width"]:
    """Apply each row's drawn colour changes, then normalise; ``drawn`` best stays on the CPU.

    Which rows a change touches is read from ``drawn``, so that the device is only told, never asked; ``drawn`` on an
    accelerator costs one copy back. On a CPU a few images at a time go through all changes, while they are in its cache.
    """
    drawn = drawn.cpu()
    pixels = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    rows = max(1, CACHED // (4 * images[0].numel())) if images.device.type == "cpu" else len(images)
    for start in range(0, len(images), rows):
        part, values = pixels[start : start + rows], drawn[start : start + rows]
        part.copy_(images[start : start + rows]).div_(255)
        _change(part, values, [*_jitter_steps(values), *_last_steps(values, settings.blur_sigma[1])])
        for channel, mean, std in zip(part.unbind(1), settings.mean, settings.std, strict=True):
            channel.sub_(mean).div_(std)
    return pixels


def luma(pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Return the brightness of each pixel."""
    red, green, blue = pixels.split(1, dim=1)
    return (red * GRAY[0]).add_(green, alpha=GRAY[1]).add_(blue, alpha=GRAY[2])


class Step(NamedTuple):
    """A change made in place to these rows, whose strengths are in that column of the drawn values."""

    change: Callable[[Tensor, Tensor], object]
    rows: list[int]
    column: int


def _jitter_steps(drawn: Tensor) -> list[Step]:
    """List the colour jitter of brightness, contrast, saturation, hue and order a row: place by place, change by change."""
    changes = (_brightness, _contrast, _saturation, _hue)
    table = drawn.tolist()
    orders = [PERMUTATIONS[int(row[4])] for row in table]
    steps = []
    for place in range(4):
        for number, change in enumerate(changes):
            rows = [r for r, row in enumerate(table) if orders[r][place] == number and row[number] != NEUTRAL[number]]
            steps.append(Step(change, rows, number))
    return steps


def _last_steps(drawn: Tensor, largest: float) -> list[Step]:
    """List gray, blur and solarisation of the drawn values."""
    changes = ((5, _gray), (6, _blurring(largest)), (7, _solarize))
    chosen = {column: drawn[:, column].nonzero()[:, 0].tolist() for column, _ in changes}
    return [Step(change, chosen[column], column) for column, change in changes]


def _change(pixels: Tensor, drawn: Tensor, steps: list[Step]) -> Tensor:
    """Take the steps in place and return ``pixels``; all that the device must know goes there in two copies."""
    steps = [step for step in steps if step.rows]
    if not steps:
        return pixels
    strengths = upload(drawn, pixels.device)
    indices = upload(torch.tensor([row for step in steps for row in step.rows]), pixels.device)
    for step, rows in zip(steps, indices.split([len(step.rows) for step in steps]), strict=True):
        values = strengths[rows, step.column].view(-1, 1, 1, 1)
        if len(rows) == len(pixels):
            step.change(pixels, values)
        else:
            part = pixels.index_select(0, rows)
            step.change(part, values)
            pixels.index_copy_(0, rows, part)
    return pixels


def _brightness(pixels: Tensor, factor: Tensor) -> None:
    pixels.mul_(factor).clamp_(0, 1)


def _contrast(pixels: Tensor, factor: Tensor) -> None:
    mean = luma(pixels).mean(dim=(2, 3), keepdim=True)
    torch.lerp(mean.expand_as(pixels), pixels, factor.expand_as(pixels), out=pixels).clamp_(0, 1)


def _saturation(pixels: Tensor, factor: Tensor) -> None:
    torch.lerp(luma(pixels).expand_as(pixels), pixels, factor.expand_as(pixels), out=pixels).clamp_(0, 1)


def _hue(pixels: Tensor, shift: Tensor) -> None:
    """Turn the hue by ``shift`` turns: to HSV and back."""
    red, green, blue = pixels.split(1, dim=1)
    value = torch.maximum(red, green).maximum(blue)
    spread = value - torch.minimum(red, green).minimum(blue)
    safe = spread.clamp(min=1e-12)  # where it is 0, all differences are
    hue = torch.where(green == value, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    hue = torch.where(red == value, (green - blue) / safe, hue).add_(6 * shift)  # in sixths of a turn
    # channel = value - spread * clamp(2 - d, 0, 1), where d is the way round the circle from hue + n to 2; n = 5, 3, 1
    for channel, offset in ((red, 3.0), (green, 1.0), (blue, -1.0)):
        way = hue + offset
        way.sub_((way / 6).round_(), alpha=6).abs_()
        torch.addcmul(value, way.neg_().add_(2).clamp_(0, 1), spread, value=-1, out=channel)


def _gray(pixels: Tensor, _: Tensor) -> None:
    pixels.copy_(luma(pixels).expand_as(pixels))


def _solarize(pixels: Tensor, _: Tensor) -> None:
    pixels.copy_(torch.where(pixels >= SOLARIZE_FROM, 1 - pixels, pixels))


def _blurring(largest: float) -> Callable[[Tensor, Tensor], None]:
    """Return the blur whose kernel reaches three times the largest sigma."""

    def change(pixels: Tensor, sigma: Tensor) -> None:
        height, width = pixels.shape[2:]
        radius = min(math.ceil(3 * largest), min(height, width) - 1)
        offsets = torch.arange(-radius, radius + 1, device=pixels.device, dtype=pixels.dtype)
        kernel = torch.exp(-0.5 * (offsets / sigma.view(-1, 1)) ** 2)
        kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)
        rows, groups = pixels.reshape(1, -1, height, width), len(kernel)
        rows = F.conv2d(F.pad(rows, (radius, radius, 0, 0), mode="reflect"), kernel[:, None, None, :], groups=groups)
        rows = F.conv2d(F.pad(rows, (0, 0, radius, radius), mode="reflect"), kernel[:, None, :, None], groups=groups)
        pixels.copy_(rows.view(-1, 3, height, width))

    return change


# ---- on an accelerator: the whole batch at once, so that few kernels are launched, and fewer still once compiled ----

NO_CHANGE = (1.0, 0.0, 0.0)  # factor, share of the luma, share of its mean
SLOTS = 6  # three before the hue is turned and three after, so that it is turned once, whatever the order


def recolouring(drawn: Float[np.ndarray, "rows 8"]) -> Float[Tensor, "rows 42"]:
    """Return what ``recolour`` is told of each row.

    Of each slot: factor, and what is faded to (``NO_CHANGE``). First what comes before the mean that contrast fades to, with the
    hue's turn; then all slots with it; gray, sigma, solarisation, and 0.
    """
    rows, hue, contrast = np.arange(len(drawn)), 3, 1
    kinds = np.array(PERMUTATIONS)[drawn[:, 4].astype(int)]  # [rows, place]
    turn = np.argmax(kinds == hue, axis=1)
    slots = np.tile(np.array(NO_CHANGE, np.float32), (len(drawn), SLOTS, 1))
    mean_at = np.zeros(len(drawn), int)
    for place in range(4):
        kind, slot = kinds[:, place], np.where(place < turn, place, SLOTS // 2 + place - turn - 1)
        moved = kind != hue
        values = np.stack([drawn[rows, kind], kind == 2, kind == contrast], axis=1)
        slots[rows[moved], slot[moved]] = values[moved]
        mean_at = np.where(kind == contrast, slot, mean_at)
    before = np.where((np.arange(SLOTS) >= mean_at[:, None])[..., None], np.array(NO_CHANGE, np.float32), slots)
    first = np.where(mean_at >= SLOTS // 2, drawn[:, 3], 0)
    flat = [before.reshape(len(drawn), -1), first[:, None], slots.reshape(len(drawn), -1), drawn[:, 3:4], drawn[:, 5:8]]
    return torch.from_numpy(np.concatenate([*flat, np.zeros((len(drawn), 1))], axis=1).astype(np.float32))


@fused
def recolour(
    images: UInt8[Tensor, "rows 3 height width"],
    told: Float[Tensor, "rows 42"],
    settings: ViewSettings,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Float[Tensor, "rows 3 height width"]:
    """Do what ``colour`` does, on the device that holds both, without a choice of rows: what changes nothing is computed too.

    Channel by channel, since what mixes channels of one tensor does not fuse.
    """
    channels = [channel / 255.0 for channel in images.unbind(1)]  # [rows, height, width] each
    width = 3 * SLOTS + 1
    mean = _luma(_slots(channels, told[:, :width], None)).mean(dim=(1, 2), keepdim=True)
    channels = _slots(channels, told[:, width : 2 * width], mean)
    gray, sigma, solarized = (told[:, column].view(-1, 1, 1) for column in range(2 * width, 2 * width + 3))
    luma = _luma(channels)
    channels = [torch.where(gray > 0, luma, channel) for channel in channels]
    channels = _blurred(channels, sigma, settings.blur_sigma[1])
    channels = [torch.where((solarized > 0) & (channel >= SOLARIZE_FROM), 1 - channel, channel) for channel in channels]
    done = [(channel - m) / s for channel, m, s in zip(channels, settings.mean, settings.std, strict=True)]
    return torch.stack(done, dim=1).contiguous(memory_format=memory_format)


def _luma(channels: list[Tensor]) -> Tensor:
    return sum((channel * share for channel, share in zip(channels[1:], GRAY[1:], strict=True)), channels[0] * GRAY[0])


def _slots(channels: list[Tensor], told: Tensor, mean: Tensor | None) -> list[Tensor]:
    """Fade by three slots, turn the hue, fade by three more."""
    for slot in range(SLOTS):
        if slot == SLOTS // 2:
            shift = told[:, 3 * SLOTS].view(-1, 1, 1)
            turned = _turned(channels, shift)
            channels = [torch.where(shift == 0, old, new) for old, new in zip(channels, turned, strict=True)]
        factor, to_luma, to_mean = (told[:, 3 * slot + part].view(-1, 1, 1) for part in range(3))
        base = to_luma * _luma(channels)
        base = base if mean is None else base + to_mean * mean
        channels = [torch.lerp(base, channel, factor).clamp(0, 1) for channel in channels]
    return channels


def _turned(channels: list[Tensor], shift: Tensor) -> list[Tensor]:
    """Turn the hue by ``shift`` turns, as ``_hue`` does."""
    red, green, blue = channels
    value = torch.maximum(red, green).maximum(blue)
    spread = value - torch.minimum(red, green).minimum(blue)
    safe = spread.clamp(min=1e-12)
    hue = torch.where(green == value, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    hue = torch.where(red == value, (green - blue) / safe, hue) + 6 * shift
    ways = [(hue + offset) - 6 * ((hue + offset) / 6).round() for offset in (3.0, 1.0, -1.0)]
    return [value - (2 - way.abs()).clamp(0, 1) * spread for way in ways]


def _blurred(channels: list[Tensor], sigma: Tensor, largest: float) -> list[Tensor]:
    """Blur each row by its sigma, tap by tap: a fused kernel reads neighbours from its cache. At sigma 0 one tap is all."""
    height, width = channels[0].shape[1:]
    radius = min(math.ceil(3 * largest), min(height, width) - 1)
    taps = [torch.exp(-0.5 * (offset / sigma.clamp(min=1e-3)) ** 2) for offset in range(-radius, radius + 1)]
    whole = sum(taps[1:], taps[0])
    for axis, length, pad in ((2, width, (radius, radius, 0, 0)), (1, height, (0, 0, radius, radius))):
        blurred = []
        for channel in channels:
            padded = F.pad(channel[:, None], pad, mode="reflect")[:, 0]
            parts = [tap / whole * padded.narrow(axis, place, length) for place, tap in enumerate(taps)]
            blurred.append(sum(parts[1:], parts[0]))
        channels = blurred
    return channels
