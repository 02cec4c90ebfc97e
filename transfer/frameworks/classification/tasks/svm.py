"""Linear SVMs on the frozen backbone's features, one a class against the rest: VISSL's VOC07 protocol (arXiv 1905.01235, sec. 6).

The facts are those of VISSL's release: 2 x 2 averages of the last stage, divided by their norm + 1e-5; liblinear's squared hinge,
twice the cost for positives; of each class the cost that is best in three-fold cross-validation on the training images;
precision's envelope integrated over recall. Low-shot: k positives and (classes - 1) k negatives of each class, independent
samples, and for each k the one cost whose mean AP over classes and samples is best on the test images.
"""

import itertools
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from core.config import PluginSettings
from core.errors import InputError
from core.meter import track
from core.provenance import derive
from transfer.frameworks.classification import features
from transfer.frameworks.classification.features import Frozen
from transfer.frameworks.classification.job import Job
from transfer.frameworks.classification.tasks import Task

Rows = NDArray[np.float64]  # [images, features]
R = TypeVar("R")
Labels = NDArray[np.int64]  # [images, classes]: 1 there, -1 not, 0 to be ignored


class Svm(Task):
    """``svm/mAP`` of all training images, or ``lowshotK/mAP`` of K a class; ``mAP11`` is the mean of VOC2007's 11-point AP.

    Images of one class each are taken as well: that class is there, and no other.
    """

    several = True

    class Config(PluginSettings):
        """Every cost of ``costs`` is tried; ``shots`` are the images of a class (none: all), each drawn ``samples`` times.

        ``cells`` x ``cells`` averages of the last stage are an image's features.
        """

        name: Literal["svm"] = "svm"
        costs: tuple[float, ...] = Field(
            (0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1000.0), min_length=1
        )
        cells: int = Field(2, ge=1)
        folds: int = Field(3, ge=2)
        iterations: int = Field(2000, ge=1, description="liblinear's, at most")
        shots: tuple[int, ...] = ()
        samples: int = Field(5, ge=1)

    def __init__(self, config: "Svm.Config") -> None:
        self.config = config

    def recipe(self) -> dict[str, Any]:
        """Return the settings."""
        values = self.config.model_dump(mode="json", exclude={"name"})
        unused = ("folds",) if self.config.shots else ("shots", "samples")
        return {key: value for key, value in values.items() if key not in unused}

    def measure(self, job: Job) -> dict[str, float | None]:
        """Train and test on fixed features; a run that was ended begins again from these."""
        frozen = Frozen(job.network)
        train, test = (
            normalised(features.cached(job, split, label, cells=self.config.cells).cpu().numpy())
            for label, split in (("train", job.data.train), ("test", job.data.test))
        )
        frozen.check()
        truth = [one_against_rest(split.labels, len(job.data.classes)) for split in (job.data.train, job.data.test)]
        for (split, side), value in itertools.product(zip(("training", "test"), truth, strict=True), (1, -1)):
            if not (there := (side == value).any(axis=0)).all():
                name, lacks = job.data.classes[there.argmin()], "has" if value == 1 else "lacks"
                raise InputError(f"no {split} image {lacks} a {name} that counts; take the class out of the data")
        job.sitting.at_once = True
        with warnings.catch_warnings():
            from sklearn.exceptions import ConvergenceWarning  # here: it loads for seconds

            warnings.simplefilter("ignore", ConvergenceWarning)  # large costs do not converge, in VISSL either
            measured = self._few if self.config.shots else self._all
            return measured(job, train, test, *truth)

    def _svm(self, seed: int, cost: float) -> Any:
        from sklearn.svm import LinearSVC

        return LinearSVC(C=cost, class_weight={1: 2, -1: 1}, max_iter=self.config.iterations, random_state=seed % 2**32)

    def _all(self, job: Job, train: Rows, test: Rows, labels: Labels, truth: Labels) -> dict[str, float | None]:
        """Choose each class's cost by cross-validation, in which what is to be ignored is a negative, as in VISSL."""
        from sklearn.model_selection import cross_val_score

        config, wanted = self.config, np.where(labels == 1, 1, -1)
        for name, here in zip(job.data.classes, wanted.T, strict=True):
            if min((here == 1).sum(), (here == -1).sum()) < config.folds:
                raise InputError(
                    f"fewer than {config.folds} training images with or without a {name}; lower task.folds"
                )

        def validate(place: tuple[int, float]) -> float:
            number, cost = place
            svm = self._svm(derive(job.seed, "svm", number), cost)
            return float(
                cross_val_score(svm, train, wanted[:, number], cv=config.folds, scoring="average_precision").mean()
            )

        def score(place: tuple[int, float]) -> tuple[float, float]:
            number, cost = place
            svm = self._svm(derive(job.seed, "svm", number), cost).fit(train, wanted[:, number])
            return precision(svm.decision_function(test), truth[:, number])

        numbers = range(len(job.data.classes))
        validated = _each(validate, [*itertools.product(numbers, config.costs)], "cross-validation")
        best = np.reshape(validated, (len(numbers), -1)).argmax(axis=1)
        found = _each(score, [(number, config.costs[best[number]]) for number in numbers], "svm")
        of_classes = {f"svm/AP-{name}": 100 * ap for name, (ap, _) in zip(job.data.classes, found, strict=True)}
        area, eleven = (100 * float(np.mean(values)) for values in zip(*found, strict=True))
        return {"svm/mAP": area, "svm/mAP11": eleven, **of_classes}

    def _few(self, job: Job, train: Rows, test: Rows, labels: Labels, truth: Labels) -> dict[str, float | None]:
        """Draw, train and test for each number of shots, sample, class and cost."""
        config, numbers = self.config, range(labels.shape[1])
        for k in config.shots:
            few = ((labels == 1).sum(axis=0) < k) | ((labels == -1).sum(axis=0) < k * (len(numbers) - 1))
            if few.any():
                name = job.data.classes[few.argmax()]
                print(f"{name} has fewer images than {k} shots need: all are taken", file=sys.stderr)

        def score(place: tuple[int, int, int, float]) -> tuple[float, float]:
            k, sample, number, cost = place
            rows = drawn(labels[:, number], k, len(numbers), derive(job.seed, "shots", k, sample, number))
            svm = self._svm(derive(job.seed, "svm", number), cost).fit(train[rows], labels[rows, number])
            return precision(svm.decision_function(test), truth[:, number])

        places = [*itertools.product(config.shots, range(config.samples), numbers, config.costs)]
        found = np.reshape(_each(score, places, "low-shot"), (len(config.shots), config.samples, len(numbers), -1, 2))
        metrics: dict[str, float | None] = {}
        for k, of_k in zip(config.shots, 100 * found.mean(axis=2), strict=True):  # [samples, costs, 2]
            best = int(of_k[..., 0].mean(axis=0).argmax())
            area, eleven = of_k.mean(axis=0)[best].tolist()
            spread = float(of_k[:, best, 0].std())
            metrics |= {f"lowshot{k}/mAP": area, f"lowshot{k}/mAP11": eleven, f"lowshot{k}/std": spread}
        return metrics


def normalised(rows: NDArray[np.float32]) -> Rows:
    """Divide each image's features by their norm."""
    values = rows.astype(np.float64)
    return np.asarray(values / (np.linalg.norm(values, axis=1, keepdims=True) + 1e-5))


def one_against_rest(labels: Tensor, classes: int) -> Labels:
    """Return labels of several classes [images, classes] as they are, and class numbers [images] in that form."""
    if labels.ndim == 1:
        labels = 2 * torch.nn.functional.one_hot(labels, classes) - 1
    return np.asarray(labels.numpy(), dtype=np.int64)


def drawn(labels: Labels, k: int, classes: int, seed: int) -> NDArray[np.int64]:
    """Return the sorted rows of ``k`` positives and ``(classes - 1) k`` negatives, or of all where there are fewer."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for value, count in ((1, k), (-1, k * (classes - 1))):
        there = np.flatnonzero(labels == value)
        rows.append(there[torch.randperm(len(there), generator=generator).numpy()[:count]])
    return np.sort(np.concatenate(rows))


def precision(scores: NDArray[np.float64], truth: Labels) -> tuple[float, float]:
    """Return one class's average precision in [0, 1]: the area below precision's envelope, and VOC2007's mean at 11 recalls.

    Images to be ignored (0) are left out; of equal scores the image that comes first is taken first.
    """
    scores, truth = scores[truth != 0], truth[truth != 0]
    hits = truth[np.argsort(-scores, kind="stable")] == 1
    found = np.cumsum(hits)
    recall, exact = found / found[-1], found / np.arange(1, len(hits) + 1)
    envelope = np.append(np.maximum.accumulate(exact[::-1])[::-1], 0.0)  # 0 beyond the last recall
    area = float((envelope[:-1] * np.diff(recall, prepend=0.0)).sum())
    eleven = float(np.mean(envelope[np.searchsorted(recall, np.arange(11) / 10 - 1e-9)]))
    return area, eleven


def _each(work: Callable[[Any], R], places: Sequence[Any], label: str) -> list[R]:
    """Do the work of every place in as many threads as torch has, and show how far it is; liblinear lets go of Python's lock."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(track(pool.map(work, places), label, len(places)))
