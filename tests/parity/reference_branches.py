"""Write the branches' pixel arithmetic out slowly: NumPy, float64, pixel by pixel; no code under test is imported.

Images are [n, 3, h, w], one image is [3, h, w]. Masks hold True where an image is hidden: [n, h, w], or [n, 1, h, w], or
[n, 3, h, w] with a mask per channel. lam is the share of the anchor that is visible.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

Box = tuple[int, int, int, int]
"""Top, bottom, left, right; bottom and right are the first row and column outside."""


def mix_by_mask(images: np.ndarray, mask: np.ndarray, partner: Sequence[int]) -> np.ndarray:
    """Return [n, 3, h, w]: x where visible, x[partner] where hidden (MixMask, arXiv 2210.11456; CutMix, eq. 1)."""
    count, channels, height, width = images.shape
    masks = mask if mask.ndim == 4 else mask.reshape(count, 1, height, width)
    mixed = np.zeros(images.shape)
    for i in range(count):
        for c in range(channels):
            plane = masks[i, c if masks.shape[1] > 1 else 0]
            for y in range(height):
                for x in range(width):
                    mixed[i, c, y, x] = images[partner[i] if plane[y, x] else i, c, y, x]
    return mixed


def lam_of(mask: np.ndarray) -> np.ndarray:
    """Return [n]: the share of each mask that is visible, counted (MixMask: lam is the unmasked share)."""
    shares = []
    for one in mask:
        visible = sum(0 if hidden else 1 for hidden in one.ravel())
        shares.append(visible / one.size)
    return np.array(shares)


def mixup(images: np.ndarray, lam: float | Sequence[float] | np.ndarray, partner: Sequence[int]) -> np.ndarray:
    """Return [n, 3, h, w]: lam x + (1 - lam) x[partner], lam one number or one per image (mixup, arXiv 1710.09412)."""
    mixed = np.zeros(images.shape)
    for i in range(len(images)):
        share = float(np.asarray(lam) if np.ndim(lam) == 0 else np.asarray(lam)[i])
        for place in np.ndindex(*images.shape[1:]):
            mixed[i][place] = share * images[i][place] + (1 - share) * images[partner[i]][place]
    return mixed


def clip(value: int, low: int, high: int) -> int:
    """Return the number of low..high that is nearest to `value`."""
    return low if value < low else high if value > high else value


def cutmix_box(height: int, width: int, lam: float, cy: int, cx: int) -> tuple[Box, float]:
    """Return the box with sides sqrt(1 - lam) about (cy, cx), clipped, and the share outside it (CutMix, 1905.04899, eq. 2).

    As in the releases of CutMix and Un-Mix a side is rounded down to whole pixels, then half of it, again rounded down,
    goes to either side of the centre; the share is counted from the pixels, so that clipping and rounding are in it.
    """
    side = math.sqrt(1 - lam)
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    top, bottom = clip(cy - half_height, 0, height), clip(cy + half_height, 0, height)
    left, right = clip(cx - half_width, 0, width), clip(cx + half_width, 0, width)
    outside = 0
    for y in range(height):
        for x in range(width):
            outside += 0 if top <= y < bottom and left <= x < right else 1
    return (top, bottom, left, right), outside / (height * width)


def gaussian_kernel(size: int, sigma: float) -> np.ndarray:
    """Return [size, size], size odd: exp(-(dy^2 + dx^2) / (2 sigma^2)) over its sum, sampled at whole pixels."""
    assert size % 2 == 1, f"a kernel of even size {size} has no centre"
    radius = size // 2
    kernel = np.zeros((size, size))
    for y in range(size):
        for x in range(size):
            kernel[y, x] = math.exp(-((y - radius) ** 2 + (x - radius) ** 2) / (2 * sigma**2))
    return kernel / math.fsum(float(value) for value in kernel.ravel())


def reflect(place: int, length: int) -> int:
    """Return which of 0..length-1 lies at `place` when the line is mirrored at its end pixels, which are not repeated."""
    if length == 1:
        return 0
    while not 0 <= place < length:
        place = -place if place < 0 else 2 * (length - 1) - place
    return place


def blur(image: np.ndarray, size: int, sigma: float) -> np.ndarray:
    """Return [3, h, w] blurred by the Gaussian kernel, borders mirrored (saliency's fill: size 31, sigma 10)."""
    channels, height, width = image.shape
    kernel, radius = gaussian_kernel(size, sigma), size // 2
    blurred = np.zeros(image.shape)
    rows = [reflect(y, height) for y in range(-radius, height + radius)]
    columns = [reflect(x, width) for x in range(-radius, width + radius)]
    for c in range(channels):
        padded = np.array([[float(image[c, y, x]) for x in columns] for y in rows])
        for y in range(height):
            for x in range(width):
                blurred[c, y, x] = float(np.sum(kernel * padded[y : y + size, x : x + size]))
    return blurred


def high_pass(image: np.ndarray, size: int = 11, sigma: float = 5.0) -> np.ndarray:
    """Return [3, h, w]: the image less its blur (MSCN, arXiv 2206.07700; 11 and 5 are the configs, not the paper's)."""
    return np.asarray(image, dtype=np.float64) - blur(image, size, sigma)


def foreground(saliency: np.ndarray, share: float = 0.6) -> np.ndarray:
    """Return [7, 7], True where A >= mean or |A - mean| <= share * std, population std (Chin et al., arXiv 2309.12757).

    Fractions keep it exact, so that a flat map, of any value, is foreground all over: floats may round its mean off it.
    """
    values = [Fraction(float(value)) for value in saliency.ravel()]
    mean = sum(values, Fraction()) / len(values)
    variance = sum(((value - mean) ** 2 for value in values), Fraction()) / len(values)
    near = Fraction(share) ** 2 * variance
    return np.array([value >= mean or (value - mean) ** 2 <= near for value in values]).reshape(saliency.shape)


def split_ratio(count_hidden: int, foreground_cells: int, background_cells: int) -> tuple[int, int]:
    """Share hidden cells between fore- and background by area (Chin et al.): largest remainder, so that the sum is exact.

    In whole numbers throughout; with equal remainders the odd cell goes to the foreground. Neither side gets more than it has.
    """
    cells = foreground_cells + background_cells
    assert 0 <= count_hidden <= cells, f"{count_hidden} of {cells} cells"
    front, front_left = divmod(count_hidden * foreground_cells, cells)
    back, back_left = divmod(count_hidden * background_cells, cells)
    if front + back < count_hidden:
        if front_left >= back_left:
            front += 1
        else:
            back += 1
    return front, back


def hard_negative_count(r: float, fg_cells: int) -> int:
    """Return how many of the foreground cells a hard negative hides: r * fg_cells to the nearest whole number, halves up.

    At least one, as no mask may be empty (beyond the papers); r ~ U[0.4, 0.7] (Chin et al., arXiv 2309.12757).
    """
    return max(1, math.floor(r * fg_cells + 0.5))


def cell_states(mask: np.ndarray, cells: int) -> list[list[set[bool]]]:
    """Return which values each cell holds: pixel i of a side of s lies in cell floor(i * cells / s) (nearest neighbour)."""
    height, width = mask.shape
    states: list[list[set[bool]]] = [[set() for _ in range(cells)] for _ in range(cells)]
    for y in range(height):
        for x in range(width):
            states[y * cells // height][x * cells // width].add(bool(mask[y, x]))
    return states


def is_exact_share(mask: np.ndarray, cells: int, ratio: float) -> bool:
    """Say whether [h, w] is a cells x cells grid blown up with the asked share hidden, neither nothing nor all (MixMask).

    Whole cells are hidden or not, and as many as come nearest to ratio * cells^2; of two equally near, either is right.
    """
    hidden = 0
    for row in cell_states(mask, cells):
        for values in row:
            if len(values) != 1:
                return False
            hidden += 1 if True in values else 0
    asked = Fraction(str(ratio)) * cells**2
    return 0 < hidden < cells**2 and abs(hidden - asked) <= Fraction(1, 2)
