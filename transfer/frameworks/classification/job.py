"""What a task is given."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from core.backbones import Backbone
from transfer.convert.recipe import Recipe
from transfer.frameworks.classification.data import Data
from transfer.frameworks.classification.settings import ClassificationSettings


@dataclass(frozen=True)
class Job:
    """A loaded backbone, labelled images, and how and where to work."""

    network: Backbone
    recipe: Recipe
    weights_sha256: str
    data: Data
    settings: ClassificationSettings
    seed: int
    folder: Path
    device: torch.device
    resume: bool

    def normalised(self, images: Tensor) -> Tensor:
        """Move uint8 images [n, 3, h, w] to the device, normalised as in pre-training."""
        pixels = images.to(self.device, non_blocking=True).float()
        mean, std = pixels.new_tensor(self.recipe.mean), pixels.new_tensor(self.recipe.std)
        return (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return the context in which forwards run: mixed precision if the settings ask for it."""
        if self.settings.amp == "none":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.settings.amp))
