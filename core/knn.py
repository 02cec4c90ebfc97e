"""Weighted k-nearest-neighbour classification of frozen features (arXiv 1805.01978, sec. 3.4)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from core.errors import InputError


@torch.no_grad()
def weighted_votes(
    train: Float[Tensor, "n d"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "m d"],
    classes: int,
    k: int,
    temperature: float,
    chunk: int = 1024,
) -> Float[Tensor, "m classes"]:
    """Let the ``k`` nearest training rows by cosine vote for their class with weight exp(similarity / temperature).

    Features are normalised here. ``chunk`` test rows are compared at a time, which bounds the memory to ``chunk * n``.
    Votes of a row are relative to that of its nearest neighbour, which is 1: they rank classes within a row. Raises
    InputError for a ``k`` that is not between 1 and n, and for a temperature that is not positive.
    """
    if not 1 <= k <= len(train):
        raise InputError(f"k is {k}, but there are {len(train)} training rows; choose k between 1 and {len(train)}")
    if not temperature > 0:
        raise InputError(f"temperature is {temperature}; it must be positive, 0.07 is usual")
    train, test = F.normalize(train.float(), dim=1), F.normalize(test.float(), dim=1)
    votes = train.new_zeros(len(test), classes)
    for start in range(0, len(test), chunk):
        similarity, index = (test[start : start + chunk] @ train.T).topk(k, dim=1)
        # less the nearest's: it scales all votes of a row alike, and exp cannot overflow at a low temperature
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        votes[start : start + chunk].scatter_add_(1, train_labels.long()[index], weight)
    return votes


def weighted_knn(
    train: Float[Tensor, "n d"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "m d"],
    classes: int,
    k: int,
    temperature: float,
    chunk: int = 1024,
) -> Int[Tensor, " m"]:
    """Predict each test row's class: the one with most of ``weighted_votes``, whose arguments and errors it shares."""
    votes = weighted_votes(train, train_labels, test, classes, k, temperature, chunk)
    return votes.argmax(dim=1).to(train_labels.dtype)
