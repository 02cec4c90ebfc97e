"""SimSiam's release format (facebookresearch/simsiam, main_simsiam.py, simsiam/builder.py, main_lincls.py)."""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, plain_values, split_by_prefix, state


class Simsiam(Source):
    """``state_dict`` with ``module.encoder.*`` (its ``fc`` is the projector) and ``module.predictor.*``."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for an encoder with a predictor, and neither a separate projector nor a key encoder."""
        found = state(checkpoint)
        return has(found, "encoder.", "predictor.") and not any(has(found, p) for p in ("projector.", "encoder_k."))

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the encoder without its projector."""
        return split_by_prefix(state(checkpoint), "encoder.")

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return the epoch and the architecture that the release stores."""
        return plain_values(checkpoint, "simsiam", epochs="epoch", arch="arch")
