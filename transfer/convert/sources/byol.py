"""BYOL's online network as the common PyTorch codes name it.

Layouts: lucidrains/byol-pytorch (``online_encoder.net.*``, ``target_encoder.*``, under ``learner.`` in its Lightning
example); sthalles/PyTorch-BYOL, trainer.py (``online_network_state_dict`` with ``encoder.*`` and ``projetion.*``, spelt so);
yaox12/BYOL-PyTorch, model/byol_model.py (``online_network.encoder.*``, ``target_network.*``).
"""

import re
from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, flattened, has, plain_values, prefixes, split_by_prefix, state

ONLINE = re.compile(r"^(?:.*\.)?online_(?:network_state_dict|network|encoder|net|model|backbone)\.")
HEADS = ("projector.", "projetion.", "projection.", "predictor.", "fc.")


class Byol(Source):
    """``online_*`` beside ``target_*``; the backbone is the online network's encoder."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for a backbone in an online network, and not for OpenSelfSup, which keeps a ``backbone`` beside it."""
        return _prefix(checkpoint) is not None and not has(state(checkpoint), "backbone.")

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the online encoder."""
        prefix = _prefix(checkpoint)
        assert prefix is not None
        tensors = {name: value for name, value in flattened(checkpoint).items() if isinstance(value, Tensor)}
        return split_by_prefix(tensors, prefix, HEADS)

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return the epoch if it is stored."""
        return plain_values(checkpoint, "byol", epochs="epoch", steps="global_step")


def _prefix(checkpoint: dict[str, Any]) -> str | None:
    return next((prefix for prefix in prefixes(checkpoint) if ONLINE.match(prefix)), None)
