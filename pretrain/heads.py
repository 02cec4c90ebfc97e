"""Projectors on top of a backbone."""

from jaxtyping import Float
from torch import Tensor, nn

from core.backbones import Backbone


class Encoder(nn.Module):
    """A backbone and a projector; both by these names in a checkpoint."""

    def __init__(self, backbone: Backbone, projector: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Return the projected, average-pooled features."""
        return self.projector(self.backbone(images))


def mlp(channels: int, hidden: int, out: int) -> nn.Sequential:
    """Return MoCo v2's projector: linear, ReLU, linear (arXiv 2003.04297, sec. 3)."""
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out))
