"""Save and load whole runs atomically; take the query backbone out of one.

A checkpoint is a mapping of tensors and plain values that ``torch.load(..., weights_only=True)`` reads:
``format``, ``version``, ``config``, ``progress`` (``step``, ``epoch``), ``method`` (both encoders, heads, queue),
``optimizer``, ``scaler``, ``rng`` (one entry a rank). A backbone file holds ``format``, ``version``, ``config``, ``backbone``.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from core.files import FileError, replacing, require_room
from core.weights_file import read_weights_file

RUN = "masktransfer-checkpoint"
BACKBONE = "masktransfer-backbone"
VERSION = 1
QUERY_BACKBONE = "query_encoder.backbone."
AUXILIARY = ".auxiliary."  # in the names of batch norms that saw mixed views only


def save(path: Path | str, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all; ``state`` holds tensors and plain values only."""
    with replacing(path) as file:
        torch.save(state, file)


def check_room(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, files: int) -> None:
    """Raise Unwritable when the disk cannot hold so many more checkpoints of a network and its optimizer."""
    copies = 2 if "betas" in optimizer.param_groups[0] else 1  # Adam keeps two numbers a weight, SGD with momentum one
    size = sum(value.nbytes for value in network.state_dict().values() if isinstance(value, Tensor))
    size += copies * sum(p.nbytes for p in network.parameters() if p.requires_grad)
    require_room(folder, files * size, f"{files} checkpoints")


class Writer:
    """Writes checkpoints in a thread, while the next steps are computed; one at a time."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def write(self, states: Mapping[Path, dict[str, Any]]) -> None:
        """Copy the states as they are now, and write each to its file; what the last write failed of is raised here.

        GPUs copy to pinned memory behind the work that is under way, and nothing waits for them but the thread.
        """
        self.join()
        copied: dict[int, Tensor] = {}  # by the tensor: the files share most of theirs
        kept = {
            path: tree_map_only(Tensor, lambda tensor: _copied(tensor, copied), state) for path, state in states.items()
        }
        done = torch.cuda.Event() if torch.cuda.is_initialized() else None
        if done is not None:
            done.record()
        self._thread = threading.Thread(target=self._write, args=(kept, done))
        self._thread.start()

    def join(self) -> None:
        """Wait until everything is written; raise what went wrong."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, states: Mapping[Path, dict[str, Any]], done: torch.cuda.Event | None) -> None:
        try:
            if done is not None:
                done.synchronize()
            for path, state in states.items():
                save(path, state)
        except BaseException as error:
            self._error = error


def _copied(tensor: Tensor, copied: dict[int, Tensor]) -> Tensor:
    if id(tensor) not in copied:
        pinned = tensor.device.type == "cuda"
        copied[id(tensor)] = torch.empty_like(tensor, device="cpu", pin_memory=pinned).copy_(
            tensor, non_blocking=pinned
        )
    return copied[id(tensor)]


def save_backbone(path: Path | str, backbone: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write a backbone-only file; ``config`` holds at least ``backbone`` (the settings it was built from)."""
    save(path, {"format": BACKBONE, "version": VERSION, "config": config, "backbone": backbone})


def load(path: Path | str) -> dict[str, Any]:
    """Read one of our checkpoints; raise FileError when it is damaged, of another kind, or of a newer version."""
    state = read_weights_file(path)
    if state.get("format") not in (RUN, BACKBONE):
        raise FileError(f"{path} is not a checkpoint of this project; give one from a run's checkpoints/ folder")
    if state.get("version") != VERSION:
        raise FileError(
            f"{path} has format version {state.get('version')}, this code reads {VERSION}; update the project"
        )
    return state


def query_backbone(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the backbone of the query encoder with its own tensor names (``conv1.weight``, ...).

    Auxiliary batch norms (``bn1.auxiliary.weight``, ...) stay behind.
    """
    if state["format"] == BACKBONE:
        return dict(state["backbone"])
    method = state["method"]
    return {
        key.removeprefix(QUERY_BACKBONE): value
        for key, value in method.items()
        if key.startswith(QUERY_BACKBONE) and AUXILIARY not in key
    }
