"""The views of one step through the encoders: each once, however often it is compared."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from core.provenance import derive
from pretrain.batchnorm import through_auxiliary
from pretrain.methods import Method, MomentumMethod, SharedMethod

MixedNorm = Literal["separate", "joint", "auxiliary"]


class Encoding:
    """Embeddings, queries and keys of one step, by view; ``forwards`` counts batches through each encoder.

    ``shuffles`` holds the shuffle seeds of the clean views by ``id``; other key views get one from their place in the step.
    """

    def __init__(
        self, method: Method, mixed_norm: MixedNorm, forwards: dict[str, int], shuffles: Mapping[int, int]
    ) -> None:
        self.method, self.mixed_norm, self.forwards, self.shuffles = method, mixed_norm, forwards, shuffles
        self._embeddings: dict[int, Tensor] = {}
        self._queries: dict[int, Tensor] = {}
        self._keys: dict[int, Tensor] = {}
        self._kept: list[Tensor] = []  # so that no id is used twice

    def encode_queries(self, views: list[tuple[Tensor, bool]]) -> None:
        """Encode all query views; the flag tells mixed ones from clean ones."""
        self._kept += [view for view, _ in views]
        if self.mixed_norm == "joint":
            self._encode_jointly([view for view, _ in views])
            return
        for view, is_mixed in views:
            if is_mixed and self.mixed_norm == "auxiliary":
                with through_auxiliary(self.method):
                    self._encode(view)
            else:
                self._encode(view)

    def query(self, view: Tensor) -> Tensor:
        """Return the query of a view that was encoded."""
        return self._queries[id(view)]

    def key(self, view: Tensor) -> Tensor:
        """Return the key of a view."""
        if id(view) not in self._keys:
            self._kept.append(view)
            self._keys[id(view)] = self._key(view)
        return self._keys[id(view)]

    def _key(self, view: Tensor) -> Tensor:
        if isinstance(self.method, SharedMethod):
            if id(view) not in self._embeddings:
                self._embeddings[id(view)] = self._embed(view)
            return self.method.key_of(self._embeddings[id(view)])
        assert isinstance(self.method, MomentumMethod)
        self.forwards["key"] += 1
        seed = self.shuffles.get(id(view))
        if seed is None:
            seed = derive(next(iter(self.shuffles.values())), "key", len(self._keys))
        return self.method.encode_key(view, seed)

    def _encode(self, view: Tensor) -> None:
        self._embeddings[id(view)] = self._embed(view)
        self._queries[id(view)] = self.method.predict(self._embeddings[id(view)])

    def _embed(self, view: Tensor) -> Tensor:
        self.forwards["query"] += 1
        return self.method.embed(view)

    def _encode_jointly(self, views: list[Tensor]) -> None:
        """Encode all views in one forward, the rows of a group beside each other, so that groups stay apart."""
        self.forwards["query"] += len(views)
        groups = self.method.groups
        rows = torch.stack(views, dim=1)  # [batch, views, 3, height, width]
        batch, count = rows.shape[:2]
        rows = rows.view(groups, batch // groups, count, *rows.shape[2:]).transpose(1, 2).flatten(0, 2)
        embedding = self.method.embed(rows)
        query = self.method.predict(embedding)
        for results, encoded in ((self._embeddings, embedding), (self._queries, query)):
            parts = encoded.view(groups, count, batch // groups, -1).unbind(dim=1)
            results |= {id(view): part.flatten(0, 1) for view, part in zip(views, parts, strict=True)}
