"""Siamese losses: one number a row."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def info_nce(
    query: Float[Tensor, "batch dim"],
    key: Float[Tensor, "batch dim"],
    negatives: Float[Tensor, "dim count"],
    temperature: float,
) -> Float[Tensor, " batch"]:
    """Score each query against its key and all negatives (MoCo, arXiv 1911.05722, eq. 1)."""
    positive = (query * key).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, query @ negatives], dim=1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long), reduction="none")
