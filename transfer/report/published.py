"""Published numbers, each with its source; a report keeps them in their own column, beside the same protocol only."""

import functools
from pathlib import Path
from typing import Self

import yaml
from pydantic import Field, TypeAdapter, model_validator

from core.config import Settings
from core.errors import InputError

FILE = Path(__file__).parent / "published.yaml"


class Row(Settings):
    """One published pre-training; ``method`` and ``branches`` say which of ours it is, empty for none of them."""

    name: str
    method: str = ""
    branches: tuple[str, ...] = ()
    data: str = ""
    epochs: int | None = None
    values: tuple[float, ...]
    source: str = Field(min_length=1)

    @property
    def origin(self) -> str:
        """Return pre-training data, epochs and source, as far as known."""
        epochs = f"{self.epochs} epochs" if self.epochs is not None else ""
        return ", ".join(filter(None, (self.data, epochs, self.source)))


class Group(Settings):
    """Rows of one protocol; only ``comparable`` ones followed the benchmark's own.

    ``elsewhere`` names benchmarks of the same data under other rules, where the rows are shown as not comparable.
    """

    benchmark: str
    elsewhere: tuple[str, ...] = ()
    note: str = ""
    comparable: bool
    protocol: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]

    @model_validator(mode="after")
    def _every_value_has_a_metric(self) -> Self:
        for row in self.rows:
            if len(row.values) != len(self.metrics):
                raise InputError(f"{row.name} has {len(row.values)} values for {len(self.metrics)} metrics")
        return self

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
    return sorted([*own, *others], key=lambda group: not group.comparable)


def matching(benchmark: str, method: str, branches: tuple[str, ...], metric: str) -> list[tuple[float, Row]]:
    """Return the published values of the same protocol, method and branches."""
    found = []
    for group in of(benchmark):
        for row in group.rows if group.comparable and method else ():
            value = group.value(row, metric)
            if value is not None and row.method == method and set(row.branches) == set(branches):
                found.append((value, row))
    return found
