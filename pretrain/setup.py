"""From a config file to a trainer that stands where the run's last checkpoint left it."""

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from core import backbones, bounds, config, distributed, tracking
from core.checkpoint import load as load_checkpoint
from core.errors import InputError
from core.files import FileError, replacing, write_atomic, write_json
from core.plugins import build, none_imported
from core.provenance import accelerators, derive, environment
from core.run_folder import another, differences, flat, hold
from pretrain.config import PretrainSettings
from pretrain.form import check_bf16
from pretrain.loader import Pairs
from pretrain.methods import LabelledMethod
from pretrain.monitor import OnlineKnn
from pretrain.objective import Objective
from pretrain.preview import contact_sheet
from pretrain.trainer import Trainer

# Settings that may differ when a run goes on: they change how it is computed or shown, not what is learned.
HOW = (
    *(
        "run.device",
        "run.threads",
        "run.deterministic",
        "run.graphs",
        "run.tensorboard",
        "run.track",
        "run.overwrite",
        "run.folder",
    ),
    *("train.workers", "train.log_every", "train.checkpoint_minutes", "train.damaged_share", "monitor"),
)


_held: dict[Path, FileLock] = {}  # the run folders of this process, until it ends
WORKERS_OUTLIVE = 10.0  # seconds by which a killed run's loader may outlive it, holding the folder's lock


def make_trainer(path: Path, overrides: Sequence[str] = ()) -> Trainer:
    """Check the settings, open the run folder, build everything, and restore the last checkpoint if there is one.

    Raises InputError for what the user wrote, before anything is written.
    """
    settings = config.parse(PretrainSettings, config.load(path, overrides), path)
    device = choose_device(settings)
    if settings.run.threads:
        torch.set_num_threads(settings.run.threads)
    distributed.start(device)
    objective, pairs, knn = _fitting(path, settings, device)
    folder = settings.run.folder or Path("runs") / path.stem
    if distributed.is_main() and folder.resolve() not in _held:
        _held[folder.resolve()] = hold(folder, WORKERS_OUTLIVE)
    last = open_folder(folder, settings)
    _describe(folder, device, new=last is None)
    torch.manual_seed(
        derive(settings.run.seed, "layers", distributed.rank()) % 2**63
    )  # drop path differs between processes
    trainer = Trainer(settings, objective, pairs, folder, device, knn)
    if last is not None:
        trainer.restore(last)
    if len(set(distributed.gather_objects(trainer.step))) > 1:
        raise InputError(
            f"the processes do not see the same checkpoint in {folder}; put run.folder where all nodes share it"
        )
    if distributed.is_main():
        with replacing(folder / "views.png") as file:
            contact_sheet(trainer.objective, pairs, settings.views).save(file, format="PNG")
        if trainer.step:
            print(f"going on at step {trainer.step} of {trainer.total} from {last}", file=sys.stderr)
    return trainer


def check(path: Path, overrides: Sequence[str], processes: int) -> None:
    """Raise InputError for what ``make_trainer`` would refuse on this machine in each of so many processes; write nothing."""
    settings = config.parse(PretrainSettings, config.load(path, overrides), path)
    device = choose_device(settings)
    with contextlib.redirect_stderr(io.StringIO()):  # what a run says of its choices
        objective, pairs, knn = _fitting(path, settings, device, processes)
    folder = settings.run.folder or Path("runs") / path.stem
    last = _standing(folder, settings)
    if last is not None and processes == 1:
        Trainer(settings, objective, pairs, folder, device, knn).restore(last)


def _fitting(
    path: Path, settings: PretrainSettings, device: torch.device, world: int | None = None
) -> tuple[Objective, Pairs, OnlineKnn | None]:
    """Build networks, branches, data and their monitor; raise InputError where they do not fit together or the machine."""
    tracking.check(settings.run.trackers)
    try:
        objective, pairs = build_parts(settings, world)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    check_bf16(settings.run.precision, objective.method.key_backbone, settings.views.size, device)
    knn = OnlineKnn(settings.monitor, settings.views, settings.train.workers) if settings.monitor.every else None
    return objective, pairs, knn


def choose_device(settings: PretrainSettings) -> torch.device:
    """Return the device of this process; a GPU where there is one, unless told otherwise."""
    asked, available = settings.run.device, torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise InputError("run.device=cuda, but no GPU is available; leave it out or set run.device=cpu")
    if asked == "mps" and not torch.backends.mps.is_available():
        raise InputError("run.device=mps, but this is no Mac with a GPU of its own; leave it out or set run.device=cpu")
    if asked == "cpu" or (asked == "auto" and not available):
        if settings.run.precision in ("fp16", "tf32"):
            raise InputError(f"run.precision={settings.run.precision} needs a GPU; use bf16 or fp32 on a CPU")
        return torch.device("cpu")
    if asked == "mps":
        return torch.device("mps")
    number, there = distributed.local_rank(), torch.cuda.device_count()
    if there == 1 and os.environ.get("SLURM_GPUS_PER_TASK"):
        number = 0  # each task sees its own GPU only
    if number >= there:
        raise InputError(
            f"process {number} of this machine has no GPU of its own: there are {there}; start as many processes as GPUs, or set "
            "run.device=cpu"
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def build_parts(settings: PretrainSettings, world: int | None = None) -> tuple[Objective, Pairs]:
    """Build networks, branches and data, and check that they fit together, in ``world`` processes (default: those there are)."""
    batch, world, parts = settings.train.batch_size, world or distributed.world(), settings.train.accumulate
    if batch % world:
        raise InputError(f"train.batch_size={batch} cannot be shared by {world} processes; make it a multiple")
    if batch % (world * parts):
        raise InputError(
            f"train.batch_size={batch} cannot be cut into train.accumulate={parts} micro-batches "
            f"on each of {world} processes; make it a multiple of {world * parts}"
        )
    settings.schedule.over(settings.train.epochs)
    if not settings.plain_weight and not settings.branches:
        raise InputError("plain_weight=0 and no branches leave nothing to learn; add a branch")
    if "plain" in settings.branches:
        raise InputError("branches.plain: the name 'plain' is taken by the loss of the clean views; rename the branch")
    torch.manual_seed(derive(settings.run.seed, "weights") % 2**63)
    backbone = backbones.build(settings.backbone)
    method = build("pretrain.methods", settings.method, backbone=backbone)
    method.check(batch // parts)
    if method.note and distributed.is_main():
        print(method.note, file=sys.stderr)
    if method.synchronised and world > 1 and choose_device(settings).type == "cuda":
        method = torch.nn.SyncBatchNorm.convert_sync_batchnorm(method)  # its papers' batches are normalised whole
    branches = {}
    for label, branch in settings.branches.items():
        try:
            branches[label] = build("pretrain.branches", branch)
            branches[label].check(settings.views.size, batch // parts // world // method.groups)
        except InputError as error:
            raise InputError(f"branches.{label}: {error}") from error
    images = distributed.from_main(lambda: build("core.data", settings.data))  # a million files are listed once
    if images.left_out and distributed.is_main():
        print(images.left_out, file=sys.stderr)
    if len(images) < batch:
        raise InputError(f"{len(images)} images are fewer than one batch of {batch}; lower train.batch_size")
    if isinstance(method, LabelledMethod):
        method.check_labels(images)
    skip = getattr(settings.data, "damaged", "refuse") == "skip"
    pairs = Pairs(images, settings.views, settings.run.seed, skip, method.views)
    return Objective(method, branches, settings.plain_weight, settings.run.seed, settings.mixed_norm), pairs


def open_folder(folder: Path, settings: PretrainSettings) -> Path | None:
    """Return the checkpoint to go on from, or None for a new run; refuse a folder, or a checkpoint, of another config.

    Without a last.pth it is the newest epoch_NNNN.pth: removing a damaged one asks for that.
    """
    if (last := _standing(folder, settings)) is not None:
        return last
    if distributed.is_main():
        if settings.run.overwrite and (old := [*(folder / "checkpoints").glob("*.pth")]):
            for path in (*old, folder / "journal.jsonl", *folder.glob(".*_run")):
                path.unlink(missing_ok=True)
        write_atomic(folder / "config.yaml", config.dump(settings))
        (folder / "checkpoints").mkdir(exist_ok=True)
    distributed.barrier()
    return None


def _standing(folder: Path, settings: PretrainSettings) -> Path | None:
    """Return the checkpoint to go on from, or None; refuse a folder, or a checkpoint, of another config."""
    kept, checkpoints = folder / "config.yaml", folder / "checkpoints"
    epochs = sorted(checkpoints.glob("epoch_*.pth"))[::-1]
    there = [path for path in (checkpoints / "last.pth", *epochs) if path.exists()]
    if not (kept.exists() or there) or settings.run.overwrite:
        return None
    before = None
    if kept.exists():
        with none_imported():
            before = _flat(config.parse(PretrainSettings, config.load(kept), kept))
    if changed := differences(before, _flat(settings), HOW, "config.yaml"):
        raise another(folder, changed, "run.folder", ", or set run.overwrite=true")
    if not there:
        return None
    _check_own(there, settings)
    return there[0]


def _check_own(there: Sequence[Path], settings: PretrainSettings) -> None:
    """Raise FileError when the first of a run's checkpoints is damaged, naming the newest good one, or of other settings."""
    try:
        own: Any = load_checkpoint(there[0]).get("config")
    except FileError as error:
        for path in there[1:]:
            try:
                load_checkpoint(path)
            except FileError:
                continue
            raise FileError(
                f"{error}; to go on from the newest good one, {path.name}, remove {there[0].name}"
            ) from error
        raise
    with none_imported():
        before = _flat(config.parse(PretrainSettings, own, there[0]))
    if changed := differences(before, _flat(settings), HOW):
        raise FileError(f"{there[0]} is of a run of other settings (different: {changed}); put the run's own there")


def _describe(folder: Path, device: torch.device, new: bool) -> None:
    """Write the machine, the software and every process's device of this start to ``environment.json``; keep what a run chose."""
    devices = distributed.gather_objects(accelerators(device))
    if distributed.is_main():
        path = folder / "environment.json"
        kept = {} if new or (known := bounds.mapping(path)) is None else {"form": known.get("form")}
        names = [one["device"] for one in devices]
        write_json(path, environment() | devices[0] | {"world_size": len(names), "devices": names} | kept)


def _flat(settings: PretrainSettings) -> dict[str, Any]:
    return dict(flat(settings.model_dump(mode="json")))
