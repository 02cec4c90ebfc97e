"""Detectron2: converted backbones and whole detectors (facebookresearch/detectron2, tools/convert-torchvision-to-d2.py).

A detector's backbone is under ``backbone.`` (C4, whose res5 is under ``roi_heads.``) or ``backbone.bottom_up.`` (FPN).
"""

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.errors import InputError
from transfer.convert.sources import Source, has, split_by_prefix, state

PARTS = re.compile(r"^(?:backbone\.(?:bottom_up\.)?|roi_heads\.(?=res5\.\d))(?=stem\.|res[2-5]\.)")
CAFFE2 = re.compile(r"^(res_)?conv1_(w|b|bn_s)$|^res2_0_branch2a_w$")


class Detectron2(Source):
    """``model`` with ``stem.conv1.*``, ``res2.*`` to ``res5.*``; ``.pkl`` or ``.pth``."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for the stem, or for the names that Caffe2 gives it."""
        found = _tensors(checkpoint)
        return has(found, "stem.conv1.") or has(found, "res2.0.") or any(CAFFE2.match(name) for name in found)

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the bottom-up network; raise InputError for Caffe2's."""
        found = _tensors(checkpoint)
        if any(CAFFE2.match(name) for name in found):
            raise InputError(
                "it is a Caffe2 network (MSRA's R-50.pkl): BGR, stride in the 1x1 convolution, norms folded in; "
                "no network here computes the same"
            )
        backbone = {name: value for name, value in found.items() if name.startswith(("stem.", "res"))}
        rest = {name: value for name, value in found.items() if name not in backbone}
        own, dropped = split_by_prefix(backbone, "", heads=("res5.norm.",))
        return own, dropped | dict.fromkeys(rest, "not of the bottom-up network")

    @classmethod
    def notes(cls, checkpoint: dict[str, Any]) -> list[str]:
        """Say what the tensors cannot tell."""
        if "recipe" in checkpoint:
            return []
        return ["a Detectron2 file does not tell where its stride is: taken as STRIDE_IN_1X1 False, and RGB"]


def _tensors(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the detector's arrays as tensors, the bottom-up network's without their prefix."""
    found = {}
    for name, value in state(checkpoint, "model").items():
        found[PARTS.sub("", str(name))] = torch.as_tensor(value) if isinstance(value, np.ndarray) else value
    return found
