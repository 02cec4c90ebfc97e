"""The whole network with a new classifier, trained on all labels or on a part of them (``subset``)."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from transfer.frameworks.classification.job import Job
from transfer.frameworks.classification.tasks import Task
from transfer.frameworks.classification.training import Batches, Training, fit, new_head
from transfer.frameworks.classification.views import Augment, Views, batches, shuffled


class Finetune(Task):
    """Metrics are ``finetune/top1`` of the last epoch and ``finetune/best_top1``."""

    class Config(Training):
        """``lr`` is the backbone's and ``head_lr`` the classifier's, both for a batch of 256.

        The test images are shown after every ``test_every`` epochs and after the last.
        """

        name: Literal["finetune"] = "finetune"
        head_lr: float = Field(gt=0)
        augment: Literal["none", "pad_flip", "crop_flip"] = "crop_flip"
        test_every: int = Field(1, ge=1)

    def __init__(self, config: "Finetune.Config") -> None:
        self.config = config

    def recipe(self) -> dict[str, Any]:
        """Return the training's recipe."""
        return self.config.summary() | {"head_lr": self.config.scaled(self.config.head_lr)}

    def measure(self, job: Job) -> dict[str, float | None]:
        """Train backbone and classifier; normalisation layers learn and keep new statistics."""
        config, network = self.config, job.network
        head = new_head(network.feature_dim, len(job.data.classes), job.seed).to(job.device)
        groups: list[dict[str, Any]] = [
            {"params": list(network.parameters())},
            {"params": list(head.parameters()), "peak": config.head_lr},
        ]
        parts = {"network": network, "head": head, "optimizer": config.build(groups)}
        if job.settings.amp == "float16":
            parts["scaler"] = torch.amp.GradScaler(job.device.type)
        augment: Augment = config.augment

        def epoch_of(epoch: int, first: int) -> Batches:
            network.train()
            views = Views(job.data.train, job.settings.views, augment, (job.seed, epoch))
            order = shuffled(len(views), job.seed, epoch).tolist()[first * config.batch :]
            for images, rows in batches(views, order, config.batch, job.settings.workers):
                with job.autocast():
                    logits = head(network(job.normalised(images)))
                yield logits, job.data.train.labels[rows].to(job.device)

        def test() -> tuple[Tensor, Tensor]:
            network.eval()
            views, found = Views(job.data.test, job.settings.views), []
            with torch.no_grad(), job.autocast():
                for images, _ in batches(views, range(len(views)), job.settings.chunk, job.settings.workers):
                    found.append(head(network(job.normalised(images))).float().cpu())
            return torch.cat(found), job.data.test.labels

        return fit(job, config, "finetune", parts, epoch_of, test, config.test_every)
