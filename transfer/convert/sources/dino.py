"""DINO's full checkpoint (facebookresearch/dino, main_dino.py); dino_resnet50_pretrain.pth is read as ``torchvision``."""

from typing import Any

from torch import Tensor

from transfer.convert.sources import Source, has, plain_values, split_by_prefix


class Dino(Source):
    """``student`` and ``teacher``, each with ``backbone.*`` and ``head.*``, under ``module.`` where it was data-parallel."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look for both networks."""
        return all(
            isinstance(part := checkpoint.get(name), dict) and has(part, "backbone.") for name in ("student", "teacher")
        )

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the teacher's backbone, as DINO's own evaluation does (``--checkpoint_key teacher``)."""
        backbone, dropped = split_by_prefix(
            checkpoint["teacher"], "backbone.", others={"head.": "projector or classifier"}
        )
        dropped = {f"teacher.{name}": reason for name, reason in dropped.items()}
        return backbone, dropped | {f"student.{name}": "of the student" for name in checkpoint["student"]}

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return the epoch."""
        return plain_values(checkpoint, "dino", epochs="epoch")

    @classmethod
    def notes(cls, checkpoint: dict[str, Any]) -> list[str]:
        """Say which of the two networks was taken."""
        return ["the teacher is taken, as in DINO's evaluation; --source plain:student.backbone. takes the student"]
