"""Write the papers' formulas out slowly: NumPy, float64, loops; nothing here imports the code under test."""

import math

import numpy as np


def info_nce(query: np.ndarray, key: np.ndarray, negatives: np.ndarray, temperature: float) -> np.ndarray:
    """Return -log(exp(q.k/T) / (exp(q.k/T) + sum_n exp(q.n/T))) per row (MoCo, eq. 1); negatives are (dim, count)."""
    losses = []
    for q, k in zip(query, key, strict=True):
        positive = math.exp(float(np.dot(q, k)) / temperature)
        others = sum(math.exp(float(np.dot(q, column)) / temperature) for column in negatives.T)
        losses.append(-math.log(positive / (positive + others)))
    return np.array(losses)


def nearest(cells: np.ndarray, size: int) -> np.ndarray:
    """Blow a square grid (cells, cells) up to (size, size): pixel i lies in cell floor(i * cells / size)."""
    count = len(cells)
    grown = np.zeros((size, size), dtype=cells.dtype)
    for y in range(size):
        for x in range(size):
            grown[y, x] = cells[y * count // size, x * count // size]
    return grown


def mix(images: np.ndarray, masks: np.ndarray, partner: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Fill hidden pixels of (N, C, H, W) from the partner, pixel by pixel; return images and visible shares."""
    mixed, shares = np.zeros_like(images), np.zeros(len(images))
    count, channels, height, width = images.shape
    for i in range(count):
        visible = 0
        for y in range(height):
            for x in range(width):
                source = partner[i] if masks[i, y, x] else i
                visible += source == i
                for c in range(channels):
                    mixed[i, c, y, x] = images[source, c, y, x]
        shares[i] = visible / (height * width)
    return mixed, shares


def two_term_loss(
    query: np.ndarray,
    mixed_query: np.ndarray,
    key: np.ndarray,
    negatives: np.ndarray,
    temperature: float,
    partner: list[int],
    lam: np.ndarray,
    weight: float,
) -> float:
    """Return mean_i L(q, k) + weight * [lam L(q_m, k) + (1 - lam) L(q_m, k[partner])] (MixMask, arXiv 2210.11456)."""
    plain = info_nce(query, key, negatives, temperature)
    own = info_nce(mixed_query, key, negatives, temperature)
    other = info_nce(mixed_query, np.stack([key[p] for p in partner]), negatives, temperature)
    rows = [plain[i] + weight * (lam[i] * own[i] + (1 - lam[i]) * other[i]) for i in range(len(query))]
    return sum(rows) / len(rows)


def flipped_query_loss(
    query: np.ndarray, mixed_query: np.ndarray, key: np.ndarray, negatives: np.ndarray, temperature: float, lam: float
) -> float:
    """Return the release's form: one lam for the batch, the mixed queries flipped instead of the keys."""
    plain = info_nce(query, key, negatives, temperature).mean()
    own = info_nce(mixed_query, key, negatives, temperature).mean()
    other = info_nce(mixed_query[::-1], key, negatives, temperature).mean()
    return float(plain + lam * own + (1 - lam) * other)


def first_in_first_out(start: np.ndarray, batches: list[np.ndarray]) -> list[np.ndarray]:
    """Return the columns a list-made queue holds, oldest first; start is (dim, count), batches are (rows, dim)."""
    columns = list(start.T)
    for batch in batches:
        for row in batch:
            columns.append(row)
            columns.pop(0)
    return columns


def momentum_update(key_weight: np.ndarray, query_weight: np.ndarray, momentum: float) -> np.ndarray:
    """Return momentum * key + (1 - momentum) * query, element by element (MoCo, eq. 2)."""
    flat = [momentum * k + (1 - momentum) * q for k, q in zip(key_weight.flat, query_weight.flat, strict=True)]
    return np.array(flat).reshape(key_weight.shape)


def cosine(progress: float, start: float, end: float) -> float:
    """Return the half-cosine schedule of SGDR: start at 0, end at 1."""
    return end + 0.5 * (start - end) * (1 + math.cos(progress * math.pi))


def gaussian_kernel(size: int, sigma: float) -> list[float]:
    """Return the normalised samples of a Gaussian at -(size // 2) ... size // 2."""
    samples = [math.exp(-((i - size // 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return [sample / sum(samples) for sample in samples]


def mirrored(index: int, size: int) -> int:
    """Reflect an index at the first and last pixel without repeating them (``reflect`` padding)."""
    if index < 0:
        return -index
    return 2 * (size - 1) - index if index >= size else index


def gaussian_blur(image: np.ndarray, size: int, sigma: float) -> np.ndarray:
    """Blur (C, H, W) with reflect padding by the plain two-dimensional sum."""
    kernel, half = gaussian_kernel(size, sigma), size // 2
    channels, height, width = image.shape
    blurred = np.zeros_like(image)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                total = 0.0
                for j in range(size):
                    for i in range(size):
                        pixel = image[c, mirrored(y + j - half, height), mirrored(x + i - half, width)]
                        total += kernel[j] * kernel[i] * pixel
                blurred[c, y, x] = total
    return blurred


def high_pass(image: np.ndarray, size: int = 11, sigma: float = 5.0) -> np.ndarray:
    """Return x - GaussianBlur(x) (MSCN, arXiv 2206.07700)."""
    return image - gaussian_blur(image, size, sigma)


def batch_norm(values: np.ndarray, eps: float) -> np.ndarray:
    """Normalise (N, C, H, W) per channel with the biased variance of this batch alone, without affine terms."""
    normal = np.zeros_like(values)
    for c in range(values.shape[1]):
        channel = values[:, c]
        mean = sum(channel.flat) / channel.size
        variance = sum((value - mean) ** 2 for value in channel.flat) / channel.size
        normal[:, c] = (channel - mean) / math.sqrt(variance + eps)
    return normal
