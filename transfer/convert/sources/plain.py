"""State dicts of no particular code: a backbone under any prefixes in any order, found by its own names.

``module.``, ``_orig_mod.``, ``backbone.``, ``encoder.``, containers: whatever stands before a known family's first block is the
prefix. ``--source plain:PREFIX`` picks one backbone where a file holds several (DINO's student, averaged weights, ...).
"""

from typing import Any

from torch import Tensor

from core.backbones import families
from transfer.convert.sources import Source, flattened, prefixes, split_by_prefix


class Plain(Source):
    """Any nesting of mappings and prefixes with exactly one backbone in it."""

    fallback = True

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for a known family's first block anywhere."""
        return bool(prefixes(checkpoint))

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the first backbone; ``convert`` asks the user when there are several."""
        return cls.take(checkpoint, prefixes(checkpoint)[0])

    @classmethod
    def take(cls, checkpoint: dict[str, Any], prefix: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the backbone under one of ``prefixes``, without what its family calls a head."""
        heads = tuple({head for family in families().values() for head in family.heads})
        tensors = {name: value for name, value in flattened(checkpoint).items() if isinstance(value, Tensor)}
        return split_by_prefix(tensors, prefix, (*heads, "projector.", "projection_head.", "prototypes."))
