"""Write the losses and measures of the base methods out slowly: NumPy, float64, row by row; no code under test is imported.

Rows are [n, dim]. A formula that its paper states with cosines divides by the lengths itself; one stated with dot products
takes rows as given.
"""

import math
from collections.abc import Callable, Sequence

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
