"""Methods: learners with a per-row loss ``L(q, k)``; they know nothing of masks and mixing.

To add one, write ``pretrain/methods/NAME.py`` with a class named like the file that extends ``MomentumMethod`` (its keys come
from a slow copy of the query encoder), ``SharedMethod`` (its keys come from the query encoder itself) or ``LabelledMethod``
(its keys are the images' labels) and has a ``Config``; then name it in a config: ``method: {name: NAME}``.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from core import distributed
from core.backbones import Backbone
from core.config import PluginSettings
from core.data import Images
from core.errors import InputError
from pretrain.heads import Encoder


class Method(nn.Module, ABC):
    """A query encoder, whatever stands on the key side, and the loss between them.

    An embedding is the query encoder's output; a query is what is predicted from it. Neither need be normalised.
    """

    Config: ClassVar[type[PluginSettings]]
    query_encoder: Encoder
    symmetric: bool  # score each view as query and as key
    groups: int = 1  # parts of a process's batch that are normalised, and mixed, apart
    note: str = ""  # what the user should know of this method here
    contrastive: ClassVar[bool] = False  # has negatives, and takes hard ones
    synchronised: ClassVar[bool] = True  # batch norm sees the rows of all GPUs
    views: ClassVar[int] = 2  # of an image and step
    constant_lr: ClassVar[tuple[str, ...]] = ()  # submodules that are trained at the base learning rate throughout

    def begin_step(self, progress: float) -> None:
        """Update the key side; ``progress`` in [0, 1]."""

    def embed(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Return embeddings, with gradient."""
        return self.query_encoder(images)

    def predict(self, embedding: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return queries from embeddings; the methods with a predictor have one here."""
        return embedding

    @property
    @abstractmethod
    def key_backbone(self) -> Backbone:
        """Return the backbone on the key side, which tells where the objects are."""

    @abstractmethod
    def loss(
        self,
        query: Float[Tensor, "batch dim"],
        key: Float[Tensor, "batch dim"],
        hard: Float[Tensor, "batch dim"] | None = None,
        alpha: float = 1.0,
    ) -> Float[Tensor, " batch"]:
        """Return L(q, k), one number a row.

        Contrastive methods add each row's ``hard`` negative, its logit times ``alpha``; the others are never given one.
        """

    def losses(
        self, query: Float[Tensor, "batch dim"], keys: Sequence[Float[Tensor, "batch dim"]]
    ) -> list[Float[Tensor, " batch"]]:
        """Return L(q, k) of the same queries for each of several keys; what these share is computed once."""
        return [self.loss(query, key) for key in keys]

    def end_step(self, keys: Float[Tensor, "batch dim"]) -> None:
        """Remember the keys where the method needs them."""

    def check(self, batch: int) -> None:
        """Raise InputError when ``batch`` images at a time, of all processes together, cannot be trained on."""
        rows = batch // distributed.world()
        if rows < 2 * self.groups:
            raise InputError(
                f"micro-batches of {rows} on each process (train.batch_size over the processes and train.accumulate) leave fewer "
                f"than 2 to normalise together{self._of_groups()}; raise train.batch_size or lower train.accumulate"
            )
        if rows % self.groups:
            raise InputError(f"{rows} images at a time cannot be cut evenly{self._of_groups()}; change one of them")

    def _of_groups(self) -> str:
        return f" in method.split_bn={self.groups * distributed.world()} parts" if self.groups > 1 else ""


class MomentumMethod(Method):
    """Keys come from an encoder of its own, without gradient."""

    key_encoder: Encoder

    @property
    def key_backbone(self) -> Backbone:
        """Return the momentum encoder's backbone."""
        return self.key_encoder.backbone

    def order(self, rows: int, shuffle: Sequence[Generator]) -> Int[Tensor, "2 total"] | None:
        """Return the order in which the rows of all processes are encoded, and its inverse; None where they stay as they are.

        ``rows`` are one process's; the one generator of ``shuffle`` is the same on every process.
        """
        return None

    @torch.no_grad()
    def encode_key(
        self, images: Float[Tensor, "batch 3 height width"], order: Int[Tensor, "2 total"] | None = None
    ) -> Float[Tensor, "batch dim"]:
        """Return keys, in the order of the images."""
        return self.key_encoder(images)


class SharedMethod(Method):
    """Keys come from the query encoder itself; an image that is query and key is encoded once."""

    key_gradient: ClassVar[bool] = False  # keys are trained as well

    @property
    def key_backbone(self) -> Backbone:
        """Return the query encoder's backbone."""
        return self.query_encoder.backbone

    def key_of(self, embedding: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return keys from embeddings: without gradient, unless the method says otherwise."""
        return embedding.detach()


class LabelledMethod(Method):
    """Keys are the labels of the images, as vectors of ``classes`` numbers; queries are scores of the classes.

    One view is classified, in one direction, and nothing is encoded on the key side.
    """

    classes: int
    symmetric = False
    views = 1

    @property
    def key_backbone(self) -> Backbone:
        """Return the query encoder's backbone."""
        return self.query_encoder.backbone

    def keys_of(self, labels: Int[Tensor, " batch"]) -> Float[Tensor, "batch classes"]:
        """Return 1 at each label's place and 0 elsewhere; nothing but 0 for an image whose label is not known (-1)."""
        return (labels[:, None] == torch.arange(self.classes, device=labels.device)).float()

    def check_labels(self, images: Images) -> None:
        """Raise InputError where images have no labels or not as many classes as the method."""
        found = 1 + max(images.label(index) for index in range(len(images)))
        if not found:
            raise InputError(
                "data knows no labels, which this method learns from; choose a source with one folder a class"
            )
        if found != self.classes:
            raise InputError(f"method.classes={self.classes}, but the data has {found}; set method.classes={found}")
