"""Watch a run without touching it: online kNN on labelled images, and alarms for embeddings that collapse."""

from collections import deque
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as geometry

from core.config import Settings
from core.data import Images
from core.decoding import DamagedImage
from core.errors import InputError
from core.knn import weighted_knn
from core.plugins import build, choice
from pretrain.form import Form
from pretrain.views import ViewSettings

WINDOW = 10  # logged steps that an alarm averages over: one batch is noise


class MonitorSettings(Settings):
    """Nothing here changes what is learned.

    kNN every ``every`` epochs (0: never) of at most ``limit`` images of ``test`` among as many of ``train``, evenly picked.
    Alarms look at the mean of ten logged steps, after the share ``grace`` of the run, since random networks give nearly
    one vector to all images. ``embedding_std`` is 1 for vectors spread evenly over the sphere and 0 for a single one;
    ``effective_rank`` is 1 for a single direction; ``retrieval`` counts in multiples of chance. The limits come from ten
    runs on CIFAR-10 (ResNet-18 of width 16, batch 64, 936 steps): in the nine that learned, those means never fell below
    0.22, 3.2 and 2.3; in the one that did not, they reached 0.16, 1.9 and 1.0. ``accuracy`` (of a method that learns from
    labels) counts in multiples of chance too.
    """

    every: int = Field(0, ge=0)
    train: choice("core.data") | None = None
    test: choice("core.data") | None = None
    k: int = Field(20, ge=1)
    temperature: float = Field(0.07, gt=0)
    limit: int = Field(10000, ge=1)
    grace: float = Field(0.2, ge=0, le=1)
    embedding_std: float = Field(0.1, ge=0)
    effective_rank: float = Field(2.0, ge=0)
    retrieval: float = Field(2.0, ge=0)
    accuracy: float = Field(1.2, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> "MonitorSettings":
        if self.every and (self.train is None or self.test is None):
            raise ValueError("monitor.every needs monitor.train and monitor.test, two labelled data sources")
        return self


# ---- collapse ----


@torch.no_grad()
def embedding_std(embeddings: Float[Tensor, "rows dim"]) -> float:
    """Return the standard deviation over the rows of unit embeddings, averaged over dims, times sqrt(dim).

    It is 1 for vectors spread evenly over the sphere, 0 when all are the same (SimSiam, arXiv 2011.10566, sec. 4.1).
    """
    unit = F.normalize(embeddings.float(), dim=1)
    return (unit.std(dim=0, correction=0).mean() * unit.shape[1] ** 0.5).item()


@torch.no_grad()
def effective_rank(embeddings: Float[Tensor, "rows dim"]) -> float:
    """Return exp of the entropy of the normalised singular values (Roy and Vetterli, EUSIPCO 2007); 1 is one direction.

    They are the roots of the smaller Gram matrix's eigenvalues, on the CPU: a GPU's own decomposition is slow for so few rows.
    """
    unit = F.normalize(embeddings.cpu().double(), dim=1)
    gram = unit @ unit.T if unit.shape[0] <= unit.shape[1] else unit.T @ unit
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = values / values.sum()
    return torch.special.entr(share).sum().exp().item()


@torch.no_grad()
def retrieval(queries: Float[Tensor, "rows dim"], keys: Float[Tensor, "rows dim"]) -> float:
    """Return the share of queries whose own key is the most similar one of the batch; chance is 1 / rows."""
    similar = F.normalize(queries.float(), dim=1) @ F.normalize(keys.float(), dim=1).T
    return (similar.argmax(dim=1) == torch.arange(len(similar), device=similar.device)).float().mean().item()


def watch(embeddings: Float[Tensor, "rows dim"], keys: list[Tensor], labelled: bool = False) -> dict[str, float]:
    """Return the numbers that show a collapse; ``embeddings`` holds the queries of all directions, ``keys`` one part each.

    ``labelled`` queries are scores of classes and the keys labels: then the share of right answers is what shows it.
    """
    if labelled:
        return {"accuracy": (embeddings.argmax(dim=1) == torch.cat(keys).argmax(dim=1)).float().mean().item()}
    found = {"embedding_std": embedding_std(embeddings), "effective_rank": effective_rank(embeddings)}
    if embeddings.shape == (sum(map(len, keys)), keys[0].shape[1]):
        parts = embeddings.split([len(key) for key in keys])
        found["retrieval"] = sum(retrieval(q, k) for q, k in zip(parts, keys, strict=True)) / len(keys)
    return found


class Alarms:
    """Turns logged lines into warnings, each at most once a run; the same lines always give the same warnings."""

    def __init__(self, settings: MonitorSettings, steps: int, chances: int) -> None:
        """``chances`` is how many keys, or classes, a query is compared with: one in so many is right by chance."""
        self.first = settings.grace * steps
        self.warnings: list[str] = []
        self._windows: dict[str, deque[float]] = {}
        self._limits = {
            "embedding_std": (
                settings.embedding_std,
                "all images get nearly the same vector: the method has collapsed",
            ),
            "effective_rank": (settings.effective_rank, "the vectors lie along one line: the method has collapsed"),
            "retrieval": (
                settings.retrieval / chances,
                f"queries do not find their own key among the {chances} of the batch (chance is {1 / chances:.2g}), so a falling "
                "loss only tells this batch from other ones; lower optimizer.lr, use milder views or, for moco, set "
                "method.split_bn",
            ),
            "accuracy": (
                settings.accuracy / chances,
                f"the classifier is right hardly more often than chance ({1 / chances:.2g}); lower optimizer.lr, or look at the "
                "labels",
            ),
        }

    def see(self, line: Mapping[str, object]) -> list[str]:
        """Take one journal line; return the new warnings."""
        step, new = line["step"], []
        assert isinstance(step, int)
        for name, (limit, reason) in list(self._limits.items()):
            value = line.get(name)
            if step <= self.first or not isinstance(value, float):
                continue
            window = self._windows.setdefault(name, deque(maxlen=WINDOW))
            window.append(value)
            mean = sum(window) / len(window)
            if len(window) == WINDOW and mean < limit:
                new.append(f"{name} fell to {mean:.3g}, below {limit:.2g}, at step {step}: {reason}")
                del self._limits[name]
        self.warnings += new
        return new


# ---- online kNN ----


def centred(image: UInt8[Tensor, "3 height width"], size: int) -> UInt8[Tensor, "3 size size"]:
    """Cut the largest central square and resize it to ``size``."""
    part = geometry.center_crop(image, [min(image.shape[1:])] * 2)
    return part if part.shape[1] == size else geometry.resize(part, [size, size], antialias=True)


class _Labelled(Dataset):
    """Evenly picked images and labels; a damaged image is left out."""

    def __init__(self, images: Images, limit: int, size: int) -> None:
        count = min(limit, len(images))
        self.picked = [index * len(images) // count for index in range(count)]
        self.images, self.size = images, size

    def __len__(self) -> int:
        return len(self.picked)

    def __getitem__(self, number: int) -> tuple[Tensor, int] | None:
        index = self.picked[number]
        try:
            return centred(self.images.image(index), self.size), self.images.label(index)
        except DamagedImage:
            return None

    def classes(self) -> int:
        """Return the number of classes of all images."""
        return 1 + max(self.images.label(index) for index in range(len(self.images)))


def _stack(samples: list[tuple[Tensor, int] | None]) -> tuple[Tensor, Tensor]:
    kept = [sample for sample in samples if sample is not None]
    if not kept:
        return torch.empty(0), torch.empty(0, dtype=torch.long)
    return torch.stack([image for image, _ in kept]), torch.tensor([label for _, label in kept])


class OnlineKnn:
    """kNN accuracy of a backbone's features on two labelled sets.

    Raises InputError for sets without labels, with different classes, or with fewer images than ``k``.
    """

    def __init__(self, settings: MonitorSettings, views: ViewSettings, workers: int) -> None:
        self.settings, self.views, self.workers = settings, views, workers
        sources = [build("core.data", part) for part in (settings.train, settings.test)]
        self.train, self.test = (_Labelled(images, settings.limit, views.size) for images in sources)
        self.classes, test_classes = self.train.classes(), self.test.classes()
        for name, classes in (("train", self.classes), ("test", test_classes)):
            if classes < 2:
                raise InputError(f"monitor.{name} knows no labels; choose a data source with one folder a class")
        if self.classes != test_classes:
            raise InputError(
                f"monitor.train has {self.classes} classes and monitor.test {test_classes}; choose two alike"
            )
        if len(self.train) < settings.k:
            raise InputError(f"monitor.k={settings.k} is more than the {len(self.train)} training images; lower it")

    @torch.no_grad()
    def top1(self, backbone: nn.Module, device: torch.device, form: Form) -> float:
        """Return the accuracy in percent; ``backbone`` is in eval mode. Torch's generators stay as they are."""
        assert not backbone.training
        with torch.random.fork_rng(devices=[]):  # a data loader draws a seed for its workers
            train, train_labels = self._features(self.train, backbone, device, form)
            test, test_labels = self._features(self.test, backbone, device, form)
        k = min(self.settings.k, len(train))  # damaged images are left out
        predicted = weighted_knn(train, train_labels, test, self.classes, k, self.settings.temperature)
        return 100 * (predicted == test_labels).float().mean().item()

    def _features(
        self, images: _Labelled, backbone: nn.Module, device: torch.device, form: Form
    ) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (self.views.mean, self.views.std))
        features, labels = [], []
        for pixels, names in DataLoader(
            images,
            128,
            num_workers=self.workers,
            collate_fn=_stack,
            multiprocessing_context="fork" if self.workers else None,
        ):
            if len(names):
                batch = ((pixels.to(device).float() / 255 - mean) / std).contiguous(memory_format=form.memory_format)
                with form.autocast(device):
                    features.append(backbone(batch).float())
                labels.append(names.to(device))
        return torch.cat(features), torch.cat(labels)
