"""Benchmarks: a task, its data and its fixed rules, under one name.

To add one, write ``transfer/benchmarks/NAME.py`` with a class named like the file (underscores removed) that extends
``Benchmark`` and sets ``protocol``, and the framework's own config that the protocol names. ``headline`` is the metric
of the report's first table; the others follow in the benchmark's own table.
"""

from abc import ABC
from typing import ClassVar, Self

from pydantic import Field, model_validator

from core.config import Settings
from core.errors import InputError


class Protocol(Settings):
    """The fixed rules of a benchmark; ``config`` is a path below the repository root, metrics are in percent."""

    title: str
    framework: str
    config: str
    train: str
    test: str
    metrics: tuple[str, ...] = Field(min_length=1)
    headline: str
    trials: int = Field(5, ge=1)

    @model_validator(mode="after")
    def _headline_is_measured(self) -> Self:
        if self.headline not in self.metrics:
            raise InputError(f"headline {self.headline!r} is none of the metrics {', '.join(self.metrics)}")
        return self


class Benchmark(ABC):
    """A benchmark says how a backbone is measured; a framework carries it out."""

    protocol: ClassVar[Protocol]


BOX = ("bbox/AP", "bbox/AP50", "bbox/AP75")
BOX_AND_MASK = (*BOX, "bbox/APs", "bbox/APm", "bbox/APl", "segm/AP", "segm/AP50", "segm/AP75")
SEGMENTATION = ("seg/mIoU", "seg/mAcc", "seg/aAcc")
_NEIGHBOURS = ("20", "200", "20-0.1", "200-0.1")  # k, and the temperature where it is not 0.07
KNN = tuple(f"knn{setting}/top{k}" for setting in _NEIGHBOURS for k in (1, 5))
