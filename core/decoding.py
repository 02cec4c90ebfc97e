"""Decode image files: JPEG by OpenCV's libjpeg-turbo, in half size or less where that is enough; the rest by Pillow.

Both give the same pixels of a JPEG (a test compares them); OpenCV takes three fifths of Pillow's time, as that goes through a
buffer of four bytes a pixel.
"""

import io
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from core.bounds import FORMATS, MOST_PIXELS
from core.errors import InputError

# The gray names only ask for the size: the colour is that of IMREAD_COLOR_RGB. EXIF rotation is left alone, as Pillow does.
RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
FLAGS = {
    1: RGB,
    2: RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: RGB | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: RGB | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
DEEP = 257  # 16-bit values of one 8-bit value: 65,535 / 255
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers that begin a frame (ITU-T T.81, table B.1)
SCAN, START = 0xDA, b"\xff\xd8"


class DamagedImage(InputError):
    """An image file that cannot be decoded; the message names it."""


class Encoded(NamedTuple):
    """An image file's bytes, and how to name it in a message."""

    data: bytes
    name: Path | str


def decode(data: bytes, name: Path | str, reduction: int = 1) -> UInt8[Tensor, "3 height width"]:
    """Decode an image file's bytes to RGB; raise DamagedImage when it is truncated or no image.

    A ``reduction`` of 2, 4 or 8 gives a JPEG in that part of its size, rounded up, by a smaller inverse DCT; other formats
    come in full size. The tensor's memory is [height, width, 3].
    """
    if jpeg_size(data) is not None:
        try:
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), FLAGS[reduction])
        except cv2.error:
            decoded = None
        if decoded is not None:
            return torch.from_numpy(decoded).permute(2, 0, 1)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are more than {MOST_PIXELS:,}")
            pixels = rgb(image)
    except Exception as error:  # a damaged image can raise anything
        raise DamagedImage(f"{name} cannot be decoded ({error}); copy or download it again") from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def rgb(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    """Return an opened image's colours; gray values of 16 bits, which Pillow would cut off at 255, are scaled to 8."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        if image.mode != "F" and 255 < values.max() <= DEEP * 255 and values.min() >= 0:
            values = np.round(values / DEEP)
        if not (np.isfinite(values).all() and 0 <= values.min() <= values.max() <= 255):
            raise ValueError(f"gray values from {values.min():g} to {values.max():g}, neither of 8 nor of 16 bits")
        return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Read (height, width) from the header of a gray or three-colour JPEG; None for all else, which Pillow reads."""
    if data[:2] != START:
        return None
    place, end = 2, len(data) - 10
    while place < end and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in FRAMES:
            height, width = data[place + 5] << 8 | data[place + 6], data[place + 7] << 8 | data[place + 8]
            plain = data[place + 4] == 8 and data[place + 9] in (1, 3) and 0 < height * width <= MOST_PIXELS
            return (height, width) if plain else None
        if marker == SCAN:
            return None
        # a fill byte before a marker is skipped alone
        place += 1 if marker == 0xFF else 2 + (data[place + 2] << 8 | data[place + 3])
    return None


def reduction_for(least: int, side: int) -> int:
    """Return the largest of 1, 2, 4 and 8 by which a box whose shorter side is ``least`` stays at least ``side`` pixels."""
    return max(part for part in FLAGS if part == 1 or least // part >= side)
