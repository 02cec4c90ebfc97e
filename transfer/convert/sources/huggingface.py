"""Hugging Face ResNet and ConvNeXt (huggingface/transformers, modeling_resnet.py, modeling_convnext.py)."""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, split_by_prefix, state

HEADS = ("classifier.", "layernorm.")


class Huggingface(Source):
    """``resnet.embedder.*``, ``resnet.encoder.stages.*`` (``convnext.embeddings.*``), without the first word in a bare model."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for the stages and the stem of either network."""
        return _prefix(checkpoint) is not None

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the network without its classifier."""
        prefix = _prefix(checkpoint)
        assert prefix is not None
        return split_by_prefix(state(checkpoint), prefix, HEADS, {"classifier.": "projector or classifier"})


def _prefix(checkpoint: dict[str, Any]) -> str | None:
    found = state(checkpoint)
    stems = ("embedder.embedder.", "embeddings.patch_embeddings.")
    for prefix in ("", "resnet.", "convnext."):
        if any(has(found, f"{prefix}{stem}", f"{prefix}encoder.stages.0.") for stem in stems):
            return prefix
    return None
