"""Checkpoints of this project, whole runs and backbone files."""

from typing import Any

from torch import Tensor

from core import checkpoint as checkpoints
from transfer.convert.sources import Source, split_by_prefix


class Ours(Source):
    """Written by ``pretrain/run.py``, or by ``core.checkpoint.save_backbone``."""

    @classmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Look at the ``format`` entry."""
        return checkpoint.get("format") in (checkpoints.RUN, checkpoints.BACKBONE)

    @classmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Take the query encoder's backbone, without the batch norms of mixed views."""
        if checkpoint["format"] == checkpoints.BACKBONE:
            return split_by_prefix(checkpoint["backbone"], "")
        backbone, dropped = split_by_prefix(checkpoint["method"], checkpoints.QUERY_BACKBONE)
        mixed = [name for name in backbone if checkpoints.AUXILIARY in name]
        dropped |= {checkpoints.QUERY_BACKBONE + name: "batch norm of mixed views" for name in mixed}
        return {name: value for name, value in backbone.items() if name not in mixed}, dropped

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Summarise the run: method, branches, data, length and cost."""
        config = checkpoint["config"]
        progress = checkpoint.get("progress", {})
        return {
            "method": config.get("method", {}).get("name", "random"),
            "branches": sorted(branch["name"] for branch in config.get("branches", {}).values()),
            "dataset": config.get("data", {}).get("name"),
            "epochs": progress.get("epoch", 0),
            "steps": progress.get("step", 0),
            "batch_size": config.get("train", {}).get("batch_size"),
            "forwards_per_step": progress.get("forwards_per_step"),
        }
