"""Load weights without executing them, prove that the whole backbone arrived, and save atomically."""

from transfer.frameworks.detectron2 import compat  # noqa: F401, I001 - first: it prepares Detectron2's import

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import Tensor

from core.checkpoint import save
from core.errors import InputError
from core.files import read_weights_file, write_atomic
from transfer.convert.load_check import LoadError, compare

# A backbone tensor in a converted file (no prefix), in an FPN (backbone.bottom_up), in C4 (its res5 is in the heads).
BACKBONE = re.compile(r"^(?:backbone\.(?:bottom_up\.)?|roi_heads\.(?=res5\.))?((?:stem|res[2-5]\.\d+)\..+)$")
COUNTER = "num_batches_tracked"  # no weight, and in no converted file


class ProvenCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer; ``checked`` counts the backbone tensors that were found equal to the weights file."""

    checked = 0

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Read a file as tensors and plain values only; Detectron2 would unpickle it."""
        content = read_weights_file(filename)
        content = content if "model" in content else {"model": content}
        self.read = backbone(content["model"])
        # bare names, as in a converted file, are to be matched by their ends; those of a detector are whole
        return {"matching_heuristics": "stem.conv1.weight" in content["model"], **content}

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Go on from the last checkpoint, or load ``path`` and compare every backbone tensor with it.

        Raises LoadError naming the first tensor of the file or of the network that is not the same in both.
        """
        resuming = resume and self.has_checkpoint()
        rest: dict[str, Any] = super().resume_or_load(path, resume=resume)
        if resuming:
            self.checked = rest.get("tensors_checked", 0)
        elif path:
            self.checked = check(self.model.state_dict(), self.read, path)
        return rest

    def save(self, name: str, **values: Any) -> None:
        """Write ``name``.pth whole or not at all, then point ``last_checkpoint`` to it."""
        if not self.save_dir or not self.save_to_disk:
            return
        parts = {key: part.state_dict() for key, part in self.checkpointables.items()}
        state = {"model": self.model.state_dict(), **parts, "tensors_checked": self.checked, **values}
        save(Path(self.save_dir) / f"{name}.pth", state)
        self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the name of the newest checkpoint whole or not at all."""
        write_atomic(Path(self.save_dir) / "last_checkpoint", last_filename_basename)


def backbone(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the backbone's tensors under their names in a converted file (``stem.*``, ``res2.*`` to ``res5.*``)."""
    found = {}
    for name, value in tensors.items():
        if (match := BACKBONE.match(name)) and not name.endswith(COUNTER):
            if not isinstance(value, Tensor | np.ndarray):
                raise InputError(f"{name} is a {type(value).__name__}, not an array; convert the checkpoint again")
            found[match[1]] = torch.as_tensor(value)
    return found


def check(network: Mapping[str, Any], expected: Mapping[str, Tensor], file: str) -> int:
    """Compare the network's backbone with the file's, both ways and bit for bit; return the number of tensors."""
    loaded = backbone(network)
    count = compare(loaded, expected, file)
    if extra := [name for name in loaded if name not in expected]:
        raise LoadError(
            f"{file} lacks {len(extra)} of {len(loaded)} backbone tensors, first {extra[0]}: they stay random"
        )
    return count
