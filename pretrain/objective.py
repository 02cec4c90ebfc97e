"""One formula for every method and branch, and the only place where losses are weighted and averaged.

``lam * L(q, k) + (1 - lam) * L(q, k[partner])``, with ``lam = 1`` for views that are only erased (METHODS: MixMask,
arXiv 2210.11456, eq. 3, in the form that reads the partner's side from the keys).
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.backbones import Backbone
from core.errors import InputError
from core.provenance import derive
from pretrain.batchnorm import add_auxiliary
from pretrain.branches import Branch, Draws, Mixed
from pretrain.drawing import Kept
from pretrain.encoding import Encoding, MixedNorm
from pretrain.methods import LabelledMethod, Method
from pretrain.saliency import Features, stage_features
from pretrain.upload import fused

MAP = 8  # cells of the feature maps that are not there


class Scored(NamedTuple):
    """``loss`` to minimise, ``parts`` to log (detached scalars), ``keys`` to remember, ``embeddings`` to watch.

    The keys are those of the clean views, or the masked ones where no clean key is made; the embeddings are the detached
    queries of the clean view, or of the first branch where no clean query is made.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    keys: list[Tensor]
    embeddings: Float[Tensor, "rows dim"]


class Term(NamedTuple):
    """One comparison: a mixed view with the keys of ``key_views`` (their element-wise maximum where there are two)."""

    label: str
    mixed: Mixed
    key_views: tuple[Tensor, ...]


def mixed_loss(
    method: Method,
    query: Float[Tensor, "batch dim"],
    key: Float[Tensor, "batch dim"],
    partner: Int[Tensor, " batch"],
    lam: Float[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """Score a mixed view against the keys of both images that are in it."""
    own, other = method.losses(query, [key, key[partner]])
    return lam * own + (1 - lam) * other


@fused
def term_loss(
    method: Method,
    query: Float[Tensor, "batch dim"],
    key: Float[Tensor, "batch dim"],
    partner: Int[Tensor, " batch"] | None,
    lam: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Return the mean loss of one comparison; on GPUs this is compiled, so that it takes a few kernels and not fifty."""
    if partner is not None:
        return mixed_loss(method, query, key, partner, lam).mean()
    return method.loss(query, key).mean()


class Objective(nn.Module):
    """Scores both directions of a pair of views; one forward of this module is one step, so DDP wraps it whole.

    ``mixed_norm`` says how batch norm treats clean and mixed queries: each view normalised by itself (``separate``), all
    together (``joint``), or mixed views by statistics and scales of their own (``auxiliary``).
    """

    def __init__(
        self,
        method: Method,
        branches: Mapping[str, Branch],
        plain_weight: float,
        seed: int,
        mixed_norm: MixedNorm = "separate",
    ) -> None:
        super().__init__()
        for label, branch in branches.items():
            if branch.hard_negatives and not method.contrastive:
                raise InputError(
                    f"branches.{label}: hard negatives need a method with negatives (moco, simclr), and "
                    f"{type(method).__name__.lower()} has none; set branches.{label}.hard_negatives=false"
                )
            if branch.needs_keys and isinstance(method, LabelledMethod):
                raise InputError(
                    f"branches.{label}: {branch.config.name} compares with more than the clean view's key, and the key of "
                    f"{type(method).__name__.lower()} is a label; use mixmask, unmix, or masked or mscn with sides=query"
                )
        if mixed_norm == "auxiliary":
            if not plain_weight:
                raise InputError(
                    "mixed_norm=auxiliary with plain_weight=0: no clean query would train the batch norms that are exported; "
                    "set plain_weight, or mixed_norm=separate"
                )
            if not any(branch.changes_query for branch in branches.values()):
                raise InputError(
                    "mixed_norm=auxiliary without a branch that changes the query view: nothing would train the auxiliary batch "
                    "norms; add one, or set mixed_norm=separate"
                )
            add_auxiliary(method)
        self.method = method
        self.branches = dict(branches)
        self.plain_weight = plain_weight
        self.seed = seed
        self.mixed_norm = mixed_norm
        self.forwards = {"query": 0, "key": 0}
        self.kept: Kept | None = None  # what a worker has drawn of the step that comes

    def draw_ahead(self, rows: int, size: int, step: int, first_row: int) -> Kept:
        """Return all that the branches draw on the host for one step: what they draw for images that are not there."""
        kept: Kept = {}
        first, second = torch.empty(2, rows, 3, size, size, device="meta")
        maps = torch.empty(rows, 1, MAP, MAP, device="meta")
        directions = self._directions(first, second)
        terms = self._terms(directions, step, first_row, kept, lambda *asked: maps)
        self._encoding(first, second, step, None, kept).draw_ahead(_key_views(directions, terms))
        return kept

    def _encoding(self, first: Tensor, second: Tensor, step: int, labels: Tensor | None, kept: Kept | None) -> Encoding:
        shuffles = {id(second): derive(self.seed, step, "shuffle", 0), id(first): derive(self.seed, step, "shuffle", 1)}
        return Encoding(self.method, self.mixed_norm, self.forwards, shuffles, labels, kept)

    def _directions(self, first: Tensor, second: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(first, second), (second, first)] if self.method.symmetric else [(first, second)]

    def forward(
        self, first: Tensor, second: Tensor, step: int, first_row: int = 0, labels: Int[Tensor, " batch"] | None = None
    ) -> Scored:
        """Score one batch of pairs; ``first_row`` is the number of this process's first row in the global batch.

        ``labels`` are the keys of a ``LabelledMethod``; no other one looks at them.
        """
        directions = self._directions(first, second)
        terms = self._terms(directions, step, first_row, self.kept, self.features)
        encoding = self._encoding(first, second, step, labels, self.kept)
        encoding.encode_queries([term.mixed.query for part in terms for term in part])
        parts: dict[str, list[Tensor]] = {}
        keys = []
        for (_, clean), part in zip(directions, terms, strict=True):
            keys += [encoding.key(view) for view in _remembered(clean, part)]
            for term in part:
                parts.setdefault(term.label, []).append(self._score(term, encoding))
                if term.label != "plain":
                    parts.setdefault(f"lam/{term.label}", []).append(term.mixed.lam.mean())
        watched = torch.cat([encoding.query(part[0].mixed.query) for part in terms if part])
        return self._total(parts, keys, watched.detach())

    def features(self, images: Tensor, stage: int, network: Backbone | None = None) -> Tensor:
        """Return a feature map, without gradient, for masks that follow the objects: the key side's, or a given network's."""
        self.forwards["key"] += 1
        backbone = self.method.key_backbone if network is None else network.to(images.device)
        return stage_features(backbone, images.to(next(backbone.parameters()).device), stage)

    def _terms(
        self, directions: list[tuple[Tensor, Tensor]], step: int, first_row: int, kept: Kept | None, features: Features
    ) -> list[list[Term]]:
        """List what is compared in each direction."""
        terms: list[list[Term]] = []
        made: dict[str, Mixed] = {}
        for number, (query_view, key_view) in enumerate(directions):
            part = []
            if self.plain_weight:
                ones = torch.ones(len(query_view), device=query_view.device)
                part.append(Term("plain", Mixed(query_view, None, ones), (key_view,)))
            for label, branch in self.branches.items():
                if label in made and made[label].both_keys:
                    continue  # both views are in it: the other direction would be the same comparison
                before = made.get(label)
                if before is not None and before.key is not None and before.query is not directions[0][0]:
                    mixed = before._replace(query=before.key, key=before.query)  # both views are masked once
                else:
                    draws = Draws(self.seed, step, f"{label}/{number}", first_row, self.method.groups, kept)
                    mixed = branch.mix(query_view, key_view, draws, features)
                made[label] = mixed
                key = key_view if mixed.key is None else mixed.key
                part.append(Term(label, mixed, (query_view, key_view) if mixed.both_keys else (key,)))
            terms.append(part)
        return terms

    def _score(self, term: Term, encoding: Encoding) -> Tensor:
        mixed, query = term.mixed, encoding.query(term.mixed.query)
        keys = [encoding.key(view) for view in term.key_views]
        key = keys[0] if len(keys) == 1 else torch.maximum(*keys).detach()  # MixSiam, arXiv 2111.02679, sec. 3.2
        if mixed.hard is None:
            return term_loss(self.method, query, key, mixed.partner, mixed.lam)
        return self.method.loss(query, key, encoding.key(mixed.hard), mixed.alpha).mean()

    def _total(self, parts: dict[str, list[Tensor]], keys: list[Tensor], embeddings: Tensor) -> Scored:
        means = {name: _scaled(sum(values[1:], values[0]), 1 / len(values)) for name, values in parts.items()}
        weights = {"plain": self.plain_weight} | {name: b.config.weight for name, b in self.branches.items()}
        terms = [_scaled(value, weights[name]) for name, value in means.items() if name in weights]
        logged = {name if name.startswith("lam/") else f"loss/{name}": value.detach() for name, value in means.items()}
        return Scored(sum(terms[1:], terms[0]), logged, keys, embeddings)


def _key_views(directions: list[tuple[Tensor, Tensor]], terms: list[list[Term]]) -> list[Tensor]:
    """List the views that get keys, in the order in which they get them."""
    found = []
    for (_, clean), part in zip(directions, terms, strict=True):
        found += _remembered(clean, part)
        for term in part:
            found += [*term.key_views, *([] if term.mixed.hard is None else [term.mixed.hard])]
    return found


def _remembered(clean: Tensor, part: list[Term]) -> list[Tensor]:
    """Return the view of one direction whose keys are remembered: the clean one if it has keys."""
    views = [view for term in part for view in term.key_views]
    return [clean] if any(view is clean for view in views) else views[:1]


def _scaled(value: Tensor, factor: float) -> Tensor:
    return value if factor == 1 else value * factor
