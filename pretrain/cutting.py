"""Cut a box out of an image and resize it as torchvision's antialiased ``resized_crop`` does, in half its time.

The result is the same to the bit where a box shrinks, and within one gray level where it is only enlarged.

What is saved: the box goes through one piece of memory that stays in the cache, torch's AVX2 kernel is called without the
layers above it, and OpenCV takes the channels apart (torch's copy from [height, width, 3] to [3, height, width] takes 25
times as long).
"""

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

Box = tuple[int, int, int, int]  # top, left, height, width

_resize = torch.ops.aten._upsample_bilinear2d_aa.default
_scratch = torch.empty(0, dtype=torch.uint8)


def cut(
    image: UInt8[Tensor, "3 height width"], box: Box, flipped: bool, out: UInt8[np.ndarray, "3 rows columns"]
) -> None:
    """Write the box of the image, resized to the size of ``out``, mirrored if ``flipped``."""
    top, left, height, width = box
    rows, columns = out.shape[1:]
    if (
        height <= rows and width <= columns
    ):  # nothing to smooth: OpenCV's linear filter is the same and has less overhead
        source = image.permute(1, 2, 0).numpy()[top : top + height, left : left + width]
        pixels = cv2.resize(source, (columns, rows), interpolation=cv2.INTER_LINEAR)
    else:
        pixels = _smoothed(image, box, rows, columns)
    cv2.split(cv2.flip(pixels, 1) if flipped else pixels, list(out))


def _smoothed(image: Tensor, box: Box, rows: int, columns: int) -> np.ndarray:
    """Return the box resized with antialiasing, uint8 [rows, columns, 3]."""
    top, left, height, width = box
    part = _memory(height * width * 3).view(1, height, width, 3)  # four axes, or torch takes its slow kernel
    part[0].copy_(image[:, top : top + height, left : left + width].permute(1, 2, 0))
    return _resize(part.permute(0, 3, 1, 2), [rows, columns], False)[0].permute(1, 2, 0).numpy()


def _memory(length: int) -> Tensor:
    """Return that many bytes of this process's scratch memory, which only grows."""
    global _scratch
    if len(_scratch) < length:
        _scratch = torch.empty(length, dtype=torch.uint8)
    return _scratch[:length]
