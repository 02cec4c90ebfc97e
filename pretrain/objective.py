"""One formula for every method and branch, and the only place where losses are weighted and averaged.

``lam * L(q, k) + (1 - lam) * L(q, k[partner])``, with ``lam = 1`` for views that are only erased (METHODS: MixMask,
arXiv 2210.11456, eq. 3, in the form that reads the partner's side from the keys).
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.provenance import derive
from pretrain.branches import Branch, Draws, Mixed
from pretrain.methods import Method


class Scored(NamedTuple):
    """``loss`` to minimise, ``parts`` to log (detached scalars), ``keys`` to remember, ``embeddings`` to watch.

    The keys are those of the clean views, or the masked ones where no clean key is made; the embeddings are the detached
    queries of the clean view, or of the first branch where no clean query is made.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    keys: list[Tensor]
    embeddings: Float[Tensor, "rows dim"]


def mixed_loss(
    method: Method,
    query: Float[Tensor, "batch dim"],
    key: Float[Tensor, "batch dim"],
    partner: Int[Tensor, " batch"],
    lam: Float[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """Score a mixed view against the keys of both images that are in it."""
    return lam * method.loss(query, key) + (1 - lam) * method.loss(query, key[partner])


class Objective(nn.Module):
    """Scores both directions of a pair of views; one forward of this module is one step, so DDP wraps it whole."""

    def __init__(self, method: Method, branches: Mapping[str, Branch], plain_weight: float, seed: int) -> None:
        super().__init__()
        self.method = method
        self.branches = dict(branches)
        self.plain_weight = plain_weight
        self.seed = seed
        self.forwards = {"query": 0, "key": 0}

    def forward(self, first: Tensor, second: Tensor, step: int, first_row: int = 0) -> Scored:
        """Score one batch of pairs; ``first_row`` is the number of this process's first row in the global batch."""
        directions = [(first, second), (second, first)] if self.method.symmetric else [(first, second)]
        parts: dict[str, list[Tensor]] = {}
        keys, queries = [], []
        for number, (query_view, key_view) in enumerate(directions):
            draws = {
                label: Draws(self.seed, step, f"{label}/{number}", first_row, self.method.groups)
                for label in self.branches
            }
            values, key, query = self._direction(query_view, key_view, draws, derive(self.seed, step, "shuffle", number))
            for name, value in values.items():
                parts.setdefault(name, []).append(value)
            keys.append(key)
            queries.append(query)
        return self._total(parts, keys, torch.cat(queries).detach())

    def _direction(
        self, query_view: Tensor, key_view: Tensor, draws: Mapping[str, Draws], shuffle_seed: int
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Score one view against the other; return each part's value, the keys to remember and the queries to watch."""
        views = {label: branch.mix(query_view, key_view, draws[label]) for label, branch in self.branches.items()}
        keys: dict[str, Tensor] = {}  # "clean" first, where anything is compared with it
        if self.plain_weight or any(mixed.key is None for mixed in views.values()):
            keys["clean"] = self._key(key_view, shuffle_seed)
        values, queries = {}, []
        if self.plain_weight:
            queries.append(self._query(query_view))
            values["plain"] = self.method.loss(queries[0], keys["clean"]).mean()
        for label, mixed in views.items():
            if mixed.key is not None:
                keys[label] = self._key(mixed.key, derive(shuffle_seed, label))
            queries.append(self._query(mixed.query))
            values[label] = self._score(mixed, queries[-1], keys[label] if label in keys else keys["clean"])
            values[f"lam/{label}"] = mixed.lam.mean()
        return values, next(iter(keys.values())), queries[0]

    def _score(self, mixed: Mixed, query: Tensor, key: Tensor) -> Tensor:
        if mixed.partner is None:
            return self.method.loss(query, key).mean()
        return mixed_loss(self.method, query, key, mixed.partner, mixed.lam).mean()

    def _total(self, parts: dict[str, list[Tensor]], keys: list[Tensor], embeddings: Tensor) -> Scored:
        means = {name: sum(values[1:], values[0]) / len(values) for name, values in parts.items()}
        weights = {"plain": self.plain_weight} | {name: b.config.weight for name, b in self.branches.items()}
        terms = [weights[name] * value for name, value in means.items() if name in weights]
        logged = {name if name.startswith("lam/") else f"loss/{name}": value.detach() for name, value in means.items()}
        return Scored(sum(terms[1:], terms[0]), logged, keys, embeddings)

    def _query(self, images: Tensor) -> Tensor:
        self.forwards["query"] += 1
        return self.method.encode_query(images)

    def _key(self, images: Tensor, shuffle_seed: int) -> Tensor:
        self.forwards["key"] += 1
        return self.method.encode_key(images, shuffle_seed)
