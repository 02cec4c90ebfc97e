"""One view at a time, from its own generator: what the loader does for a whole batch in one go."""

import torch
from torch import Generator, Tensor

from pretrain.views import TRIES, UNITS, Box, ViewSettings, box_of, colours_of


def crop_box(height: int, width: int, scale: tuple[float, float], generator: Generator) -> Box:
    """Draw (top, left, height, width) of a random resized crop of an image of ``height`` x ``width`` pixels."""
    return box_of(height, width, scale, torch.rand(TRIES * 4, generator=generator).tolist())


def draw_colours(settings: ViewSettings, generator: Generator, count: int = 1) -> Tensor:
    """Draw the colour changes of ``count`` views: [count, 8], columns as ``colours_of`` lists them."""
    return torch.from_numpy(colours_of(settings, torch.rand(count, UNITS, generator=generator).tolist()))
