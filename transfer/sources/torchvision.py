"""Plain ResNets with torchvision's names: torchvision's own files and weights that were extracted already."""

from typing import Any

from torch import Tensor

from transfer.sources import Source, split_by_prefix


class Torchvision(Source):
    """``conv1.weight``, ``layer1.0.conv1.weight``, ..., bare or under ``state_dict``."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for the stem or a stage at the top level."""
        if "format" in checkpoint:
            return False
        return any(str(key).startswith(("conv1.", "layer")) for key in _tensors(checkpoint))

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take everything but the classifier."""
        return split_by_prefix(_tensors(checkpoint), "")


def _tensors(checkpoint: dict[str, Any]) -> dict[str, Any]:
    state = checkpoint.get("state_dict", checkpoint)
    return state if isinstance(state, dict) else {}
