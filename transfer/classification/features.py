"""Features of a frozen backbone, made once and kept in the run folder under a name made of all that they depend on."""

import hashlib
import json

import torch
from torch import Tensor

from core.errors import InputError
from core.files import FileError, read_weights_file, replacing, write_atomic
from core.journal import Journal
from transfer.classification.data import Split
from transfer.classification.job import Job
from transfer.classification.views import Views, batches

POINTER = "last_checkpoint"  # its presence marks a partial run, which transfer.trial keeps; it names the newest state


def cached(job: Job, split: Split, label: str, mirror: bool = False) -> Tensor:
    """Return the features of a split's test views, float32 [n, d] on the job's device, read from the cache if it has them.

    A damaged cache file is made again. ``mirror`` shows every image mirrored.
    """
    folder = job.folder / "features" / label
    path = folder / f"{_key(job, split, mirror)}.pth"
    found = None
    if path.is_file():
        try:
            found = read_weights_file(path)["features"]
        except (FileError, KeyError):
            path.unlink()
    if found is None:
        found = compute(job, split, label, mirror)
        with replacing(path) as file:
            torch.save({"features": found}, file)
        if not (job.folder / POINTER).exists():
            write_atomic(job.folder / POINTER, str(path.relative_to(job.folder)))
    return found.to(job.device)


@torch.no_grad()
def compute(job: Job, split: Split, label: str, mirror: bool) -> Tensor:
    """Run the frozen backbone over a split's test views; return float32 [n, d] on the CPU.

    Raises InputError when a feature is not finite.
    """
    views = Views(split, job.settings.views, mirror=mirror)
    parts, done = [], 0
    folder = job.folder / "features" / label
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder, len(split), label=f"features of {label}") as journal:
        for images, rows in batches(views, range(len(split)), job.settings.chunk, job.settings.workers):
            with job.autocast():
                parts.append(job.network(job.normalised(images)).float().cpu())
            done += len(rows)
            journal.log(done)
    features = torch.cat(parts)
    if not torch.isfinite(features).all():
        raise InputError(
            f"features of {label} hold NaN or infinite values; set amp=none, or take an earlier checkpoint"
        )
    return features


def _key(job: Job, split: Split, mirror: bool) -> str:
    """Hash what the features depend on."""
    settings = job.settings.model_dump(mode="json", include={"input", "views", "amp"})
    parts = [job.weights_sha256, settings, job.device.type, mirror, split.identity]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
