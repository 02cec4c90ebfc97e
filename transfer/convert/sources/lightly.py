"""Checkpoints of code written with lightly, in Lightning or in plain PyTorch (lightly-ai/lightly, examples/pytorch*).

Its tutorials build ``backbone = nn.Sequential(*list(resnet.children())[:-1])``, so tensors may be called
``backbone.0.weight``; heads are ``projection_head`` and ``prediction_head``, momentum copies end in ``_momentum``, and DINO's
networks are ``student_backbone`` and ``teacher_backbone``. An export of lightly-train (``lightly_train.export`` with
``format="torch_state_dict"``, docs.lightly.ai/train/stable/export.html) is a bare network and read as ``torchvision``.
"""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, plain_values, split_by_prefix, state

HEADS = ("projection_head.", "prediction_head.", "student_head.", "projection_head_momentum.", "backbone_momentum.")


class Lightly(Source):
    """``backbone.*`` beside lightly's heads."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for a backbone and one of lightly's parts."""
        found = state(checkpoint)
        named = has(found, "backbone.") or has(found, "student_backbone.")
        return named and any(has(found, head) for head in HEADS)

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the backbone, or DINO's student."""
        found = state(checkpoint)
        prefix = "backbone." if has(found, "backbone.") else "student_backbone."
        reasons = dict.fromkeys(("projection_head", "prediction_head", "student_head"), "projector or classifier")
        reasons |= {"backbone_momentum.": "of the momentum networks", "teacher_": "of the momentum networks"}
        return split_by_prefix(found, prefix, others=reasons)

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return the epoch and the step if they are stored."""
        return plain_values(checkpoint, "lightly", epochs="epoch", steps="global_step")
