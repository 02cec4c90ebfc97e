"""MMSegmentation: trained networks, and files that tools/convert_to_mmseg.py wrote (open-mmlab/mmsegmentation, docs).

A trained network has ``backbone.*``, ``decode_head.*`` and ``auxiliary_head.*``; a converted one bare names and ``meta``.
"""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, split_by_prefix, state

STEMS = ("conv1.", "downsample_layers.0.0.")


class Mmsegmentation(Source):
    """``state_dict`` and ``meta``."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for a segmentation head, or for ``meta`` with bare names and no author."""
        found = state(checkpoint)
        if has(found, "decode_head.", "backbone."):
            return True
        return "meta" in checkpoint and "author" not in checkpoint and any(has(found, stem) for stem in STEMS)

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the backbone."""
        found = state(checkpoint)
        others = dict.fromkeys(("decode_head.", "auxiliary_head."), "head of the segmentation network")
        heads = ("fc.", "norm0.", "norm1.", "norm2.", "norm3.")
        return split_by_prefix(found, "backbone." if has(found, "backbone.") else "", heads, others)
