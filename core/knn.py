"""Weighted k-nearest-neighbour classification of frozen features (arXiv 1805.01978, sec. 3.4)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from core.errors import InputError


@torch.no_grad()
def weighted_knn(
    train: Float[Tensor, "n d"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "m d"],
    classes: int,
    k: int,
    temperature: float,
    chunk: int = 1024,
) -> Int[Tensor, " m"]:
    """Predict each test row's class: its ``k`` nearest by cosine vote with weight exp(similarity / temperature).

    Features are normalised here. ``chunk`` test rows are compared at a time, which bounds the memory to ``chunk * n``.
    Raises InputError for a ``k`` that is not between 1 and n, and for a temperature that is not positive.
    """
    if not 1 <= k <= len(train):
        raise InputError(f"k is {k}, but there are {len(train)} training rows; choose k between 1 and {len(train)}")
    if not temperature > 0:
        raise InputError(f"temperature is {temperature}; it must be positive, 0.07 is usual")
    train, test = F.normalize(train.float(), dim=1), F.normalize(test.float(), dim=1)
    predictions = [_vote(rows @ train.T, train_labels, classes, k, temperature) for rows in test.split(chunk)]
    return torch.cat(predictions) if predictions else train_labels.new_zeros(0)


def _vote(
    similarity: Float[Tensor, "rows n"], labels: Int[Tensor, " n"], classes: int, k: int, temperature: float
) -> Int[Tensor, " rows"]:
    nearest, index = similarity.topk(k, dim=1)
    # less the nearest's own: it scales all votes of a row alike, and exp cannot overflow at a low temperature
    weight = ((nearest - nearest[:, :1]) / temperature).exp()
    votes = weight.new_zeros(len(similarity), classes).scatter_add_(1, labels.long()[index], weight)
    return votes.argmax(dim=1).to(labels.dtype)
