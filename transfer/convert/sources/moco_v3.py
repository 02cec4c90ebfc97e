"""MoCo v3's release format (facebookresearch/moco-v3, main_moco.py, moco/builder.py, CONVERT.md)."""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, plain_values, split_by_prefix, state


class MocoV3(Source):
    """``state_dict`` with ``module.base_encoder.*``, ``module.momentum_encoder.*`` and ``module.predictor.*``."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for both encoders."""
        return has(state(checkpoint), "base_encoder.", "momentum_encoder.")

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the base encoder without its projector (``fc``, or ``head`` in a ViT)."""
        return split_by_prefix(state(checkpoint), "base_encoder.")

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return the epoch and the architecture that the release stores."""
        return plain_values(checkpoint, "moco_v3", epochs="epoch", arch="arch")
