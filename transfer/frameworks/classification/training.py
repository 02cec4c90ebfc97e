"""The epochs that a linear probe and a fine-tuning share: learning rate, saving, resuming, the last and the best metric."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim import Optimizer

from core.checkpoint import save
from core.config import PluginSettings
from core.errors import InputError
from core.files import FileError, write_atomic
from core.journal import Journal
from core.provenance import derive
from core.weights_file import read_weights_file
from transfer.frameworks.classification.features import POINTER
from transfer.frameworks.classification.job import Job

STATE = "last.pth"
SAVE_EVERY = 15.0  # seconds; epochs on cached features take milliseconds
PER = 256  # images; ``lr`` is given for a batch of so many (linear scaling rule, arXiv 1706.02677)


class Training(PluginSettings):
    """``lr`` is for a batch of 256 and scaled to ``batch``; ``milestones`` and ``warm_up`` are epochs."""

    optimizer: Literal["sgd", "lars"] = "sgd"
    lr: float = Field(gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    batch: int = Field(256, ge=1)
    epochs: int = Field(ge=1)
    schedule: Literal["steps", "cosine"]
    milestones: tuple[int, ...] = ()
    factor: float = Field(0.1, gt=0, le=1)
    warm_up: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _steps_lie_within(self) -> Self:
        if (self.schedule == "steps") != bool(self.milestones):
            raise InputError("milestones belong to schedule: steps, and it needs them; cosine has none")
        if list(self.milestones) != sorted(set(self.milestones)) or any(m >= self.epochs for m in self.milestones):
            raise InputError(f"milestones {list(self.milestones)} must ascend and lie below epochs ({self.epochs})")
        return self

    def share(self, epoch: int) -> float:
        """Return the share of the full learning rate in an epoch (from 0)."""
        if epoch < self.warm_up:
            return (epoch + 1) / (self.warm_up + 1)
        if self.schedule == "steps":
            return self.factor ** sum(epoch >= milestone for milestone in self.milestones)
        return (1 + math.cos(math.pi * (epoch - self.warm_up) / max(self.epochs - self.warm_up, 1))) / 2

    def build(self, groups: list[dict[str, Any]]) -> Optimizer:
        """Make the optimizer; each group holds ``params`` and, if it is not ``lr``, its own ``peak`` for a batch of 256."""
        for group in groups:
            group["peak"] = self.scaled(group.get("peak", self.lr))
        given: dict[str, Any] = {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}
        if self.optimizer == "lars":
            from timm.optim import Lars  # here: it imports all of timm

            return Lars(groups, **given, trust_coeff=0.001, always_adapt=True)  # adapt without weight decay too
        return torch.optim.SGD(groups, **given)

    def scaled(self, lr: float) -> float:
        """Scale a learning rate for a batch of 256 to the batch at hand."""
        return lr * self.batch / PER

    def summary(self) -> dict[str, Any]:
        """Return the recipe for a report, with the learning rate as scaled."""
        values = self.model_dump(mode="json", exclude={"name", "lr"})
        if self.schedule == "cosine":
            values = {key: value for key, value in values.items() if key not in ("milestones", "factor")}
        return {"lr": self.scaled(self.lr), **values}


def new_head(features: int, classes: int, seed: int) -> nn.Linear:
    """Make a linear classifier with weights from a normal of 0.01 and no bias yet (MoCo's release)."""
    with torch.random.fork_rng(devices=[]):
        head = nn.Linear(features, classes)
    generator = torch.Generator().manual_seed(derive(seed, "head"))
    nn.init.normal_(head.weight, std=0.01, generator=generator)
    nn.init.zeros_(head.bias)
    return head


Batches = Iterable[tuple[Tensor, Tensor]]  # logits and labels


@dataclass
class Progress:
    """How far a training is: whole epochs, then batches of the one under way with their summed loss and images."""

    done: int = 0
    best: float = 0.0
    metrics: dict[str, float | None] = field(default_factory=dict)
    batches: int = 0
    total: float = 0.0
    images: int = 0


def fit(
    job: Job,
    training: Training,
    prefix: str,
    parts: Mapping[str, Any],
    epoch_of: Callable[[int, int], Batches],
    test: Callable[[], tuple[Tensor, Tensor]],
    test_every: int = 1,
) -> dict[str, float | None]:
    """Train ``parts`` (one is ``optimizer``), from the folder's saved state when the job resumes, and return the metrics.

    ``epoch_of`` yields the logits and labels of an epoch's batches from the given one on; ``test`` returns all test logits and
    labels, and is called after every ``test_every`` epochs and after the last. The metrics are of the last epoch,
    ``PREFIX/best_top1`` is that of the best.
    Raises InputError when the loss is not finite.
    """
    at = _resume(job, parts) if job.resume else Progress()
    saved = time.monotonic()
    with Journal(job.folder, training.epochs, start=at.done, label=prefix) as journal:
        while at.done < training.epochs:
            for group in parts["optimizer"].param_groups:
                group["lr"] = group["peak"] * training.share(at.done)
            _train(job, epoch_of(at.done, at.batches), parts, at)
            loss, at.done, at.batches, at.total, at.images = at.total / at.images, at.done + 1, 0, 0.0, 0
            last = at.done == training.epochs
            tested: dict[str, Any] = accuracies(*test(), prefix) if last or at.done % test_every == 0 else {}
            at.metrics, at.best = tested or at.metrics, max(at.best, tested.get(f"{prefix}/top1", 0.0))
            journal.log(at.done, loss=loss, lr=parts["optimizer"].param_groups[0]["lr"], **tested)
            if last or time.monotonic() - saved > SAVE_EVERY:
                _save(job, parts, at)
                saved = time.monotonic()
    return {**at.metrics, f"{prefix}/best_top1": at.best}


def _train(job: Job, batches: Batches, parts: Mapping[str, Any], at: Progress) -> None:
    """Train to the end of the epoch; save by the minute, and when a signal asks for an end."""
    optimizer, scaler = parts["optimizer"], parts.get("scaler")
    for logits, labels in batches:
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        at.total += loss.item() * len(labels)
        at.images += len(labels)
        at.batches += 1
        if not math.isfinite(at.total):
            raise InputError(f"the loss is not finite in epoch {at.done + 1}; lower task.lr")
        if job.sitting.asked or job.sitting.due():
            _save(job, parts, at)
        if job.sitting.asked:
            job.sitting.leave()


def accuracies(logits: Tensor, labels: Tensor, prefix: str) -> dict[str, float]:
    """Return ``PREFIX/top1`` and, with more than ten classes, ``PREFIX/top5``, in percent."""
    metrics = {}
    for k in (1, 5) if logits.shape[1] > 10 else (1,):
        hits = (logits.topk(k, dim=1).indices == labels[:, None]).any(dim=1)
        metrics[f"{prefix}/top{k}"] = 100 * int(hits.sum()) / len(hits)
    return metrics


def _save(job: Job, parts: Mapping[str, Any], at: Progress) -> None:
    states = {name: part.state_dict() for name, part in parts.items()}
    save(job.folder / STATE, {**asdict(at), "identity": _identity(job), "parts": states})
    write_atomic(job.folder / POINTER, STATE)
    job.sitting.saved()


def _resume(job: Job, parts: Mapping[str, Any]) -> Progress:
    path = job.folder / STATE
    if not path.is_file():
        return Progress()
    state = read_weights_file(path)
    if state.pop("identity", None) != _identity(job):
        raise InputError(f"{path} is of other weights, settings or seed; remove {job.folder} or choose another folder")
    try:
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        return Progress(**{key: value for key, value in state.items() if key != "parts"})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FileError(f"{path} is no checkpoint of this task; remove it to begin again") from error


def _identity(job: Job) -> dict[str, Any]:
    settings = job.settings.model_dump(mode="json", exclude={"chunk", "workers"})
    return {"weights": job.weights_sha256, "seed": job.seed, "settings": settings}
