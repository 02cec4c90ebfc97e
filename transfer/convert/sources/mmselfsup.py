"""mmselfsup and mmpretrain, extracted or not.

Layout: open-mmlab/mmselfsup, tools/model_converters/extract_backbone_weights.py (``author: MMSelfSup``, bare names), and
MMEngine's checkpoints (``meta``, ``state_dict`` with ``backbone.*``, ``neck.*``, ``head.*``, ``target_net.*``, ``encoder_k.*``).
"""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, split_by_prefix, state

DENSE_TASKS = ("decode_head.", "rpn_head.", "roi_head.", "bbox_head.", "mask_head.")
SHARED = ("encoder_q.0.", "online_net.0.")  # OpenSelfSup's double names


class Mmselfsup(Source):
    """``state_dict`` with ``backbone.*`` and MMEngine's ``meta``; or bare names with ``author: MMSelfSup``."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for the author, or for ``meta`` with a backbone that belongs to no dense task."""
        if checkpoint.get("author") in ("MMSelfSup", "MMPretrain"):
            return True
        found = state(checkpoint)
        other = any(has(found, prefix) for prefix in (*DENSE_TASKS, *SHARED))
        return "meta" in checkpoint and has(found, "backbone.") and not other

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take ``backbone``, which is the online or query network."""
        found = state(checkpoint)
        others = {"target_net.": "of the momentum networks", "encoder_k.": "of the momentum networks"}
        others |= dict.fromkeys(("neck.", "head."), "projector or classifier")
        return split_by_prefix(found, "backbone." if has(found, "backbone.") else "", others=others)

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return epoch and step from ``meta``."""
        meta = checkpoint.get("meta")
        stored = meta if isinstance(meta, dict) else {}
        found = {"method": "mmselfsup", "epochs": stored.get("epoch"), "steps": stored.get("iter")}
        return {key: value for key, value in found.items() if isinstance(value, int | str)}
