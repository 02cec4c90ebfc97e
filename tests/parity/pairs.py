"""Every method and branch on a float64 network of a few hundred weights, batches for it, and what the losses should be.

Pixels, targets and losses are computed here by the slow references, from the masks, shares and partners that a branch drew;
nothing of the objective is used.
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import references as slow
import torch
from torch import Tensor, nn

from core.backbones import Backbone, Rules
from core.plugins import find
from pretrain.branches import Branch, Draws, Mixed
from pretrain.methods import LabelledMethod, Method, MomentumMethod
from pretrain.methods.moco import Moco
from pretrain.objective import Objective


class Tiny(Backbone):
    """One smooth convolution with batch norm, so that images of a batch influence each other as in a ResNet."""

    feature_dim = 5

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, self.feature_dim, 3, stride=2)
        self.bn = nn.BatchNorm2d(self.feature_dim)

    def stages(self, images: Tensor) -> list[Tensor]:
        """Return one map; the contract's other three are not needed here."""
        return [torch.tanh(self.bn(self.conv(images)))]

    @classmethod
    def rename_rules(cls, framework: str) -> Rules:
        """Return nothing: this backbone goes nowhere."""
        return []


def moco(seed: int = 0, **config: Any) -> Moco:
    """Return MoCo on ``Tiny`` in float64, its key encoder some way behind the query encoder."""
    torch.manual_seed(seed)
    method = Moco(Moco.Config(**{"queue": 16, "dim": 4, "hidden": 6} | config), Tiny()).double()
    with torch.no_grad():
        for parameter in method.key_encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method.train()


def pair(count: int = 4, size: int = 16, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return two views of ``count`` images in float64."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)
    return images, images + 0.5 * torch.randn(images.shape, generator=generator, dtype=torch.float64)


def features(network: nn.Module, images: np.ndarray | Tensor) -> np.ndarray:
    """Return unit-length outputs of ``network`` as NumPy rows, each divided by its norm in a loop."""
    with torch.no_grad():
        rows = network(torch.as_tensor(images)).numpy()
    return np.stack([row / np.sqrt(sum(value**2 for value in row)) for row in rows])


def shipped_moco(**config: Any) -> Moco:
    """Return the method as it runs, in float32, with the weights of ``moco``."""
    double = moco(**config)
    method = Moco(double.config, Tiny())
    method.load_state_dict(double.state_dict())
    return method.train()


SEED, STEP, SIZE, COUNT = 11, 3, 16, 4
LABELS = torch.tensor([2, 0, -1, 2])  # the third is not known

METHODS: dict[str, dict[str, Any]] = {
    "moco": {"queue": 16, "dim": 4, "hidden": 6, "symmetric": False},
    "simclr": {"dim": 4, "hidden": 6, "temperature": 0.3},
    "byol": {"dim": 4, "hidden": 6},
    "simsiam": {"dim": 6, "hidden": 5, "bottleneck": 3},
    "supervised": {"classes": 4},
}
BRANCHES: dict[str, dict[str, Any]] = {
    "mixmask": {"mask": {"name": "block", "cells": 4, "ratio": [0.2, 0.8]}, "partner": "shuffle"},
    "unmix": {"mixup_probability": 0.5},
    "mscn": {"cell": 4, "ratio": [0.1, 0.5], "high_pass_kernel": 5, "fill": {"name": "zero"}},
    "saliency": {"cells": 4, "ratio": [0.1, 0.4], "fill": {"name": "zero"}, "saliency": {"stage": 1}},
    "mixsiam": {"mix": "mixup"},
    "masked": {"mask": {"name": "focal", "ratio": [0.2, 0.8]}, "fill": {"name": "zero"}, "sides": "both"},
}


def method(name: str, **config: Any) -> Method:
    """Return a method on ``Tiny`` in float64; a momentum encoder is some way behind the query encoder."""
    torch.manual_seed(0)
    kind = find("pretrain.methods", name)
    made = kind(kind.Config(**METHODS[name] | config), Tiny()).double()
    if isinstance(made, MomentumMethod):
        with torch.no_grad():
            for parameter in made.key_encoder.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made.train()


def branch(name: str, **config: Any) -> Branch:
    """Return a branch."""
    kind = find("pretrain.branches", name)
    return kind(kind.Config.model_validate(BRANCHES[name] | config))


def objective(method_name: str, makers: dict[str, Branch], weight: float = 1.0, **config: Any) -> Objective:
    """Return the objective of a method with these branches."""
    return Objective(method(method_name, **config), makers, weight, SEED)


def numbers(images: Tensor) -> np.ndarray:
    """Return a detached tensor as NumPy."""
    return images.detach().numpy()


class Encoders(NamedTuple):
    """From images to queries and keys as NumPy rows; ``frozen`` is a copy of ``live`` whose weights nobody moves."""

    live: Method
    frozen: Method

    @classmethod
    def of(cls, live: Method) -> "Encoders":
        """Copy the method as it is now."""
        return cls(live, copy.deepcopy(live))

    @torch.no_grad()
    def query(self, images: np.ndarray) -> np.ndarray:
        """Return predictions from embeddings."""
        rows = self.live.query_encoder(torch.as_tensor(images))
        return numbers(self.live.predictor(rows) if hasattr(self.live, "predictor") else rows)

    @torch.no_grad()
    def key(self, images: np.ndarray) -> np.ndarray:
        """Return the momentum encoder's rows, or the query encoder's without its predictor; only SimCLR's move.

        With labels a row is 1 at its class and 0 elsewhere, and all 0 where the class is not known.
        """
        if isinstance(self.live, LabelledMethod):
            return np.array(
                [[float(label == place) for place in range(self.live.classes)] for label in LABELS.tolist()]
            )
        return numbers(
            _key_encoder(self.live if type(self.live).__name__ == "Simclr" else self.frozen)(torch.as_tensor(images))
        )

    @torch.no_grad()
    def target(self, images: np.ndarray) -> np.ndarray:
        """Return keys that have no gradient, whatever the method."""
        return numbers(_key_encoder(self.frozen)(torch.as_tensor(images)))


def _key_encoder(of: Method) -> torch.nn.Module:
    return of.key_encoder if isinstance(of, MomentumMethod) else of.query_encoder


def row_loss(of: Method, hard: np.ndarray | None = None, alpha: float = 1.0) -> slow.RowLoss:
    """Return the method's L(q, k) from the references."""
    kind = type(of).__name__
    if kind == "Moco":
        negatives, extra = numbers(of.queue), None if hard is None else slow.unit(hard)
        return lambda q, k: slow.info_nce(slow.unit(q), slow.unit(k), negatives, of.config.temperature, extra, alpha)
    if kind == "Simclr":
        return lambda q, k: slow.nt_xent_directional(q, k, of.temperature, hard, alpha)
    return {"Byol": slow.byol, "Simsiam": slow.simsiam, "Supervised": slow.cross_entropy}[kind]


def draw(what: Objective, maker: Branch, query: Tensor, key: Tensor, direction: int, label: str = "b") -> Mixed:
    """Return what a branch draws in a direction; to be asked before the objective moves running statistics."""
    return maker.mix(query, key, Draws(SEED, STEP, f"{label}/{direction}"), what.features)


def full(mask: Tensor) -> np.ndarray:
    """Return a mask for each channel."""
    return mask.expand(-1, 3, -1, -1).numpy()


def erased(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return images with zeros where hidden."""
    return np.where(mask, 0.0, images)


def zeros(images: Tensor) -> np.ndarray:
    """Return where an image filled with zeros is hidden."""
    return (images == 0).numpy()


Scoring = Callable[[Encoders, Mixed, np.ndarray, np.ndarray], np.ndarray]


def mixed_with_partner(encoders: Encoders, mixed: Mixed, query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Score MixMask: pixels by the mask, lam counted, two terms."""
    partner = mixed.partner.tolist()
    images = slow.mix_by_mask(query, full(mixed.mask), partner)
    lam = slow.lam_of(full(mixed.mask))
    return slow.two_term(row_loss(encoders.live), encoders.query(images), encoders.key(key), partner, lam)


def unmixed(encoders: Encoders, mixed: Mixed, query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Score Un-Mix: an empty box means mixup with the lam drawn, a box CutMix with the share outside it."""
    partner, boxes = mixed.partner.tolist(), full(mixed.mask)
    blended, pasted = slow.mixup(query, mixed.lam.numpy(), partner), slow.mix_by_mask(query, boxes, partner)
    by_box = boxes.any(axis=(1, 2, 3))
    images = np.where(by_box[:, None, None, None], pasted, blended)
    lam = np.where(by_box, slow.lam_of(boxes), mixed.lam.numpy())
    return slow.two_term(row_loss(encoders.live), encoders.query(images), encoders.key(key), partner, lam)


def filtered(encoders: Encoders, mixed: Mixed, query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Score MSCN: both views high-passed by loops, then zeros where hidden."""
    views = []
    for images, shown in ((query, mixed.query), (key, mixed.query if mixed.key is None else mixed.key)):
        views.append(erased(np.stack([slow.high_pass(image, 5, 5.0) for image in images]), zeros(shown)))
    return row_loss(encoders.live)(encoders.query(views[0]), encoders.key(views[1]))


def without_objects(encoders: Encoders, mixed: Mixed, query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Score saliency-guided masking: an erased query, the clean key, and the key without object as a hard negative."""
    images = erased(query, full(mixed.mask))
    hard = None if mixed.hard is None else encoders.key(erased(key, zeros(mixed.hard)))
    return row_loss(encoders.live, hard, 2.0)(encoders.query(images), encoders.key(key))


def same_image(encoders: Encoders, mixed: Mixed, query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Score MixSiam: mixup of both views against the greater of their features."""
    both = np.concatenate([query, key])
    images = slow.mixup(both, np.tile(mixed.lam.numpy(), 2), [COUNT + i for i in range(COUNT)] * 2)[:COUNT]
    target = slow.mixsiam_target(encoders.target(query), encoders.target(key))
    return row_loss(encoders.live)(encoders.query(images), target)


def both_erased(encoders: Encoders, mixed: Mixed, query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Score two erased views."""
    other_view = mixed.query if mixed.key is None else mixed.key  # with labels, whose views are not looked at
    images, other = (erased(part, zeros(shown)) for part, shown in ((query, mixed.query), (key, other_view)))
    return row_loss(encoders.live)(encoders.query(images), encoders.key(other))


SCORING: dict[str, Scoring] = {
    "mixmask": mixed_with_partner, "unmix": unmixed, "mscn": filtered, "saliency": without_objects,
    "mixsiam": same_image, "masked": both_erased,
}  # fmt: skip


class Drawn(NamedTuple):
    """One direction of one branch: its views and what was drawn for them."""

    mixed: Mixed
    query: np.ndarray
    key: np.ndarray


def draws(what: Objective, name: str, first: Tensor, second: Tensor) -> list[Drawn]:
    """Return what each direction compares: MSCN and erased pairs read one pair of masks both ways, MixSiam is scored once."""
    maker = what.branches["b"]
    found = [Drawn(draw(what, maker, first, second, 0), numbers(first), numbers(second))]
    if not what.method.symmetric or name == "mixsiam":
        return found
    if found[0].mixed.key is not None:
        once = found[0].mixed
        turned = once._replace(query=once.key, key=once.query)
        return [*found, Drawn(turned, numbers(second), numbers(first))]
    return [*found, Drawn(draw(what, maker, second, first, 1), numbers(second), numbers(first))]


def expected(encoders: Encoders, name: str, drawn: list[Drawn], weights: tuple[float, float]) -> float:
    """Return plain weight * plain + branch weight * branch, each the mean of its directions and rows."""
    plain = [
        row_loss(encoders.live)(encoders.query(query), encoders.key(key)).mean()
        for query, key in views_of(drawn, encoders.live.symmetric)
    ]
    parts = [SCORING[name](encoders, *one).mean() for one in drawn]
    return weights[0] * sum(plain) / len(plain) + weights[1] * sum(parts) / len(parts)


def views_of(drawn: list[Drawn], symmetric: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the pairs of clean views in each direction."""
    first, second = drawn[0].query, drawn[0].key
    return [(first, second), (second, first)] if symmetric else [(first, second)]
