"""The views of one step through the encoders: each once, however often it is compared."""

import contextlib
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Generator, Tensor

from core.provenance import derive
from pretrain.batchnorm import through_auxiliary
from pretrain.drawing import Generators, Kept
from pretrain.methods import LabelledMethod, Method, MomentumMethod, SharedMethod

MixedNorm = Literal["separate", "joint", "auxiliary"]


class Encoding:
    """Embeddings, queries and keys of one step, by view; ``forwards`` counts batches through each encoder.

    ``shuffles`` holds the shuffle seeds of the clean views by ``id``, which is what tells clean views from mixed ones; other
    key views get a seed from their place in the step. ``labels`` are the keys of a ``LabelledMethod``, whatever the view.
    ``kept`` holds, or gets, what is drawn.
    """

    def __init__(
        self,
        method: Method,
        mixed_norm: MixedNorm,
        forwards: dict[str, int],
        shuffles: Mapping[int, int],
        labels: Tensor | None = None,
        kept: Kept | None = None,
    ) -> None:
        self.method, self.mixed_norm, self.forwards, self.shuffles = method, mixed_norm, forwards, shuffles
        self.labels, self.kept = labels, kept
        self._embeddings: dict[int, Tensor] = {}
        self._queries: dict[int, Tensor] = {}
        self._keys: dict[int, Tensor] = {}
        self._kept: list[Tensor] = []  # so that no id is used twice

    def encode_queries(self, views: list[Tensor]) -> None:
        """Encode the query views, each once also where it is named twice."""
        views = list({id(view): view for view in views}.values())
        self._kept += views
        if self.mixed_norm == "joint":
            self._encode_jointly(views)
            return
        for view in views:
            with self._norms(view):
                embedding = self._embeddings[id(view)] = self._embed(view)
                self._queries[id(view)] = self.method.predict(embedding)

    def query(self, view: Tensor) -> Tensor:
        """Return the query of a view that was encoded."""
        return self._queries[id(view)]

    def key(self, view: Tensor) -> Tensor:
        """Return the key of a view."""
        if id(view) not in self._keys:
            self._kept.append(view)
            with self._norms(view):
                self._keys[id(view)] = self._key(view)
        return self._keys[id(view)]

    def _norms(self, view: Tensor) -> contextlib.AbstractContextManager[None]:
        """Return the context in which a view is normalised."""
        if self.mixed_norm == "auxiliary" and id(view) not in self.shuffles:
            return through_auxiliary(self.method)
        return contextlib.nullcontext()

    def _key(self, view: Tensor) -> Tensor:
        if isinstance(self.method, SharedMethod):
            if id(view) not in self._embeddings:
                self._embeddings[id(view)] = self._embed_key(view)
            return self.method.key_of(self._embeddings[id(view)])
        if isinstance(self.method, LabelledMethod):
            assert self.labels is not None, "the labels of the batch are its keys"
            return self.method.keys_of(self.labels)
        assert isinstance(self.method, MomentumMethod)
        self.forwards["key"] += 1
        return self.method.encode_key(view, self.method.order(len(view), self._shuffle(view)))

    def draw_ahead(self, keys: list[Tensor]) -> None:
        """Draw what the keys of these views need; ``kept`` gets it."""
        for view in keys:
            if isinstance(self.method, MomentumMethod) and id(view) not in self._keys:
                self.method.order(len(view), self._shuffle(view))
                self._keys[id(view)] = view

    def _shuffle(self, view: Tensor) -> Generators:
        """Return the generator of a key view's shuffle."""
        seed = self.shuffles.get(id(view))
        if seed is None:
            seed = derive(next(iter(self.shuffles.values())), "key", len(self._keys))
        return Generators(1, lambda _: Generator().manual_seed(seed), f"key {len(self._keys)}", self.kept)

    def _embed_key(self, view: Tensor) -> Tensor:
        """Encode a view that is no query; without a backward pass where keys have no gradient."""
        assert isinstance(self.method, SharedMethod)
        if self.method.key_gradient:
            return self._embed(view)
        self.forwards["key"] += 1
        with torch.no_grad():
            return self.method.embed(view)

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
