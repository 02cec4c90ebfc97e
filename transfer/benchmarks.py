"""Benchmarks: a task, its data and its fixed rules, under one name; each is a row of a YAML file.

The shipped rows are in ``configs/benchmarks/*.yaml``. A file of the same form may lie anywhere: ``FILE.yaml:NAME`` names a row
of it, and its paths are relative to it. ``_defaults`` of a file fills in what its rows leave out. To add a benchmark, write
a row and the framework's own config that it names (docs/add-a-benchmark.md).
"""

import functools
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from core import config
from core.config import Settings
from core.errors import InputError, nearest
from core.provenance import ROOT

FOLDER = ROOT / "configs" / "benchmarks"
DEFAULTS = "_defaults"


class Benchmark(Settings):
    """How a backbone is measured; metrics are in percent, ``headline`` is that of the report's first table.

    ``about`` says in a sentence what is measured, with its source, and ``note`` what it must not be mixed up with. ``config``
    is a config of ``framework``, in the row relative to its file; here below the repository's root, or absolute. ``train`` and
    ``test`` name the data, ``trials`` is how often the field repeats it. ``sets`` are the
    folders of the data below DETECTRON2_DATASETS. ``devices`` is how many the published run used and
    ``hours`` the hours of one of them that it took, for estimates only. ``data`` is a folder of the user's own that takes the
    place of the config's data, in the row relative to its file (docs/your-data.md).
    """

    title: str
    about: str = ""
    note: str = ""
    framework: str
    config: str
    train: str
    test: str
    metrics: tuple[str, ...] = Field(min_length=1)
    headline: str
    trials: int = Field(5, ge=1)
    sets: tuple[str, ...] = ()
    devices: int = Field(1, ge=1)
    hours: float | None = Field(None, gt=0)
    data: Path | None = None
    written: str = Field("", description="the config as the row has it: its place on this machine is no rule")

    @model_validator(mode="after")
    def _headline_is_measured(self) -> Self:
        if self.headline not in self.metrics:
            raise InputError(f"headline {self.headline!r} is none of the metrics {', '.join(self.metrics)}")
        return self

    @property
    def config_file(self) -> Path:
        """Return where the config is."""
        return ROOT / self.config

    def rules(self) -> dict[str, Any]:
        """Return what the numbers depend on besides the config's text, as plain values in a fixed order."""
        values = self.model_dump(mode="json", include={"framework", "train", "test", "metrics", "headline"})
        shipped = not Path(self.config).is_absolute()
        values["config"] = self.config if shipped else self.written
        return {key: values[key] for key in ("framework", "config", "train", "test", "metrics", "headline")}


def find(name: str) -> Benchmark:
    """Return the benchmark of a name, shipped or ``FILE.yaml:NAME``; raise InputError with the nearest ones."""
    file, colon, row = name.rpartition(":")
    rows = read(Path(file)) if colon else shipped()
    if row not in rows:
        raise InputError(
            f"no benchmark {row!r} in {file or FOLDER}; {nearest(row, rows, '' if colon else 'benchmarks')}"
        )
    return rows[row]


@functools.cache
def shipped() -> dict[str, Benchmark]:
    """Return the rows of ``configs/benchmarks`` by name."""
    found: dict[str, Benchmark] = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        rows = read(file)
        if twice := rows.keys() & found.keys():
            raise InputError(f"{file} names {', '.join(sorted(twice))}, which another file has too; rename it")
        found |= rows
    return dict(sorted(found.items()))


def read(file: Path) -> dict[str, Benchmark]:
    """Read one file of rows; raise InputError that names the file, the row and the key."""
    rows = config.load(file)
    defaults = rows.pop(DEFAULTS, None) or {}
    if not isinstance(defaults, dict):
        raise InputError(f"{file}: {DEFAULTS} is {defaults!r}; give it the keys of a row")
    found = {}
    for name, row in rows.items():
        if not isinstance(row, dict):
            raise InputError(f"{file}: {name} is {row!r}; a benchmark is a mapping with title, framework, config, ...")
        values = {**defaults, **row}
        written = str(values.get("config", ""))
        place = (file.resolve().parent / written).resolve()
        values["config"] = place.relative_to(ROOT).as_posix() if place.is_relative_to(ROOT) else str(place)
        if values.get("data"):
            values["data"] = str(file.resolve().parent / Path(str(values["data"])).expanduser())
        found[name] = config.parse(Benchmark, {**values, "written": written}, f"{file}: {name}")
    return found
