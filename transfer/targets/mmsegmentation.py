"""MMSegmentation: ``{"state_dict": ..., "meta": {}, "recipe": ...}``, torchvision's names, no prefix."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transfer.load_check import compare
from transfer.recipe import Recipe
from transfer.targets import Target


class Mmsegmentation(Target):
    """Also what MMEngine's ``init_cfg=dict(type='Pretrained', checkpoint=...)`` reads."""

    suffixes = (".pth",)

    @classmethod
    def rules_name(cls) -> str:
        """Return ``mmsegmentation``."""
        return "mmsegmentation"

    @classmethod
    def pack(cls, tensors: dict[str, Tensor], recipe: Recipe, suffix: str) -> bytes:
        """Serialise with ``torch.save``."""
        buffer = io.BytesIO()
        torch.save({"state_dict": tensors, "meta": {}, "recipe": recipe.to_dict()}, buffer)
        return buffer.getvalue()

    @classmethod
    def unpack(cls, file: dict[str, Any]) -> dict[str, Tensor]:
        """Return ``state_dict``."""
        return file["state_dict"]

    @classmethod
    def stages(cls, file: Path, tensors: dict[str, Tensor], recipe: Recipe, images: Tensor) -> list[Tensor]:
        """Run MMSegmentation's ``ResNet(style='pytorch')``, undilated, and return its four stages."""
        from transfer.segmentation import compat  # before any mm* package

        with compat.quiet():
            from mmseg.models.backbones import ResNet

        network = ResNet(
            depth=recipe.depth,
            base_channels=recipe.width,
            stem_channels=recipe.width,
            style="pytorch",
            norm_cfg={"type": "BN"},
            norm_eval=False,
        )
        network.eval()  # returns None there, so it cannot be chained
        network.load_state_dict(tensors, strict=False)  # the file carries no num_batches_tracked
        compare(network.state_dict(), tensors, str(file))
        with torch.no_grad():
            return list(network(images))
