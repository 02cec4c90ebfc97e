"""SimSiam: predict one view's embedding from the other's, with a stop-gradient and nothing else (arXiv 2011.10566)."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from core.backbones import Backbone
from core.config import PluginSettings
from pretrain.heads import Encoder, predictor, projector
from pretrain.losses import cosine_similarity
from pretrain.methods import SharedMethod


class Simsiam(SharedMethod):
    """One encoder, and a predictor whose learning rate stays constant (sec. 4.2)."""

    constant_lr = ("predictor",)

    class Config(PluginSettings):
        """``dim`` and ``hidden`` are the widths of the projector, ``bottleneck`` that of the predictor (sec. 3)."""

        name: Literal["simsiam"] = "simsiam"
        dim: int = Field(2048, ge=1)
        hidden: int = Field(2048, ge=1)
        bottleneck: int = Field(512, ge=1)
        symmetric: bool = True

    def __init__(self, config: "Simsiam.Config", backbone: Backbone) -> None:
        super().__init__()
        self.symmetric = config.symmetric
        features = backbone.feature_dim
        self.query_encoder = Encoder(backbone, projector([features, config.hidden, config.hidden, config.dim]))
        self.predictor = predictor(config.dim, config.bottleneck, config.dim)

    def predict(self, embedding: Tensor) -> Tensor:
        """Apply the predictor h."""
        return self.predictor(embedding)

    def loss(self, query: Tensor, key: Tensor, hard: Tensor | None = None, alpha: float = 1.0) -> Tensor:
        """Return the negative cosine (eq. 1), in [-1, 1]."""
        return -cosine_similarity(query, key)
