"""DenseCL, built on OpenSelfSup (WXinlong/DenseCL, openselfsup/models/densecl.py, tools/extract_backbone_weights.py)."""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, split_by_prefix, state

OTHERS = {
    "encoder_q.0.": "the same tensors as backbone.*",
    "encoder_q.": "projector or classifier",
    "encoder_k.": "of the momentum networks",
}


class Densecl(Source):
    """OpenSelfSup's layout with a second queue (``queue2``), or bare names with ``author: DenseCL``."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for the second queue or the author."""
        found = state(checkpoint)
        return checkpoint.get("author") == "DenseCL" or has(found, "queue2", "backbone.")

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take ``backbone``."""
        found = state(checkpoint)
        return split_by_prefix(found, "backbone." if has(found, "backbone.") else "", others=OTHERS)

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Name the method."""
        return {"method": "densecl"}
