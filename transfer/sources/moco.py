"""The release format of MoCo v1/v2, which MixMask's and Un-Mix's releases share (facebookresearch/moco, main_moco.py)."""

from typing import Any

from torch import Tensor

from transfer.sources import Source, split_by_prefix

PREFIXES = ("module.encoder_q.", "encoder_q.")


class Moco(Source):
    """``state_dict`` with ``module.encoder_q.*`` (query), ``module.encoder_k.*`` (key) and ``module.queue``."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for a query encoder with a ResNet stem in ``state_dict``."""
        return _prefix(checkpoint) is not None

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the query encoder without its ``fc`` projector."""
        prefix = _prefix(checkpoint)
        assert prefix is not None
        return split_by_prefix(checkpoint["state_dict"], prefix)

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return the epoch and the architecture that the release stores."""
        stored = {"method": "moco", "epochs": checkpoint.get("epoch"), "arch": checkpoint.get("arch")}
        return {key: value for key, value in stored.items() if isinstance(value, int | str)}


def _prefix(checkpoint: dict[str, Any]) -> str | None:
    state = checkpoint.get("state_dict")
    if not isinstance(state, dict):
        return None
    return next((p for p in PREFIXES if any(str(key).startswith((f"{p}conv1.", f"{p}layer")) for key in state)), None)
