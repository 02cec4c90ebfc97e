"""OpenSelfSup, and mmselfsup before 1.0 (open-mmlab/OpenSelfSup, openselfsup/models/moco.py, byol.py).

The query network is ``encoder_q = nn.Sequential(backbone, neck)`` and ``backbone`` is its first part, so every tensor of the
backbone is in the file under both ``backbone.*`` and ``encoder_q.0.*`` (BYOL: ``online_net.0.*``).
tools/extract_backbone_weights.py writes bare names with ``author: OpenSelfSup``.
"""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, split_by_prefix, state

TWINS = ("encoder_q.0.", "online_net.0.")
OTHERS = dict.fromkeys(TWINS, "the same tensors as backbone.*") | {
    "encoder_q.": "projector or classifier",
    "online_net.": "projector or classifier",
    "encoder_k.": "of the momentum networks",
    "target_net.": "of the momentum networks",
}


class Openselfsup(Source):
    """``backbone.*`` twice, or bare names with the author."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for the double names or the author; DenseCL has a second queue."""
        found = state(checkpoint)
        if has(found, "queue2"):
            return False
        return checkpoint.get("author") == "OpenSelfSup" or (
            has(found, "backbone.") and any(has(found, twin) for twin in TWINS)
        )

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take ``backbone``."""
        found = state(checkpoint)
        return split_by_prefix(found, "backbone." if has(found, "backbone.") else "", others=OTHERS)
