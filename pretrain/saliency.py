"""Where the objects are: foreground cells from a backbone's own features (saliency-guided masking, arXiv 2309.12757, sec. 3.1).

The authors took a network trained with labels. Here the key encoder's backbone is asked by default, so that no label
reaches pre-training; a given network stays possible.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Generator, Tensor

from core import backbones, checkpoint
from core.backbones import Backbone
from core.config import PluginSettings, Settings, parse
from core.errors import InputError
from core.plugins import find
from pretrain.drawing import once
from pretrain.upload import upload

# Images, a stage (1 to 4) and a network, or None for the key side's backbone, to a feature map.
Features = Callable[[Tensor, int, Backbone | None], Tensor]
Count = TypeVar("Count", int, Tensor)


class SaliencySettings(Settings):
    """``network`` is a checkpoint of ours to look through instead of the key encoder; ``spread`` is in standard deviations."""

    network: Path | None = None
    stage: int = Field(4, ge=1, le=4)
    spread: float = Field(0.6, ge=0)


class Saliency:
    """Tells foreground from background on a grid."""

    def __init__(self, settings: SaliencySettings) -> None:
        self.settings = settings
        self._network = None if settings.network is None else _load(settings.network)

    def foreground(
        self, images: Float[Tensor, "batch 3 height width"], features: Features | None, cells: int
    ) -> Bool[Tensor, "batch cells cells"]:
        """Return the foreground cells of each image; there is at least one. Raises InputError for a map of one cell."""
        assert features is not None, "the objective hands feature maps to branches"
        maps = features(images, self.settings.stage, self._network)
        if maps.shape[-1] < 2:
            raise InputError(
                f"saliency.stage={self.settings.stage}: the feature map of {images.shape[-1]} px images is a single cell, which "
                "tells nothing apart; take an earlier stage, or larger views.size"
            )
        saliency = maps.float().sum(dim=1, keepdim=True)
        if saliency.shape[-2:] != (cells, cells):
            saliency = F.interpolate(saliency, (cells, cells), mode="bilinear", antialias=True, align_corners=False)
        return foreground(saliency[:, 0], self.settings.spread)


def foreground(saliency: Float[Tensor, "batch h w"], spread: float) -> Bool[Tensor, "batch h w"]:
    """Take the cells that are at least the mean, or within ``spread`` standard deviations of it (sec. 3.1)."""
    mean = saliency.mean(dim=(1, 2), keepdim=True)
    deviation = saliency.std(dim=(1, 2), keepdim=True, correction=0)
    flat = saliency.amax(dim=(1, 2), keepdim=True) == saliency.amin(dim=(1, 2), keepdim=True)  # rounding of the mean
    return (saliency >= mean) | ((saliency - mean).abs() <= spread * deviation) | flat


@torch.no_grad()
def stage_features(backbone: Backbone, images: Tensor, stage: int) -> Tensor:
    """Return a stage's feature map in evaluation mode; the backbone's mode and statistics stay as they are."""
    training = backbone.training
    backbone.eval()
    try:
        return backbone.stages(images)[stage - 1]
    finally:
        backbone.train(training)


def share_out(count: Count, foreground_cells: Count, background_cells: Count) -> tuple[Count, Count]:
    """Split ``count`` hidden cells between fore- and background in proportion to their areas, exactly (sec. 3.2).

    The larger remainder gets the odd cell; a tie goes to the foreground. Takes numbers, or integer tensors row by row.
    """
    total = foreground_cells + background_cells
    front, rest = count * foreground_cells // total, count * foreground_cells % total
    front = front + ((2 * rest >= total) & (rest > 0))
    return front, count - front


def orders(generators: Sequence[Generator], cells: int, device: torch.device) -> Int[Tensor, "rows places"]:
    """Draw the order in which each row's ``cells * cells`` cells are hidden, every order equally likely."""
    drawn = once(generators, "order", lambda: torch.stack([torch.randperm(cells**2, generator=g) for g in generators]))
    return upload(drawn, device)


def hide(
    region: Bool[Tensor, "rows cells cells"], counts: Int[Tensor, " rows"], order: Int[Tensor, "rows places"]
) -> Bool[Tensor, "rows cells cells"]:
    """Hide the first ``counts`` cells of each row's region in its order; all of it on the device that knows the region."""
    inside = region.flatten(1).gather(1, order)
    first = inside & (inside.cumsum(dim=1) <= counts[:, None])
    return torch.zeros_like(inside).scatter(1, order, first).view_as(region)


def _load(path: Path) -> Backbone:
    state = checkpoint.load(path)
    values = state["config"]["backbone"]
    settings: PluginSettings = parse(find("core.backbones", values["name"]).Config, values, path)
    network = backbones.build(settings).eval().requires_grad_(False)
    network.load_state_dict(checkpoint.query_backbone(state))
    return network
