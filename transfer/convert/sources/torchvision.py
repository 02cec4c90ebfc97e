"""Bare networks with torchvision's names (pytorch/vision, torchvision/models/resnet.py and convnext.py).

So are weights that were extracted already: Barlow Twins', VICReg's and DINO's resnet50.pth, exports of lightly-train.
"""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, prefixes, split_by_prefix, state


class Torchvision(Source):
    """``layer1.0.conv1.weight`` or ``features.1.0.block.0.weight``, ..., bare or in a container."""

    yields_to = (
        "mmselfsup",
        "mmsegmentation",
        "openselfsup",
        "densecl",
        "swav",
        "ours",
    )  # bare names and their own mark

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for the stem or a stage at the top; with a second network beside them (averaged weights) ``plain`` asks."""
        if len(prefixes(checkpoint)) > 1:
            return False
        found = state(checkpoint)
        if has(found, "conv1.0."):  # a deep stem, which torchvision has not
            return False
        return has(found, "conv1.weight") or has(found, "layer1.") or has(found, "features.1.0.block.")

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take everything but the classifier."""
        return split_by_prefix(state(checkpoint), "")
