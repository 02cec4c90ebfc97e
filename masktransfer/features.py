"""A backbone as a module that takes plain images."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transfer.convert.read import Recognised
from transfer.convert.recipe import Recipe


class Features(nn.Module):
    """A recognised ``backbone`` behind the mean and std of its ``recipe``; ``notes`` say what the file does not tell."""

    mean: Tensor
    std: Tensor

    def __init__(self, found: Recognised) -> None:
        super().__init__()
        if found.facts.get("channel_order") == "BGR":
            found = found.as_rgb()
        self.backbone = found.family(found.config)
        missing, unexpected = self.backbone.load_state_dict(found.tensors, strict=False)
        assert not unexpected
        assert all(name.endswith("num_batches_tracked") for name in missing), missing
        self.arch, self.notes = found.arch, found.notes
        facts = found.family.facts(found.config) | found.facts
        self.recipe = Recipe(**facts, source=found.dialect, pretrain=found.pretrain)
        self.register_buffer("mean", torch.tensor(self.recipe.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(self.recipe.std).view(3, 1, 1))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Return the four stages' feature maps, fine to coarse, of RGB images from 0 to 255."""
        found: list[Tensor] = self.backbone.stages((images - self.mean) / self.std)
        return found
