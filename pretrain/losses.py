"""Siamese losses: one number a row."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def unit(features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
    """Scale each row to length one, in float32 at least (under autocast the encoder gives half precision)."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)


def info_nce(
    query: Float[Tensor, "batch dim"],
    key: Float[Tensor, "batch dim"],
    negatives: Float[Tensor, "dim count"],
    temperature: float,
    hard: Float[Tensor, "batch dim"] | None = None,
    alpha: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Score each query against its key and all negatives (MoCo, arXiv 1911.05722, eq. 1).

    ``hard`` adds one negative a row, its logit times ``alpha`` (saliency-guided masking, arXiv 2309.12757, sec. 3.3).
    """
    logits = [(query * key).sum(dim=1, keepdim=True), query @ negatives]
    if hard is not None:
        logits.append(alpha * (query * hard).sum(dim=1, keepdim=True))
    scores = torch.cat(logits, dim=1) / temperature
    return F.cross_entropy(scores, scores.new_zeros(len(scores), dtype=torch.long), reduction="none")


def nt_xent(
    query: Float[Tensor, "batch dim"],
    key: Float[Tensor, "batch dim"],
    queries: Float[Tensor, "all dim"],
    keys: Float[Tensor, "all dim"],
    first_row: int,
    temperature: float,
    hard: Float[Tensor, "batch dim"] | None = None,
    alpha: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Score each query against its key, with all other rows of both views as negatives (SimCLR, arXiv 2002.05709, eq. 1).

    ``queries`` and ``keys`` hold the rows of all processes, ``query`` and ``key`` those from ``first_row`` on.
    """
    own = torch.arange(len(query), device=query.device)
    among_queries = query @ queries.T
    among_queries = among_queries.masked_fill(
        F.one_hot(own + first_row, len(queries)).bool(),
        -torch.inf,  # an image is no negative of itself
    )
    logits = [query @ keys.T, among_queries]
    if hard is not None:
        logits.append(alpha * (query * hard).sum(dim=1, keepdim=True))
    return F.cross_entropy(torch.cat(logits, dim=1) / temperature, own + first_row, reduction="none")


def cosine_similarity(query: Float[Tensor, "batch dim"], key: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
    """Return the cosine between the rows of two batches."""
    return (unit(query) * unit(key)).sum(dim=1)
