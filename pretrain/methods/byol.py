"""BYOL: predict a momentum encoder's embedding of the other view (arXiv 2006.07733)."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from core.backbones import Backbone
from core.config import PluginSettings
from pretrain.heads import Encoder, follow, mlp, momentum_copy
from pretrain.losses import cosine_similarity
from pretrain.methods import MomentumMethod
from pretrain.optimizers import cosine


class Byol(MomentumMethod):
    """Query encoder with a predictor, and a momentum encoder that stands still at the end of training."""

    class Config(PluginSettings):
        """``key_momentum`` grows to 1 along a cosine (sec. 3.2); ``hidden`` is the width of projector and predictor.

        ``final_bias: false`` leaves the bias of their last layers out, as the authors' release does.
        """

        name: Literal["byol"] = "byol"
        dim: int = Field(256, ge=1)
        hidden: int = Field(4096, ge=1)
        key_momentum: float = Field(0.996, ge=0, lt=1)
        symmetric: bool = True
        final_bias: bool = True

    def __init__(self, config: "Byol.Config", backbone: Backbone) -> None:
        super().__init__()
        self.symmetric, self.key_momentum = config.symmetric, config.key_momentum
        self.query_encoder = Encoder(
            backbone, mlp(backbone.feature_dim, config.hidden, config.dim, True, config.final_bias)
        )
        self.key_encoder = momentum_copy(self.query_encoder)
        self.predictor = mlp(config.dim, config.hidden, config.dim, True, config.final_bias)

    def begin_step(self, progress: float) -> None:
        """Move the key encoder after the query encoder."""
        follow(self.key_encoder, self.query_encoder, cosine(progress, self.key_momentum, 1.0))

    def predict(self, embedding: Tensor) -> Tensor:
        """Apply the predictor."""
        return self.predictor(embedding)

    def loss(self, query: Tensor, key: Tensor, hard: Tensor | None = None, alpha: float = 1.0) -> Tensor:
        """Return the squared distance of the unit vectors, 2 - 2 cos (eq. 2), in [0, 4]."""
        return 2 - 2 * cosine_similarity(query, key)
