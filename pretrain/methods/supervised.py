"""Supervised pre-training: classify, and leave the classifier behind; the reference that other methods are read against.

The classifier's scores are the query and the label is the key, so a branch that mixes two images gives CutMix
(arXiv 1905.04899) or mixup (arXiv 1710.09412): ``lam`` times the loss of one label and ``1 - lam`` times that of the other.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from core.backbones import Backbone
from core.config import PluginSettings
from pretrain.heads import Encoder
from pretrain.methods import LabelledMethod


class Supervised(LabelledMethod):
    """A linear classifier on the pooled features, trained by cross-entropy."""

    synchronised = False  # the field's references normalise each GPU's 32 images apart

    class Config(PluginSettings):
        """``classes`` are those of the data, which is asked before the run starts."""

        name: Literal["supervised"] = "supervised"
        classes: int = Field(1000, ge=2)

    def __init__(self, config: "Supervised.Config", backbone: Backbone) -> None:
        super().__init__()
        self.classes = config.classes
        self.query_encoder = Encoder(backbone, nn.Linear(backbone.feature_dim, config.classes))

    def loss(self, query: Tensor, key: Tensor, hard: Tensor | None = None, alpha: float = 1.0) -> Tensor:
        """Return the cross-entropy, -sum(key * log softmax(query)); 0 for an image without a label."""
        query = query.to(torch.promote_types(query.dtype, torch.float32))
        return F.cross_entropy(query, key.to(query), reduction="none")
