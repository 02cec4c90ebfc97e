"""Write the papers' formulas out slowly: NumPy, float64, loops; no code under test is imported.

Methods: rows are [n, dim]. A formula that its paper states with cosines divides by the lengths itself; one stated with dot
products takes rows as given. Branches: images are [n, 3, h, w], one image is [3, h, w]. Masks hold True where an image is hidden:
[n, h, w], or [n, 1, h, w], or [n, 3, h, w] with a mask per channel. lam is the share of the anchor that is visible.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

RowLoss = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A loss L(q, k): [n, dim] and [n, dim] in, [n] out."""


def dot(left: np.ndarray, right: np.ndarray) -> float:
    """Return the sum of products of two vectors, one product at a time."""
    return math.fsum(float(a) * float(b) for a, b in zip(left, right, strict=True))


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    """Return u.v / (|u| |v|), the similarity of SimCLR, BYOL and SimSiam."""
    return dot(left, right) / (math.sqrt(dot(left, left)) * math.sqrt(dot(right, right)))


def unit(rows: np.ndarray) -> np.ndarray:
    """Divide each row of [n, dim] by its Euclidean length (MoCo, sec. 3.1: features are L2-normalised)."""
    found = np.zeros(rows.shape)
    for i, row in enumerate(rows):
        length = math.sqrt(dot(row, row))
        for j, value in enumerate(row):
            found[i, j] = value / length
    return found


def surprise(positive: float, others: Sequence[tuple[float, float]]) -> float:
    """Return -log(exp(p) / (exp(p) + sum of w exp(o))) for logits p and (weight w, logit o), safe from overflow."""
    highest = max([positive, *(logit for _, logit in others)])
    total = math.exp(positive - highest) + math.fsum(weight * math.exp(logit - highest) for weight, logit in others)
    return math.log(total) + highest - positive


def info_nce(
    query: np.ndarray,
    key: np.ndarray,
    negatives: np.ndarray,
    temperature: float,
    extra: np.ndarray | None = None,
    alpha: float = 1.0,
) -> np.ndarray:
    """Return [n]: -log(exp(q.k/T) / (exp(q.k/T) + sum over negatives of exp(q.n/T))) (MoCo, arXiv 1911.05722, eq. 1).

    Negatives are columns, [dim, count], and take dot products as given. `extra` [n, dim] is one hard negative h per row:
    exp(alpha * q.h/T) joins the denominator of its own row only (Chin et al., arXiv 2309.12757: its logit times alpha).
    """
    losses = []
    for i in range(len(query)):
        others = [(1.0, dot(query[i], negatives[:, j]) / temperature) for j in range(negatives.shape[1])]
        if extra is not None:
            others.append((1.0, alpha * dot(query[i], extra[i]) / temperature))
        losses.append(surprise(dot(query[i], key[i]) / temperature, others))
    return np.array(losses)


def nt_xent(first: np.ndarray, second: np.ndarray, temperature: float) -> np.ndarray:
    """Return [2n]: l(i, j) = -log(exp(s_ij/T) / sum over k != i of exp(s_ik/T)), s a cosine (SimCLR, 2002.05709, eq. 1).

    The 2n rows are those of `first`, then those of `second`; row i of one is the positive of row i of the other.
    """
    rows, count = [*first, *second], len(first)
    losses = []
    for i in range(2 * count):
        partner = i + count if i < count else i - count
        others = [(1.0, cosine(rows[i], rows[k]) / temperature) for k in range(2 * count) if k != i and k != partner]
        losses.append(surprise(cosine(rows[i], rows[partner]) / temperature, others))
    return np.array(losses)


def nt_xent_directional(
    query: np.ndarray, key: np.ndarray, temperature: float, extra: np.ndarray | None = None, alpha: float = 1.0
) -> np.ndarray:
    """Return [n]: SimCLR's eq. 1 for the rows of `query` only, which is the first half of `nt_xent(query, key)`.

    Row i has the positive key[i] and 2n - 2 negatives: the other rows of `key` and the other rows of `query`. `extra` is one
    hard negative h per row: exp(alpha * cos(q, h)/T) joins its own row's denominator, as in `info_nce`.
    """
    losses = []
    for i in range(len(query)):
        others = []
        for j in range(len(query)):
            if j != i:
                others.append((1.0, cosine(query[i], key[j]) / temperature))
                others.append((1.0, cosine(query[i], query[j]) / temperature))
        if extra is not None:
            others.append((1.0, alpha * cosine(query[i], extra[i]) / temperature))
        losses.append(surprise(cosine(query[i], key[i]) / temperature, others))
    return np.array(losses)


def byol(prediction: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return [n]: 2 - 2 cos(prediction, key), the squared distance of the unit rows (BYOL, arXiv 2006.07733, eq. 2)."""
    return np.array([2 - 2 * cosine(p, k) for p, k in zip(prediction, key, strict=True)])


def simsiam(prediction: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return [n]: -cos(prediction, key) (SimSiam, arXiv 2011.10566, eq. 1); symmetric use halves two of them (eq. 2)."""
    return np.array([-cosine(p, k) for p, k in zip(prediction, key, strict=True)])


def cross_entropy(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return [n]: -sum over classes of target * log(exp(score) / sum of exp(scores)); ``target`` are shares of classes."""
    losses = []
    for row, shares in zip(scores, target, strict=True):
        others = [[(1.0, other) for place, other in enumerate(row) if place != own] for own in range(len(row))]
        losses.append(math.fsum(shares[own] * surprise(row[own], others[own]) for own in range(len(row))))
    return np.array(losses)


def per_row(lam: float | Sequence[float] | np.ndarray, count: int) -> list[float]:
    """Return one lam for each of `count` rows, from one number or from a sequence of that length."""
    if np.ndim(lam) == 0:
        return [float(np.asarray(lam))] * count
    shares = [float(share) for share in np.asarray(lam)]
    assert len(shares) == count, f"{len(shares)} lam for {count} rows"
    return shares


def two_term(
    loss_rows_fn: RowLoss,
    query_mixed: np.ndarray,
    key: np.ndarray,
    partner: Sequence[int],
    lam: float | Sequence[float] | np.ndarray,
) -> np.ndarray:
    """Return [n]: lam L(q_m, k) + (1 - lam) L(q_m, k[partner]) (MixMask, arXiv 2210.11456, and Un-Mix, 2003.05438)."""
    shares = per_row(lam, len(query_mixed))
    own = loss_rows_fn(query_mixed, key)
    other = loss_rows_fn(query_mixed, np.array([key[j] for j in partner]))
    return np.array([share * own[i] + (1 - share) * other[i] for i, share in enumerate(shares)])


def release_form(
    loss_fn: RowLoss, q_m: np.ndarray, key: np.ndarray, lam: float | Sequence[float] | np.ndarray
) -> np.ndarray:
    """Return [n]: lam L(q_m, k) + (1 - lam) L(flipped q_m, k), as the releases of MixMask and Un-Mix compute it.

    Row i of the second term holds the mixture n - 1 - i, so a lam per image is flipped along with it (the releases have one
    lam per batch). The mean over rows equals that of `two_term` with the reversed partner; single rows do not.
    """
    count = len(q_m)
    shares = per_row(lam, count)
    own = loss_fn(q_m, key)
    other = loss_fn(np.array([q_m[count - 1 - i] for i in range(count)]), key)
    return np.array([shares[i] * own[i] + (1 - shares[count - 1 - i]) * other[i] for i in range(count)])


def mixsiam_target(z1: np.ndarray, z2: np.ndarray) -> np.ndarray:
    """Return [n, dim]: the greater of the two views' features, element by element (MixSiam, arXiv 2111.02679)."""
    target = np.zeros(z1.shape)
    for i in range(len(z1)):
        for j in range(z1.shape[1]):
            target[i, j] = z1[i, j] if z1[i, j] >= z2[i, j] else z2[i, j]
    return target


def mixsiam_loss(pred_mix: np.ndarray, z1: np.ndarray, z2: np.ndarray) -> np.ndarray:
    """Return [n]: -cos(pred_mix, max(z1, z2)); the maximum is taken of features as given, not of unit ones (MixSiam)."""
    return simsiam(pred_mix, mixsiam_target(z1, z2))


def ema(old: np.ndarray, new: np.ndarray, momentum: float) -> np.ndarray:
    """Return momentum * old + (1 - momentum) * new, one number at a time (MoCo, eq. 2; BYOL, eq. 1)."""
    pairs = zip(np.ravel(old), np.ravel(new), strict=True)
    return np.array([momentum * float(a) + (1 - momentum) * float(b) for a, b in pairs]).reshape(np.shape(old))


def cosine_momentum(base: float, progress: float) -> float:
    """Return 1 - (1 - base)(cos(pi progress) + 1) / 2, from `base` at 0 to 1 at progress 1 (BYOL, sec. 3.3)."""
    return 1 - (1 - base) * (math.cos(math.pi * progress) + 1) / 2


def effective_rank(matrix: np.ndarray) -> float:
    """Return exp(-sum p log p) of p = singular values over their sum (Roy and Vetterli 2007, def. 1; RankMe, 2210.02885).

    The matrix is taken as given: centre or normalise its rows before, if that is what is measured. 0 log 0 counts as 0.
    """
    values = [float(value) for value in np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False)]
    total = math.fsum(values)
    shares = [value / total for value in values]
    return math.exp(-math.fsum(share * math.log(share) for share in shares if share > 0))


def embedding_std(rows: np.ndarray) -> float:
    """Return the population std of each column of the unit rows, averaged over columns (SimSiam, sec. 4.1).

    It is near 1 / sqrt(dim) for spread rows and 0 for collapsed ones.
    """
    normal = unit(rows)
    deviations = []
    for j in range(normal.shape[1]):
        column = [float(value) for value in normal[:, j]]
        mean = math.fsum(column) / len(column)
        deviations.append(math.sqrt(math.fsum((value - mean) ** 2 for value in column) / len(column)))
    return math.fsum(deviations) / len(deviations)


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


def nearest(cells: np.ndarray, size: int) -> np.ndarray:
    """Blow a square grid (cells, cells) up to (size, size): pixel i lies in cell floor(i * cells / size)."""
    count = len(cells)
    grown = np.zeros((size, size), dtype=cells.dtype)
    for y in range(size):
        for x in range(size):
            grown[y, x] = cells[y * count // size, x * count // size]
    return grown


def first_in_first_out(start: np.ndarray, batches: list[np.ndarray]) -> list[np.ndarray]:
    """Return the columns a list-made queue holds, oldest first; start is (dim, count), batches are (rows, dim)."""
    columns = list(start.T)
    for batch in batches:
        for row in batch:
            columns.append(row)
            columns.pop(0)
    return columns


def annealed(progress: float, start: float, end: float) -> float:
    """Return the half-cosine schedule of SGDR: start at 0, end at 1."""
    return end + 0.5 * (start - end) * (1 + math.cos(progress * math.pi))


def batch_norm(values: np.ndarray, eps: float) -> np.ndarray:
    """Normalise (N, C, H, W) per channel with the biased variance of this batch alone, without affine terms."""
    normal = np.zeros_like(values)
    for c in range(values.shape[1]):
        channel = values[:, c]
        mean = sum(channel.flat) / channel.size
        variance = sum((value - mean) ** 2 for value in channel.flat) / channel.size
        normal[:, c] = (channel - mean) / math.sqrt(variance + eps)
    return normal
