"""Every place where MMSegmentation, MMEngine or MMCV needs help on this stack, each with its reason.

Import this module before any ``mm*`` package. Measured with onedl-mmengine 0.10.12, onedl-mmcv 2.3.6 and
onedl-mmsegmentation 1.4.2. Handled elsewhere, where it belongs: SyncBN without CUDA (`protocol`), configs that load
silently and wrongly (`weights`), weights (`hooks.LoadBackbone`: MMEngine never opens the weights file).
Not needed: ``mmengine.hub`` (fails because the distributions are named onedl-*; configs are read by path), and
``ResNet.train()`` returning None (nothing here chains it).
"""

import contextlib
import io
import logging
import os
import re
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.files import FileError, write_atomic
from transfer.frameworks._protocol import read_checkpoint

# Message (a regular expression) -> why it may be ignored, whether it comes as a warning or in MMEngine's log.
IGNORED = {
    r"Fail to import ``MultiScaleDeformableAttention``": "mmcv is pure Python here; no shipped config uses mmcv.ops",
    r"Default ``avg_non_ignore`` is False": "mmseg's own default, part of its published protocols",
    r"The draw is False": "pictures are drawn by hooks.Drawings",
    r"\"(FileClient|HardDiskBackend)\"": "MMEngine's checkpoint hook calls its own deprecated names",
    r"The prefix is not set in metric class": "so that a config's save_best='mIoU' keeps its meaning",
    r"`?torch\.jit\.": "torch 2.14 deprecates decorators that mmcv still uses",
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the warnings in `IGNORED`, and no others."""
    with warnings.catch_warnings():
        for message in IGNORED:
            warnings.filterwarnings("ignore", message=message)
        yield


def hush(record: logging.LogRecord) -> bool:
    """Tell whether a log record is worth a line on the terminal: not one of `IGNORED` (a filter for a handler)."""
    return not any(re.match(message, record.getMessage()) for message in IGNORED)


# mmseg prints "Could not import OneDL" twice: an optional dataset service, not a problem.
with quiet(), contextlib.redirect_stdout(io.StringIO()):
    import mmengine.runner.checkpoint as mmengine_checkpoint
    import mmseg.datasets
    import mmseg.engine
    import mmseg.evaluation
    import mmseg.models
    import mmseg.visualization  # noqa: F401 - imported for its registry entries, like the four above
    import torch
    from mmengine.config import Config
    from mmengine.fileio import LocalBackend, PickleHandler, register_backend
    from mmseg.utils import io as mmseg_io


def load_from_file(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Stand in for all of MMEngine's loaders, which fetch what an address names and fall back to running pickles.

    Whatever asks for a checkpoint (``resume``, ``load_from``, ``init_cfg``, ``pretrained``) comes here: tensors and plain
    values are read from a file on this machine, to the CPU; anything else is a FileError.
    """
    if "://" in filename:
        raise FileError(f"{filename} is an address; download it, check its sha256, and give the path of the file")
    content = read_checkpoint(filename, str(Path(filename).parent))
    state = content.get("state_dict", content)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise FileError(f"{filename} holds more than tensors where the network's are; give a checkpoint of MMEngine")
    return content


def _refuse(*_: Any, **__: Any) -> Any:
    raise FileError("this stack reads no pickle; give a file of tensors and plain values")


# MMEngine's own list of what its pickles may call holds getattr, and its readers run what is not on it.
mmengine_checkpoint.CheckpointLoader._schemes = {"": load_from_file}
mmengine_checkpoint._safe_torch_load = mmengine_checkpoint.load_url = _refuse
mmengine_checkpoint.get_torch_safe_globals = list
PickleHandler.load_from_fileobj = PickleHandler.load_from_path = _refuse  # annotation files of other datasets than ours
mmseg_io.pickle = types.SimpleNamespace(loads=_refuse, dumps=_refuse)  # LoadBiomedicalData(decode_backend="pickle")


class AtomicBackend(LocalBackend):
    """Write files whole or not at all; MMEngine's own backend leaves half a checkpoint when it is stopped."""

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write bytes to ``filepath`` through a temporary file, fsync and rename."""
        write_atomic(filepath, bytes(obj))


register_backend("AtomicBackend", AtomicBackend, force=True)


def start_processes(launcher: str, cuda: bool) -> dict[str, Any]:
    """Join the process group and return the ``model_wrapper_cfg`` the Runner needs (empty: its own is right).

    MMEngine's launcher calls ``cuda.set_device`` and passes ``device_ids``; on the CPU both fail.
    """
    if launcher == "none" or cuda:
        return {}
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    return {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}


def repair_loaders(cfg: Config) -> None:
    """Unset ``persistent_workers`` where there are no workers: torch refuses the pair."""
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if (loader := cfg.get(name)) and not loader.get("num_workers", 0):
            loader.persistent_workers = False


def latest_checkpoint(work_dir: Path) -> Path | None:
    """Find the checkpoint to resume from, also when ``last_checkpoint`` is cut short or names a moved folder."""
    pointer = work_dir / "last_checkpoint"
    if pointer.is_file():
        named = work_dir / Path(pointer.read_text(errors="replace")[:4096].strip()).name
        if named.suffix == ".pth" and named.is_file() and not named.is_symlink():
            return named
    found = {int(path.stem[5:]): path for path in work_dir.glob("iter_*.pth") if path.stem[5:].isdigit()}
    return found[max(found)] if found else None


def world_size(launcher: str) -> int:
    """Return how many processes the launcher started."""
    return int(os.environ.get({"pytorch": "WORLD_SIZE", "slurm": "SLURM_NTASKS"}.get(launcher, ""), 1))
