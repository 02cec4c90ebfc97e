"""PixPro (zdaxie/PixPro, main_pretrain.py, contrast/models/PixPro.py, transfer/detection/convert_pretrain_to_d2.py)."""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, plain_values, split_by_prefix, state

OTHERS = {
    "encoder_k.": "of the momentum networks",
    "projector_k.": "of the momentum networks",
    "projector": "projector or classifier",
    "value_transform.": "projector or classifier",
    "predictor.": "projector or classifier",
}


class Pixpro(Source):
    """``model`` with ``module.encoder.*``, ``module.encoder_k.*``, ``module.projector.*`` and ``module.projector_k.*``."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for both encoders and both projectors."""
        return has(state(checkpoint), "encoder.", "encoder_k.", "projector.", "projector_k.")

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the encoder."""
        return split_by_prefix(state(checkpoint), "encoder.", others=OTHERS)

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return the epoch if it is stored."""
        return plain_values(checkpoint, "pixpro", epochs="epoch")
