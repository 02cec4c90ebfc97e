"""SimCLR: contrast the two views of an image with all other views in the batch (arXiv 2002.05709)."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from core import distributed
from core.backbones import Backbone
from core.config import PluginSettings
from pretrain.heads import Encoder, mlp
from pretrain.losses import nt_xent, unit
from pretrain.methods import SharedMethod


class Simclr(SharedMethod):
    """One encoder; both views take a gradient, and the rows of all processes are negatives."""

    contrastive = True
    key_gradient = True

    class Config(PluginSettings):
        """``hidden`` is the width of the projector; by default that of the backbone's features.

        ``final_norm`` ends the projector with a batch norm in place of a bias, as the authors' release does.
        """

        name: Literal["simclr"] = "simclr"
        temperature: float = Field(0.1, gt=0)
        dim: int = Field(128, ge=1)
        hidden: int | None = Field(None, ge=1)
        symmetric: bool = True
        final_norm: bool = False

    def __init__(self, config: "Simclr.Config", backbone: Backbone) -> None:
        super().__init__()
        self.symmetric, self.temperature = config.symmetric, config.temperature
        features = backbone.feature_dim
        head = mlp(features, config.hidden or features, config.dim, norm=True, final_norm=config.final_norm)
        self.query_encoder = Encoder(backbone, head)

    def key_of(self, embedding: Tensor) -> Tensor:
        """Return the embedding with its gradient."""
        return embedding

    def loss(self, query: Tensor, key: Tensor, hard: Tensor | None = None, alpha: float = 1.0) -> Tensor:
        """NT-Xent of one direction between unit vectors; the mean of both directions is the paper's loss."""
        query, key = unit(query), unit(key)
        queries, keys = distributed.gather_with_gradient(query), distributed.gather_with_gradient(key)
        first_row = distributed.local_rows(len(queries)).start
        extra = None if hard is None else unit(hard)
        return nt_xent(query, key, queries, keys, first_row, self.temperature, extra, alpha)
