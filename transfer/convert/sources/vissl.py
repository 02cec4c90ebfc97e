"""VISSL (facebookresearch/vissl, extra_scripts/convert_vissl_to_torchvision.py)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, split_by_prefix, state

TRUNK = "_feature_blocks."


class Vissl(Source):
    """``classy_state_dict.base_model.model.trunk`` with ``_feature_blocks.*``; the trunk alone is read as well."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for the trunk's prefix."""
        return has(_trunk(checkpoint), TRUNK)

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the trunk; the heads are dropped."""
        backbone, dropped = split_by_prefix(_trunk(checkpoint), TRUNK)
        heads = _model(checkpoint).get("heads")
        if isinstance(heads, Mapping):
            dropped |= {f"heads.{name}": "projector or classifier" for name in heads}
        return backbone, dropped

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Say no more than that VISSL wrote the file."""
        return {"method": "vissl"}


def _model(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = checkpoint
    for key in ("classy_state_dict", "base_model", "model"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _trunk(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    trunk = _model(checkpoint).get("trunk")
    return dict(trunk) if isinstance(trunk, Mapping) else state(checkpoint)
