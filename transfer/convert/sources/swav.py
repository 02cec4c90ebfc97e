"""SwAV and DeepCluster v2 (facebookresearch/swav, main_swav.py, main_deepclusterv2.py, src/resnet50.py)."""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, plain_values, split_by_prefix, state

HEADS = ("projection_head.", "prototypes.", "fc.")
STEMS = ("conv1.", "layer1.")


class Swav(Source):
    """Bare names under ``module.`` with ``projection_head.*`` and ``prototypes.*``, with or without ``state_dict``."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for prototypes or SwAV's projector beside a bare ResNet."""
        found = state(checkpoint)
        return any(has(found, stem) for stem in STEMS) and any(
            has(found, h) for h in ("projection_head.", "prototypes.")
        )

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take everything but projector and prototypes."""
        return split_by_prefix(state(checkpoint), "", HEADS)

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return the epoch if it is stored."""
        return plain_values(checkpoint, "swav", epochs="epoch")
