"""timm (huggingface/pytorch-image-models, timm/models/resnet.py and convnext.py; ``timm.create_model(...).state_dict()``).

Its resnet18/34/50/101 have torchvision's names and shapes, so that such a file is read as ``torchvision``. Its deep-stem
networks (resnet50d, ``conv1.0.weight``) are refused: no framework here would put that stem anywhere.
"""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, prefixes, split_by_prefix, state


class Timm(Source):
    """Bare names; ``conv1.*`` and ``layer*`` of a ResNet, ``stem.*`` and ``stages.N.blocks.*`` of a ConvNeXt."""

    yields_to = ("torchvision", "swav", "mmselfsup", "openselfsup", "densecl", "mmsegmentation", "ours")

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for either network at the top; with averaged weights beside them ``plain`` asks."""
        if len(prefixes(checkpoint)) > 1:
            return False
        found = state(checkpoint)
        return has(found, "conv1.", "layer1.") or has(found, "stages.0.blocks.0.conv_dw.")

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take everything but the classifier."""
        return split_by_prefix(state(checkpoint), "")
