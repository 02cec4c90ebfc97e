"""A suite: checkpoints x benchmarks x trials, from one YAML file to work items in dependency order.

Items are named by what goes into them (checkpoint file or pre-training config, protocol, trial), so a changed config
makes a new item and a finished one is recognised wherever it was run. An item is a command, a folder and a test for
being finished; who executes it is decided elsewhere (``transfer.execution``).
"""

import functools
import hashlib
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from core import config, files, plugins
from core.config import Settings
from core.errors import InputError
from core.provenance import ROOT
from transfer import results
from transfer.trial import protocol_hash, protocol_of

FILE = "suite.json"
CHECKPOINTS = "checkpoints"  # folder of the runs and weights that the suite itself makes


def _label(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", text):
        raise InputError(f"label {text!r} becomes a folder's name; use letters, digits and . _ + -")
    return text


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"no file at {path}; check the path")
    return path


def _shipped(path: Path) -> Path:
    """Find a config from where we are, else from the project's folder."""
    return _existing(path if path.is_file() or path.is_absolute() else ROOT / path)


def _benchmark(name: str) -> str:
    protocol_hash(*protocol_of(name))  # also reads the config files
    return name


def _random(values: dict[str, Any]) -> dict[str, Any]:
    settings = plugins.find("core.backbones", str(values.get("name", "resnet"))).Config
    config.parse(settings, values, "backbone")
    return values


Label = Annotated[str, AfterValidator(_label)]
ExistingFile = Annotated[Path, AfterValidator(_existing)]
ConfigFile = Annotated[Path, AfterValidator(_shipped)]


class Pretrain(Settings):
    """A pre-training run still to be made: a config of ``pretrain/run.py`` and ``key=value`` overrides.

    ``repeat`` makes one run a trial, with the trial's number as ``run.seed``, so that the spread of a cell holds that of
    pre-training; without it all trials measure the same backbone.
    """

    config: ConfigFile
    overrides: tuple[str, ...] = ()
    repeat: bool = False

    @model_validator(mode="after")
    def _readable(self) -> Self:
        config.load(self.config, self.overrides)
        if self.repeat and any(override.startswith("run.seed=") for override in self.overrides):
            raise InputError("repeat=true sets run.seed to the number of the trial; remove run.seed from overrides")
        return self

    def of_trial(self, trial: int) -> "Pretrain":
        """Return the run that a trial measures."""
        if not self.repeat:
            return self
        return self.model_copy(update={"overrides": (*self.overrides, f"run.seed={trial}")})


class RandomInit(Settings):
    """A randomly initialised backbone: the settings of ``core.backbones`` and a seed."""

    backbone: Annotated[dict[str, Any], AfterValidator(_random)]
    seed: int = Field(0, ge=0)


class Entry(Settings):
    """One checkpoint to compare: exactly one of ``path``, ``pretrain`` and ``random``, and how reports call it."""

    name: str = ""
    method: str = ""
    branches: tuple[str, ...] = ()
    notes: str = ""
    path: ExistingFile | None = None
    pretrain: Pretrain | None = None
    random: RandomInit | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(origin is not None for origin in (self.path, self.pretrain, self.random)) != 1:
            raise InputError("give exactly one of path, pretrain and random")
        return self


class Measure(Settings):
    """A benchmark of the suite; ``name`` is its plug-in if its label is not, ``options`` go to the framework."""

    name: Annotated[str, AfterValidator(_benchmark)]
    trials: int | None = Field(None, ge=1)
    options: tuple[str, ...] = ()


def _named_by_label(values: Any) -> Any:
    """Let a list of benchmark names stand for a mapping, and a label for the plug-in's name."""
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        if len(set(values)) < len(values):
            raise InputError("the same benchmark twice; give each its own label: {label: {name: ..., options: ...}}")
        values = {value: {} for value in values}
    if not isinstance(values, dict):
        return values
    return {label: {"name": label} | (value or {}) for label, value in values.items() if isinstance(value or {}, dict)}


class Suite(Settings):
    """What to compare, on what, how often; ``baseline`` is the label that the others are compared with."""

    name: Label
    checkpoints: dict[Label, Entry] = Field(min_length=1)
    benchmarks: Annotated[dict[Label, Measure], BeforeValidator(_named_by_label)] = Field(min_length=1)
    trials: int | None = Field(None, ge=1, description="None: as many as each benchmark's protocol says")
    baseline: str | None = None
    results: Path | None = Field(None, description="None: results/NAME")
    threads: int | None = Field(None, ge=1, description="per process; None: all cores, unless the environment says")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.baseline is not None and self.baseline not in self.checkpoints:
            raise InputError(f"baseline {self.baseline!r} is none of the checkpoints {', '.join(self.checkpoints)}")
        names = [self.shown(label) for label in self.checkpoints]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"two checkpoints are named {twice[0]!r}; results are told apart by name")
        return self

    @property
    def folder(self) -> Path:
        """Return the results folder."""
        return self.results or Path("results") / self.name

    def shown(self, label: str) -> str:
        """Return what reports call a checkpoint."""
        return self.checkpoints[label].name or label


@dataclass(frozen=True)
class Item:
    """One piece of work: a command that leaves something in ``folder``; ``after`` names the item it needs first."""

    name: str
    kind: Literal["pretrain", "random", "benchmark"]
    checkpoint: str
    folder: Path
    command: tuple[str, ...]
    benchmark: str = ""
    trial: int | None = None
    after: str = ""
    checkpoint_file: Path = field(default_factory=Path)

    @property
    def sort(self) -> str:
        """Return what items of a similar duration share."""
        return self.benchmark or self.kind


def read(path: Path, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite file; raise InputError that lists all its problems."""
    return config.parse(Suite, config.load(path, overrides), path)


def plan(suite: Suite, folder: Path | None = None) -> list[Item]:
    """Return every work item of a suite, pre-training before what depends on it.

    All cells come once before their next trial, so that a stopped suite has something of everything.
    """
    folder = folder or suite.folder
    counts = {name: _trials(suite, measure) for name, measure in suite.benchmarks.items()}
    items: dict[str, Item] = {}
    for trial in range(max(counts.values())):
        sources = {label: _source(suite, label, folder, trial) for label in suite.checkpoints}
        made = [item for item, _, _ in sources.values() if item is not None]
        measured = [name for name, count in counts.items() if trial < count]
        items |= {item.name: item for item in [*made, *_measurements(suite, folder, measured, trial, sources)]}
    return list(items.values())


def _trials(suite: Suite, measure: Measure) -> int:
    return measure.trials or suite.trials or protocol_of(measure.name)[0].trials


Source = tuple[Item | None, Path, str]  # the item that makes the checkpoint, if any; its file; the key of its content


def _source(suite: Suite, label: str, folder: Path, trial: int) -> Source:
    """Return where a trial's checkpoint comes from; without ``repeat`` the same for all trials."""
    entry, shown = suite.checkpoints[label], suite.shown(label)
    if entry.path is not None:
        return None, entry.path, files.sha256(entry.path)
    if entry.random is not None:
        key = _key(entry.random.model_dump(mode="json"))
        home = folder / CHECKPOINTS / f"{label}--{key[:8]}"
        file = home / "random.pth"
        pairs = [f"{name}={value}" for name, value in entry.random.backbone.items()]
        command = (sys.executable, "-m", "transfer.random_init", str(file), "--seed", str(entry.random.seed), *pairs)
        return Item(f"{label} (random)", "random", shown, home, command, checkpoint_file=file), file, key
    assert entry.pretrain is not None
    pretrain = entry.pretrain.of_trial(trial)
    key = _key(config.load(pretrain.config, pretrain.overrides))
    home = folder / CHECKPOINTS / f"{label}--{key[:8]}"
    file = home / "checkpoints" / "last.pth"
    script = str(ROOT / "pretrain" / "run.py")
    command = (sys.executable, script, str(pretrain.config), *pretrain.overrides, f"run.folder={home}")
    name = f"{label} (pre-training{f' {trial}' if pretrain.repeat else ''})"
    return Item(name, "pretrain", shown, home, command, checkpoint_file=file), file, key


def _measurements(
    suite: Suite, folder: Path, benchmarks: Sequence[str], trial: int, sources: dict[str, Source]
) -> Iterator[Item]:
    for benchmark, label in itertools.product(benchmarks, suite.checkpoints):
        measure = suite.benchmarks[benchmark]
        rules = protocol_hash(*protocol_of(measure.name), measure.options)
        maker, file, key = sources[label]
        home = folder / f"{label}--{benchmark}--trial{trial}--{_key([key, rules, trial])[:8]}"
        yield Item(
            name=f"{label} · {benchmark} · trial {trial}",
            kind="benchmark",
            checkpoint=suite.shown(label),
            folder=home,
            command=_command(suite, label, benchmark, file, trial, home),
            benchmark=benchmark,
            trial=trial,
            after=maker.name if maker is not None else "",
            checkpoint_file=file,
        )


def _command(suite: Suite, label: str, benchmark: str, file: Path, trial: int, home: Path) -> tuple[str, ...]:
    measure = suite.benchmarks[benchmark]
    entry = suite.checkpoints[label]
    said = {
        "label": benchmark if benchmark != measure.name else "",
        "name": suite.shown(label),
        "method": entry.method,
        "branches": ",".join(entry.branches),
        "notes": entry.notes,
    }
    return (
        *(sys.executable, str(ROOT / "tools" / "run_benchmark.py"), str(file)),
        *("--benchmark", measure.name, "--trial", str(trial), "--out", str(home)),
        *(f"--{key}={value}" for key, value in said.items() if value),
        *(("--options", *measure.options) if measure.options else ()),
    )


def _key(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def finished(item: Item) -> bool:
    """Tell whether an item's product is there; a result of another checkpoint file does not count."""
    try:
        if item.kind == "random":
            return item.checkpoint_file.is_file()
        if item.kind == "pretrain":
            summary = json.loads((item.folder / "summary.json").read_text())
            return summary.get("status") == "finished" and item.checkpoint_file.is_file()
        measured = results.read(item.folder / results.FILE).checkpoint.sha256
    except (OSError, ValueError):
        return False
    return not item.checkpoint_file.exists() or measured == _digest(item.checkpoint_file, item.checkpoint_file.stat())


@functools.lru_cache(maxsize=1024)
def _digest(file: Path, _version: os.stat_result) -> str:
    return files.sha256(file)


def manifest(suite: Suite, items: Sequence[Item], folder: Path) -> dict[str, Any]:
    """Describe a suite for the report: what was asked for, so that what is missing can be named."""
    sources = {item.checkpoint: item for item in reversed(items) if item.kind != "benchmark"}
    shown = {label: suite.shown(label) for label in suite.checkpoints}
    return {
        "name": suite.name,
        "baseline": None if suite.baseline is None else shown[suite.baseline],
        "checkpoints": [
            {
                "label": label,
                **entry.model_dump(mode="json", include={"method", "branches", "notes"}),
                "name": shown[label],
                "kind": sources[shown[label]].kind if shown[label] in sources else "file",
                "run": str(sources[shown[label]].folder.relative_to(folder)) if shown[label] in sources else None,
            }
            for label, entry in suite.checkpoints.items()
        ],
        "benchmarks": {label: protocol_of(measure.name)[0].title for label, measure in suite.benchmarks.items()},
        "items": [
            {
                "checkpoint": item.checkpoint,
                "benchmark": item.benchmark,
                "trial": item.trial,
                "folder": str(item.folder.relative_to(folder)),
                "command": list(item.command),
            }
            for item in items
            if item.kind == "benchmark"
        ],
    }
