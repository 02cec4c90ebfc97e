"""SimCLR as the common PyTorch codes save it.

Layouts: sthalles/SimCLR, simclr.py and models/resnet_simclr.py (``state_dict`` with ``backbone.*``, whose ``fc.0`` and
``fc.2`` are the projector); Spijkervet/SimCLR, simclr/simclr.py (``encoder.*`` and ``projector.*``, no container).
"""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, plain_values, split_by_prefix, state

LIGHTNING = "pytorch-lightning_version"


class Simclr(Source):
    """An encoder and a projector, and nothing of a momentum encoder or predictor."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for either layout."""
        found = state(checkpoint)
        if LIGHTNING in checkpoint or any(has(found, part) for part in ("predictor.", "encoder_k.", "encoder_q.")):
            return False
        return has(found, "backbone.fc.0.") or has(found, "encoder.", "projector.")

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the encoder without the projector."""
        found = state(checkpoint)
        prefix = "backbone." if has(found, "backbone.") else "encoder."
        return split_by_prefix(found, prefix, others={"projector.": "projector or classifier"})

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return the epoch and the architecture if they are stored."""
        return plain_values(checkpoint, "simclr", epochs="epoch", arch="arch")
