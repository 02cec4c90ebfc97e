"""The release format of MoCo v1/v2, which MixMask's and Un-Mix's releases share.

Layout: facebookresearch/moco, main_moco.py and detection/convert-pretrain-to-detectron2.py; the same keys in
kirill-vish/MixMask, main_moco_mixmask.py, and szq0214/Un-Mix, which are forks of it.
"""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, plain_values, split_by_prefix, state


class Moco(Source):
    """``state_dict`` with ``module.encoder_q.*`` (query), ``module.encoder_k.*`` (key) and ``module.queue``."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for a query encoder that is not OpenSelfSup's, which keeps a ``backbone`` beside it."""
        found = state(checkpoint)
        return has(found, "encoder_q.") and not has(found, "backbone.")

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the query encoder without its ``fc`` projector."""
        return split_by_prefix(state(checkpoint), "encoder_q.")

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return the epoch and the architecture that the release stores."""
        return plain_values(checkpoint, "moco", epochs="epoch", arch="arch")
