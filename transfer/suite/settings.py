"""A suite file: which checkpoints, benchmarks and trials, and how to carry them out; all its problems are named at once.

What follows from it, item by item, is in ``transfer.suite.items``; docs/suites.md explains every setting.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from core import config, plugins, remote
from core.config import Settings
from core.errors import InputError
from core.provenance import ROOT
from transfer import benchmarks
from transfer.benchmarks import Benchmark
from transfer.frameworks import Departure, protocol_hash


def _label(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", text):
        raise InputError(f"label {text!r} becomes a folder's name; use letters, digits and . _ + -")
    return text


def _shipped(path: Path) -> Path:
    """Find a config from where we are, else from the project's folder."""
    path = path if path.is_file() or path.is_absolute() else ROOT / path
    if not path.is_file():
        raise InputError(f"no file at {path}; check the path")
    return path


def _random(values: dict[str, Any]) -> dict[str, Any]:
    settings = plugins.find("core.backbones", str(values.get("name", "resnet"))).Config
    config.parse(settings, values, "backbone")
    return values


Label = Annotated[str, AfterValidator(_label)]
ConfigFile = Annotated[Path, AfterValidator(_shipped)]
Devices = Annotated[int, Field(ge=1)] | Literal["auto"]


class Pretrain(Settings):
    """A pre-training run still to be made: a config of ``pretrain/run.py`` and ``key=value`` overrides.

    ``repeat`` makes one run a trial, with the trial's number as ``run.seed``, so that the spread of a cell holds that of
    pre-training; without it all trials measure the same backbone. ``devices``: those of the suite, unless given.
    """

    config: ConfigFile
    overrides: tuple[str, ...] = ()
    repeat: bool = False
    devices: Devices | None = None

    @model_validator(mode="after")
    def _readable(self) -> Self:
        config.load(self.config, self.overrides)
        set_here = {override.partition("=")[0] for override in self.overrides}
        if self.repeat and "run.seed" in set_here:
            raise InputError("repeat=true sets run.seed to the number of the trial; remove run.seed from overrides")
        if "run.folder" in set_here:
            raise InputError("the suite sets run.folder; remove it from overrides")
        return self

    @property
    def published_devices(self) -> int:
        """Return how many devices the config's name says, as in ``8xb32``; 1 where it says nothing."""
        found = re.search(r"_(\d+)xb\d+", self.config.stem)
        return int(found[1]) if found else 1

    def of_trial(self, trial: int) -> "Pretrain":
        """Return the run that a trial measures."""
        if not self.repeat:
            return self
        return self.model_copy(update={"overrides": (*self.overrides, f"run.seed={trial}")})


class RandomInit(Settings):
    """A randomly initialised backbone: the settings of ``core.backbones`` and a seed.

    ``repeat`` draws one backbone a trial: trial t measures the one of ``seed + t``.
    """

    backbone: Annotated[dict[str, Any], AfterValidator(_random)]
    seed: int = Field(0, ge=0)
    repeat: bool = False

    def of_trial(self, trial: int) -> "RandomInit":
        """Return the backbone that a trial measures."""
        return self.model_copy(update={"seed": self.seed + trial}) if self.repeat else self


class Entry(Settings):
    """One checkpoint to compare: exactly one of ``path``, ``pretrain`` and ``random``, and how reports call it.

    ``source`` names the dialect of a ``path`` that could be of several. Whether there is a file is asked with all else that a run
    needs of the machine (``transfer.suite.check``).
    """

    name: str = ""
    method: str = ""
    branches: tuple[str, ...] = ()
    notes: str = ""
    source: str = "auto"
    path: Annotated[Path, AfterValidator(remote.local)] | None = None
    pretrain: Pretrain | None = None
    random: RandomInit | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(origin is not None for origin in (self.path, self.pretrain, self.random)) != 1:
            raise InputError("give exactly one of path, pretrain and random")
        return self


class Measure(Settings):
    """A benchmark of the suite: ``name`` is its row if its label is not, ``file`` a YAML file of rows of one's own.

    ``options`` go to the framework; ``devices``: those of the suite, unless given; ``images_per_device`` and ``scaling`` as
    ``transfer.frameworks.Departure`` has them. ``data`` is a folder of the user's own in place of the benchmark's data, of which
    ``skip_bad`` leaves out what cannot be used.
    """

    name: str
    file: ConfigFile | None = None
    trials: int | None = Field(None, ge=1)
    options: tuple[str, ...] = ()
    devices: Devices | None = None
    images_per_device: int = Field(0, ge=0)
    scaling: Literal["batch", "linear"] = "batch"
    data: Path | None = None
    skip_bad: bool = False

    @model_validator(mode="after")
    def _readable(self) -> Self:
        protocol_hash(self.benchmark)  # also reads the config files
        if (data := self.data or self.benchmark.data) and not data.expanduser().is_dir():
            raise ValueError(f"no folder {data} with images and annotations; correct data:")
        return self

    @property
    def place(self) -> str:
        """Return what ``transfer.benchmarks.find`` takes."""
        return f"{self.file}:{self.name}" if self.file else self.name

    @property
    def benchmark(self) -> Benchmark:
        """Return the row."""
        return benchmarks.find(self.place)

    def departure(self, tiny: str = "") -> Departure:
        """Return how its trials depart from the protocol; the row may hold data as well."""
        return Departure(
            data=str(self.data or self.benchmark.data or ""),
            skip_bad=self.skip_bad,
            tiny=tiny,
            images_per_device=self.images_per_device,
            scaling=self.scaling,
        )


def _named_by_label(values: Any) -> Any:
    """Let a list of benchmark names stand for a mapping, and a label for the plug-in's name."""
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        values = dict.fromkeys(values)
    if not isinstance(values, dict):
        return values
    known = {label: {} if value is None else value for label, value in values.items()}
    return {label: {"name": label} | value if isinstance(value, dict) else value for label, value in known.items()}


def _local_by_default(value: Any) -> Any:
    return {"name": "local"} | value if isinstance(value, dict) else value


class Suite(Settings):
    """What to compare, on what, how often; ``baseline`` is the label that the others are compared with."""

    name: Label
    checkpoints: dict[Label, Entry] = Field(min_length=1)
    benchmarks: Annotated[dict[Label, Measure], BeforeValidator(_named_by_label)] = Field(min_length=1)
    trials: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        None, description="None: as many as each benchmark's protocol says; auto: until a comparison is decided"
    )
    budget: int = Field(20, ge=2, description="most trials of a cell with trials: auto")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, min_length=1, description="numbers of the trials, each of which sets a trial's seeds; None: from 0"
    )
    baseline: str | None = None
    devices: Devices = Field("auto", description="of one item; auto: as many as published, if there are that many")
    results: Path | None = Field(None, description="None: results/NAME")
    threads: int | None = Field(None, ge=1, description="per process; None: all cores, unless the environment says")
    launcher: Annotated[plugins.choice("transfer.suite.launchers"), BeforeValidator(_local_by_default)] = Field(
        default_factory=dict, validate_default=True
    )
    tiny: str = Field("", description="try every item in a few iterations: shapes, or a folder in COCO or VOC layout")
    retries: int = Field(0, ge=0, description="how often a failed item is tried again before the suite goes on without")
    memory_gib: float | None = Field(None, gt=0, description="an item that uses more is ended; None: no cap")

    @model_validator(mode="wrap")
    @classmethod
    def _all_problems_at_once(cls, values: Any, handler: Callable[[Any], Self]) -> Self:
        contradictions = _contradictions(values) if isinstance(values, dict) else ()
        problems = [_problem((place,), "value_error", message, None) for place, message in contradictions]
        try:
            suite = handler(values)
        except ValidationError as error:
            own = [_problem(found["loc"], found["type"], found["msg"], found["input"]) for found in error.errors()]
            raise ValidationError.from_exception_data(cls.__name__, [*own, *problems]) from error
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems)
        return suite

    @property
    def folder(self) -> Path:
        """Return the results folder."""
        return self.results or Path("results") / self.name

    def shown(self, label: str) -> str:
        """Return what reports call a checkpoint."""
        return self.checkpoints[label].name or label

    def numbers(self, benchmark: str) -> tuple[int, ...]:
        """Return the numbers of a benchmark's trials."""
        measure = self.benchmarks[benchmark]
        if self.seeds is not None:
            return self.seeds[: measure.trials]
        if self.trials == "auto":
            return tuple(range(self.budget))
        return tuple(range(measure.trials or self.trials or measure.benchmark.trials))

    @property
    def looks(self) -> tuple[int, ...]:
        """Return the numbers of trials at which ``trials: auto`` tests; none without it."""
        from transfer.report import statistics  # here: it imports SciPy

        return statistics.looks(self.budget) if self.trials == "auto" else ()


def _problem(place: tuple[int | str, ...], kind: str, message: str, value: Any) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError(kind, "{message}", {"message": message}), loc=place, input=value)


def _contradictions(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Find settings that do not go together, in values of which each may be wrong by itself too."""
    checkpoints = _mapping(values.get("checkpoints"))
    baseline, trials, seeds = values.get("baseline"), values.get("trials"), values.get("seeds")
    if baseline is not None and checkpoints and baseline not in checkpoints:
        yield "baseline", f"{baseline!r} is none of the checkpoints {', '.join(map(str, checkpoints))}"
    if trials == "auto" and (baseline is None or seeds is not None):
        yield "trials", "auto compares with a baseline, and counts its trials itself; name a baseline, and no seeds"
    names = [str(_mapping(entry).get("name") or label) for label, entry in checkpoints.items()]
    for name in _repeated(names):
        yield "checkpoints", f"two checkpoints are named {name!r}; results are told apart by name"
    benchmarks = values.get("benchmarks")
    for name in _repeated(benchmarks if isinstance(benchmarks, list | tuple) else []):
        yield "benchmarks", f"{name!r} twice; give each its own label: {{label: {{name: ..., options: ...}}}}"
    if isinstance(seeds, list | tuple):
        for seed in _repeated(seeds):
            yield "seeds", f"{seed} twice; a trial is known by its number"
        if isinstance(trials, int) and trials != len(seeds):
            yield "trials", f"{trials}, but seeds names {len(seeds)}; give one of the two"
        for label, measure in _mapping(benchmarks).items():
            asked = _mapping(measure).get("trials")
            if isinstance(asked, int) and asked > len(seeds):
                yield f"benchmarks.{label}.trials", f"{asked}, but seeds names only {len(seeds)}"
    threads, cpus = values.get("threads"), _mapping(values.get("launcher")).get("cpus")
    if isinstance(threads, int) and isinstance(cpus, int) and threads > cpus:
        yield "threads", f"{threads}, but launcher.cpus gives a job only {cpus}"


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _repeated(values: Sequence[Any]) -> list[Any]:
    return sorted({value for value in map(str, values) if list(map(str, values)).count(value) > 1})


def read(source: Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Suite:
    """Read a suite file, or a mapping of its keys; raise InputError that lists all its problems."""
    return config.parse(Suite, config.load(source, overrides), source if isinstance(source, Path) else "suite")
