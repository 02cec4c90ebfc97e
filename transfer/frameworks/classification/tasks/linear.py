"""A linear classifier on the frozen backbone's features (arXiv 1603.08511, sec. 3.2; MoCo's recipe, arXiv 1911.05722)."""

from collections.abc import Iterator
from typing import Any, Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from core.errors import InputError
from transfer.frameworks.classification import features
from transfer.frameworks.classification.features import Frozen
from transfer.frameworks.classification.job import Job
from transfer.frameworks.classification.tasks import Task
from transfer.frameworks.classification.training import Batches, Training, fit, new_head
from transfer.frameworks.classification.views import CACHED, Augment, Views, batches, shuffled


class Linear(Task):
    """Metrics are ``linear/top1`` of the last epoch and ``linear/best_top1``."""

    class Config(Training):
        """``standardise`` scales each feature to mean 0 and variance 1 over the training images.

        It makes one learning rate fit backbones whose features differ in scale. It needs features that stay the same,
        that is ``augment`` ``none`` or ``flip_copies``; these are computed once.
        """

        name: Literal["linear"] = "linear"
        augment: Augment = "none"
        standardise: bool = False

        @model_validator(mode="after")
        def _fixed_features(self) -> Self:
            if self.standardise and self.augment not in CACHED:
                raise InputError(f"standardise needs fixed features; set augment to {' or '.join(CACHED)}")
            return self

    def __init__(self, config: "Linear.Config") -> None:
        self.config = config

    def recipe(self) -> dict[str, Any]:
        """Return the training's recipe."""
        return self.config.summary()

    def measure(self, job: Job) -> dict[str, float | None]:
        """Train the classifier; raise InputError when the backbone changed meanwhile."""
        frozen = Frozen(job.network)
        test = features.cached(job, job.data.test, "test")
        head = new_head(job.network.feature_dim, len(job.data.classes), job.seed).to(job.device)
        labels = job.data.test.labels.to(job.device)
        source: _Cached | _Fresh = _Fresh(job, self.config)
        if self.config.augment in CACHED:
            source = _Cached(job, self.config)
            test = source.scaled(test)

        def tested() -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                return head(test), labels

        parts = {"head": head, "optimizer": self.config.build([{"params": list(head.parameters())}])}
        metrics = fit(job, self.config, "linear", parts, lambda epoch, first: source.epoch(epoch, first, head), tested)
        frozen.check()
        return metrics


class _Cached:
    """Epochs over features that were made once."""

    def __init__(self, job: Job, config: Linear.Config) -> None:
        self.job, self.config = job, config
        train, labels = job.data.train, job.data.train.labels.to(job.device)
        mirrored = config.augment == "flip_copies"
        self.rows, self.labels = features.cached(job, train, "train", mirrored), labels.repeat(1 + mirrored)
        self.mean, self.std = self.rows.new_zeros(()), self.rows.new_ones(())
        if config.standardise:
            self.mean = self.rows.mean(dim=0)
            self.std = (self.rows.var(dim=0, correction=0) + 1e-5).sqrt()  # as batch norm does
        self.rows = self.scaled(self.rows)

    def scaled(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / self.std

    def epoch(self, epoch: int, first: int, head: nn.Module) -> Batches:
        order = shuffled(len(self.rows), self.job.seed, epoch).to(self.rows.device)
        for rows in order.split(self.config.batch)[first:]:
            yield head(self.rows[rows]), self.labels[rows]


class _Fresh:
    """Epochs over new random views, which the backbone sees in chunks."""

    def __init__(self, job: Job, config: Linear.Config) -> None:
        self.job, self.config = job, config

    def epoch(self, epoch: int, first: int, head: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        job, config = self.job, self.config
        views = Views(job.data.train, job.settings.views, config.augment, (job.seed, epoch))
        order = shuffled(len(views), job.seed, epoch).tolist()[first * config.batch :]
        for images, rows in batches(views, order, config.batch, job.settings.workers):
            found = [features.forward(job, part) for part in images.split(job.settings.chunk)]
            yield head(torch.cat(found)), job.data.train.labels[rows].to(job.device)
