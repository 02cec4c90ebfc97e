"""Weighted k-nearest-neighbour classification of frozen features (arXiv 1805.01978, sec. 3.4): nothing is trained."""

from typing import Any, Literal

from pydantic import Field

from core.config import PluginSettings
from core.errors import InputError
from core.knn import weighted_votes
from transfer.frameworks.classification import features
from transfer.frameworks.classification.features import Frozen
from transfer.frameworks.classification.job import Job
from transfer.frameworks.classification.tasks import Task
from transfer.frameworks.classification.training import accuracies

SIMILARITIES = 2**27  # numbers at a time: 512 MiB


class Knn(Task):
    """Metrics are ``knnK/top1`` at the first temperature and ``knnK-T/top1`` at the others."""

    class Config(PluginSettings):
        """Every ``neighbours`` with every one of ``temperatures``."""

        name: Literal["knn"] = "knn"
        neighbours: tuple[int, ...] = Field((20, 200), min_length=1)
        temperatures: tuple[float, ...] = Field((0.07, 0.1), min_length=1)

    def __init__(self, config: "Knn.Config") -> None:
        self.config = config

    def recipe(self) -> dict[str, Any]:
        """Return neighbours and temperatures."""
        return {"neighbours": list(self.config.neighbours), "temperatures": list(self.config.temperatures)}

    def measure(self, job: Job) -> dict[str, float | None]:
        """Compare test features with training features."""
        data, frozen = job.data, Frozen(job.network)
        if (most := max(self.config.neighbours)) > len(data.train):
            raise InputError(f"task.neighbours asks for {most} of {len(data.train)} training images; ask for fewer")
        train, test = features.cached(job, data.train, "train"), features.cached(job, data.test, "test")
        frozen.check()
        labels, wanted = data.train.labels.to(job.device), data.test.labels.to(job.device)
        chunk = max(1, min(1024, SIMILARITIES // len(train)))
        metrics: dict[str, float | None] = {}
        for temperature in self.config.temperatures:
            end = "" if temperature == self.config.temperatures[0] else f"-{temperature:g}"
            for k in self.config.neighbours:
                votes = weighted_votes(train, labels, test, len(data.classes), k, temperature, chunk)
                metrics |= accuracies(votes, wanted, f"knn{k}{end}")
        return metrics
