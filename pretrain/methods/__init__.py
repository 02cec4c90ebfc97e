"""Methods: siamese learners with a per-row loss ``L(q, k)``; they know nothing of masks and mixing.

To add one, write ``pretrain/methods/NAME.py`` with a class named like the file that extends ``Method`` and has a
``Config``; then name it in a config: ``method: {name: NAME}``.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from core.config import PluginSettings
from pretrain.heads import Encoder


class Method(nn.Module, ABC):
    """A query encoder, whatever stands on the key side, and the loss between them."""

    Config: ClassVar[type[PluginSettings]]
    query_encoder: Encoder
    symmetric: bool  # score each view as query and as key
    groups: int  # parts of a one-process batch that are normalised, and mixed, apart
    constant_lr: tuple[str, ...] = ()  # submodules that are trained at the base learning rate throughout

    def begin_step(self, progress: float) -> None:
        """Update the key side; ``progress`` in [0, 1]."""

    @abstractmethod
    def encode_query(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Return normalised queries, with gradient."""

    @abstractmethod
    def encode_key(
        self, images: Float[Tensor, "batch 3 height width"], shuffle_seed: int
    ) -> Float[Tensor, "batch dim"]:
        """Return normalised keys, without gradient."""

    @abstractmethod
    def loss(self, query: Float[Tensor, "batch dim"], key: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return L(q, k), one number a row."""

    def end_step(self, keys: Float[Tensor, "batch dim"]) -> None:
        """Remember the clean keys where the method needs them."""

    def check(self, batch: int) -> None:
        """Raise InputError when a global batch of ``batch`` images cannot be trained on."""
