"""Siamese losses: one number a row."""

from typing import Any

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
    others = against(query, negatives, temperature)
    if hard is not None:
        others = torch.logaddexp(others, alpha * (query * hard).sum(dim=1) / temperature)
    return contrast(query, key, others, temperature)


def against(
    query: Float[Tensor, "batch dim"], negatives: Float[Tensor, "dim count"], temperature: float
) -> Float[Tensor, " batch"]:
    """Return the logarithm of the sum of exp(logit) over all negatives: what scores of one query with any key share."""
    with torch.autocast(query.device.type, enabled=False):  # bf16 logits are off by 0.02, and it copies the queue
        return _Against.apply(query / temperature, negatives)


class _Against(torch.autograd.Function):
    """logsumexp of ``query @ negatives`` that makes one [batch, count] tensor, not four; the negatives get no gradient."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, negatives: Tensor) -> Tensor:
        scores = query @ negatives
        largest = scores.amax(dim=1, keepdim=True)
        scores.sub_(largest).exp_()
        total = scores.sum(dim=1)
        ctx.save_for_backward(scores, total, negatives)
        return total.log() + largest[:, 0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        scores, total, negatives = ctx.saved_tensors
        return scores @ negatives.T * (gradients[0] / total)[:, None], None


def contrast(
    query: Float[Tensor, "batch dim"],
    key: Float[Tensor, "batch dim"],
    others: Float[Tensor, " batch"],
    temperature: float,
) -> Float[Tensor, " batch"]:
    """Return InfoNCE, -log(exp(p) / (exp(p) + exp(others))), from ``others = against(...)``."""
    return F.softplus(others - (query * key).sum(dim=1) / temperature)


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
    own = torch.arange(len(query), device=query.device) + first_row
    itself = own[:, None] == torch.arange(len(queries), device=query.device)
    with torch.autocast(query.device.type, enabled=False):  # as in ``against``
        among_queries = (query @ queries.T).masked_fill(itself, -torch.inf)  # an image is no negative of itself
        logits = [query @ keys.T, among_queries]
    if hard is not None:
        logits.append(alpha * (query * hard).sum(dim=1, keepdim=True))
    return F.cross_entropy(torch.cat(logits, dim=1) / temperature, own, reduction="none")


def cosine_similarity(query: Float[Tensor, "batch dim"], key: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
    """Return the cosine between the rows of two batches."""
    return (unit(query) * unit(key)).sum(dim=1)
