"""Barlow Twins' checkpoint.pth (facebookresearch/barlowtwins, main.py); its resnet50.pth is read as ``torchvision``."""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, plain_values, split_by_prefix, state


class BarlowTwins(Source):
    """``model`` with ``module.backbone.*``, ``module.projector.*`` and ``module.bn.*``, a norm without weights."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for the projector and for the norm of the embeddings."""
        return has(state(checkpoint), "backbone.", "projector.", "bn.running_mean")

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the backbone."""
        others = {"projector.": "projector or classifier", "bn.": "norm of the embeddings"}
        return split_by_prefix(state(checkpoint), "backbone.", others=others)

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return the epoch."""
        return plain_values(checkpoint, "barlow_twins", epochs="epoch")
