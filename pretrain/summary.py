"""What a run's ``summary.json`` says."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from core import checkpoint
from core.files import write_json


def write(folder: Path, steps: int, images: int, seconds: float | None, facts: Mapping[str, Any]) -> None:
    """Write ``folder/summary.json``: ``facts``, the speed of this start's ``images``, and the hash of the last checkpoint."""
    last = folder / "checkpoints" / "last.pth"
    speed = {
        "images_per_second": round(images / seconds, 1) if seconds else None,
        "seconds": round(seconds, 1) if seconds else None,  # of this start
    }
    digest = backbone_hash(checkpoint.query_backbone(checkpoint.load(last)))
    write_json(folder / "summary.json", {**facts, "steps": steps, **speed, "backbone_sha256": digest})


def last_value(lines: Sequence[Mapping[str, Any]], name: str) -> Any:
    """Return the newest value of ``name`` in a journal, or None."""
    return next((line[name] for line in reversed(lines) if name in line), None)


def backbone_hash(tensors: dict[str, Tensor]) -> str:
    """Return the sha256 over names and bytes, which does not depend on the file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
