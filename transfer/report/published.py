"""Published numbers, each with its source; a report keeps them in their own column, beside the same protocol only."""

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, TypeAdapter, model_validator

from core.config import Settings
from core.errors import InputError

FILE = Path(__file__).parent / "published.yaml"
IMAGES = {"ImageNet-1K": 1_281_167, "ImageNet-100": 126_689, "CIFAR-10": 50_000, "CIFAR-100": 50_000}  # to train on


class Row(Settings):
    """One published pre-training; ``method`` and ``branches`` say which of ours it is, empty for none of them."""

    name: str
    method: str = ""
    branches: tuple[str, ...] = ()
    data: str = ""
    epochs: int | None = None
    settings: dict[str, dict[str, Any]] = Field(
        {}
    )  # of its branches, as far as they tell it from others of the same name
    values: tuple[float | None, ...]
    source: str = Field(min_length=1)

    @property
    def origin(self) -> str:
        """Return pre-training data, epochs and source, as far as known."""
        epochs = f"{self.epochs} epochs" if self.epochs is not None else ""
        return ", ".join(filter(None, (self.data, epochs, self.source)))

    def admits(self, pretrain: Mapping[str, Any], name: str) -> bool:
        """Tell whether what is known of a checkpoint's data, epochs and branches agrees; ``name`` may say ``800 ep``."""
        said = re.search(r"\b(\d+)[ -]?ep(?:ochs?)?\b", name)
        epochs = _positive(pretrain.get("epochs")) or (float(said[1]) if said else None)
        if self.epochs and epochs and epochs != self.epochs:
            return False
        steps, batch = _positive(pretrain.get("steps")), _positive(pretrain.get("batch_size"))
        wanted = IMAGES.get(self.data)
        if wanted and epochs and steps and batch and abs(steps * batch / epochs / wanted - 1) > 0.05:
            return False
        ours = pretrain.get("branch_settings")
        every = ours.values() if isinstance(ours, dict) else ()
        known = {b["name"]: b for b in every if isinstance(b, dict) and isinstance(b.get("name"), str)}
        return all(_within(wanted, known[name]) for name, wanted in self.settings.items() if name in known)


def _positive(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def _within(wanted: Any, given: Any) -> bool:
    """Tell whether a nested setting says at least what is wanted."""
    if isinstance(wanted, dict):
        return isinstance(given, dict) and all(_within(value, given.get(key)) for key, value in wanted.items())
    return bool(wanted == given)


class Group(Settings):
    """Rows of one protocol; only ``comparable`` ones followed the benchmark's own, with rates that were searched if ``swept``.

    ``elsewhere`` names benchmarks of the same data under other rules, where the rows are shown as not comparable.
    """

    benchmark: str
    elsewhere: tuple[str, ...] = ()
    note: str = ""
    comparable: bool
    swept: bool = False
    protocol: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]

    @model_validator(mode="after")
    def _every_value_has_a_metric(self) -> Self:
        for row in self.rows:
            if len(row.values) != len(self.metrics):
                raise InputError(f"{row.name} has {len(row.values)} values for {len(self.metrics)} metrics")
        return self

    @property
    def kind(self) -> str:
        """Say whether its numbers compare with measured ones of the benchmark."""
        if not self.comparable:
            return "published, other protocol"
        return "published, learning rate searched" if self.swept else "published"

    def value(self, row: Row, metric: str) -> float | None:
        """Return a row's value of a metric, None when it was not published."""
        return row.values[self.metrics.index(metric)] if metric in self.metrics else None


@functools.cache
def groups() -> tuple[Group, ...]:
    """Read the data file."""
    return TypeAdapter(tuple[Group, ...]).validate_python(yaml.safe_load(FILE.read_text()))


def of(benchmark: str) -> list[Group]:
    """Return the published groups of a benchmark, comparable ones first."""
    own = [group for group in groups() if group.benchmark == benchmark]
    others = [g.model_copy(update={"comparable": False}) for g in groups() if benchmark in g.elsewhere]
    return sorted([*own, *others], key=lambda group: (not group.comparable, group.swept))


def matching(
    benchmark: str,
    method: str,
    branches: tuple[str, ...],
    metric: str,
    pretrain: Mapping[str, Any] | None = None,
    name: str = "",
    swept: bool = False,
) -> list[tuple[float, Row]]:
    """Return the published values of the same protocol, method and branches, and of the same data and epochs if known."""
    found = []
    for group in of(benchmark):
        for row in group.rows if group.comparable and group.swept == swept and method else ():
            value = group.value(row, metric)
            same = row.method == method and set(row.branches) == set(branches)
            if value is not None and same and row.admits(pretrain or {}, name):
                found.append((value, row))
    return found
