"""Features of a frozen backbone, kept in the run folder under a name of all they depend on; proof that it stayed frozen."""

import hashlib
import json

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.data import Split
from core.errors import InputError
from core.files import FileError, replacing, write_atomic
from core.journal import Journal
from core.weights_file import read_weights_file
from transfer.frameworks.classification.job import Job
from transfer.frameworks.classification.views import Views, batches

POINTER = (
    "last_checkpoint"  # its presence marks a partial run, which transfer.suite.trial keeps; it names the newest state
)


def cached(job: Job, split: Split, label: str, mirrored: bool = False, cells: int = 1) -> Tensor:
    """Return the features of a split's test views, float32 [n, d] on the job's device, read from the cache if it has them.

    ``mirrored`` appends those of the mirrored images: [2 n, d]; ``cells`` is that of ``forward``. A damaged cache file is made
    again.
    """
    folder = job.folder / "features" / label
    job.sitting.at_once = True  # features are made again
    path = folder / f"{_key(job, split, mirrored, cells)}.pth"
    found = None
    if path.is_file():
        try:
            found = read_weights_file(path)["features"]
        except (FileError, KeyError):
            path.unlink()
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        with Journal(folder, len(split), label=f"features of {label}") as journal:
            found = _compute(job, split, mirrored, cells, journal)
        with replacing(path) as file:
            torch.save({"features": found}, file)
        if not (job.folder / POINTER).exists():
            write_atomic(job.folder / POINTER, str(path.relative_to(job.folder)))
    job.sitting.at_once = False
    return found.to(job.device)


@torch.no_grad()
def forward(job: Job, images: Tensor, cells: int = 1) -> Tensor:
    """Run the frozen backbone, float32 [n, d]; channels-last, which is a sixth faster on the CPU and more on GPUs.

    With ``cells`` the last stage is averaged over cells x cells windows, as large as the map holds one pixel apart (VISSL), not
    over the whole: [n, cells² d].
    """
    with job.autocast():
        pixels = job.normalised(images.contiguous(memory_format=torch.channels_last))
        if cells == 1:
            return job.network(pixels).float()
        last = job.network.stages(pixels)[-1]
        return F.avg_pool2d(last, [max(1, side - cells + 1) for side in last.shape[-2:]], stride=1).flatten(1).float()


def _compute(job: Job, split: Split, mirrored: bool, cells: int, journal: Journal) -> Tensor:
    """Run the frozen backbone over a split's test views; raise InputError when a feature is not finite."""
    parts: list[list[Tensor]] = [[] for _ in range(1 + mirrored)]
    done = 0
    order = range(len(split))
    for images, rows in batches(Views(split, job.settings.views), order, job.settings.chunk, job.settings.workers):
        for flipped, part in enumerate(parts):
            part.append(forward(job, images.flip(-1) if flipped else images, cells).cpu())
        done += len(rows)
        journal.log(done)
    features = torch.cat([rows for part in parts for rows in part])
    if not torch.isfinite(features).all():
        raise InputError("a feature is NaN or infinite; set amp=none, or take an earlier checkpoint")
    return features


def _key(job: Job, split: Split, mirrored: bool, cells: int) -> str:
    """Hash what the features depend on."""
    settings = job.settings.model_dump(mode="json", include={"input", "views", "amp"})
    parts = [job.weights_sha256, settings, job.device.type, mirrored, split.identity, *([cells] if cells > 1 else [])]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class FrozenError(InputError):
    """A tensor of a backbone that must not change has changed."""


class Frozen:
    """Put a network in evaluation mode, without gradients, channels-last, and remember every parameter and buffer."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.before: dict[str, Tensor] = {name: value.detach().clone() for name, value in network.state_dict().items()}

    def check(self) -> int:
        """Return how many tensors are bit for bit as before; raise FrozenError naming the first that is not."""
        after = self.network.state_dict()
        for name, value in self.before.items():
            if not torch.equal(value, after[name]):
                raise FrozenError(
                    f"{name} of the frozen backbone changed while it was measured; nothing is reported, please report this"
                )
        return len(self.before)
