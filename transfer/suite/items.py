"""Work items: what a suite asks for, piece by piece, in dependency order.

Items are named by what goes into them (checkpoint file or pre-training config, protocol, trial), so a changed config
makes a new item and a finished one is recognised wherever it was run. An item is a command, a folder and a test for
being finished; who executes it is decided elsewhere (``transfer.suite.execution``, ``transfer.suite.launchers``).
"""

import functools
import hashlib
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from core import bounds, config
from core.errors import InputError
from core.files import FileError
from core.provenance import ROOT
from core.weights_file import digest
from transfer import frameworks, results
from transfer.frameworks import protocol_hash
from transfer.suite import trial as trials
from transfer.suite.settings import RandomInit, Suite
from transfer.suite.trial import Job

FILE = "suite.json"
JOB = "job.json"  # a trial, in its folder
CHECKPOINTS = "checkpoints"  # folder of the runs and weights that the suite itself makes


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
    job: Job | None = None
    devices: int = 1
    expected: float | None = None  # seconds, from the published run's
    modules: tuple[str, ...] = ()  # that a warm process imports for its commands

    @property
    def sort(self) -> str:
        """Return what items of a similar duration share."""
        return self.benchmark or self.kind


def plan(suite: Suite, folder: Path | None = None, available: int = 0) -> list[Item]:
    """Return every work item of a suite, pre-training before what depends on it.

    ``available`` is how many devices one item may have; 0: none, it runs on the CPU.
    All cells come once before their next trial, so that a stopped suite has something of everything.
    """
    folder = folder or suite.folder
    numbers = {name: suite.numbers(name) for name in suite.benchmarks}
    rules = {}
    for label, of in suite.benchmarks.items():
        departure = of.departure(suite.tiny)
        frameworks.of(of.benchmark).check(departure)
        rules[label] = protocol_hash(of.benchmark, [*departure.said(), *of.options])
    items: dict[str, Item] = {}
    for trial in max(numbers.values(), key=len):
        sources = {label: _source(suite, label, folder, trial, available) for label in suite.checkpoints}
        made = [item for item, _, _ in sources.values() if item is not None]
        measured = {name: rules[name] for name, wanted in numbers.items() if trial in wanted}
        items |= {
            item.name: item for item in [*made, *_measurements(suite, folder, measured, trial, sources, available)]
        }
    return list(items.values())


Source = tuple[Item | None, Path, str]  # the item that makes the checkpoint, if any; its file; the key of its content


def _source(suite: Suite, label: str, folder: Path, trial: int, available: int) -> Source:
    """Return where a trial's checkpoint comes from; without ``repeat`` the same for all trials."""
    entry, shown = suite.checkpoints[label], suite.shown(label)
    if entry.path is not None:
        return None, entry.path, _digest(entry.path)
    if entry.random is not None:
        return _random_source(label, shown, entry.random, folder, trial)
    assert entry.pretrain is not None
    pretrain = entry.pretrain.of_trial(trial)
    key = _key(config.load(pretrain.config, pretrain.overrides))
    home = folder / CHECKPOINTS / f"{label}--{key[:8]}"
    file = home / "checkpoints" / "last.pth"
    script = str(ROOT / "pretrain" / "run.py")
    devices = _devices(pretrain.devices or suite.devices, pretrain.published_devices, available, f"checkpoints.{label}")
    several = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(devices)) if devices > 1 else ()
    command = (sys.executable, *several, script, str(pretrain.config), *pretrain.overrides, f"run.folder={home}")
    name = f"{label} (pre-training{f' {trial}' if pretrain.repeat else ''})"
    modules = () if several else ("pretrain.setup",)
    item = Item(name, "pretrain", shown, home, command, checkpoint_file=file, devices=devices, modules=modules)
    return item, file, key


def _devices(asked: int | str, published: int, available: int, what: str) -> int:
    """Return how many devices an item gets: as many as asked for, or as published as far as they are there."""
    if asked == "auto":
        return min(published, available) if available else 1
    if available and int(asked) > available:
        raise InputError(
            f"{what}.devices: {asked}, but the launcher has {available} for an item; lower it, or say auto"
        )
    return int(asked)


def _random_source(label: str, shown: str, settings: RandomInit, folder: Path, trial: int) -> Source:
    drawn = settings.of_trial(trial)
    key = _key(drawn.model_dump(mode="json", include={"backbone", "seed"}))
    home = folder / CHECKPOINTS / f"{label}--{key[:8]}"
    file = home / "random.pth"
    pairs = [f"{name}={value}" for name, value in drawn.backbone.items()]
    command = (sys.executable, "-P", "-m", "transfer.convert.random_init", str(file), "--seed", str(drawn.seed), *pairs)
    name = f"{label} (random{f' {trial}' if drawn.repeat else ''})"
    item = Item(name, "random", shown, home, command, checkpoint_file=file, modules=("core.backbones.resnet",))
    return item, file, key


def _measurements(
    suite: Suite, folder: Path, rules: dict[str, str], trial: int, sources: dict[str, Source], available: int
) -> Iterator[Item]:
    for benchmark, label in itertools.product(rules, suite.checkpoints):
        maker, file, key = sources[label]
        measure = suite.benchmarks[benchmark]
        row = measure.benchmark
        every = suite.devices if "devices" in frameworks.of(row).varies else 1  # classification takes one
        devices = _devices(measure.devices or every, row.devices, available, f"benchmarks.{benchmark}")
        decides = [key, rules[benchmark], trial, *(["linear"] if measure.scaling == "linear" else [])]
        base = folder / f"{label}--{benchmark}--trial{trial}--{_key(decides)[:8]}"
        job = _job(suite, label, benchmark, file, trial, base, devices)
        home = trials.home(base, job, row)
        job = job.model_copy(update={"out": home})
        yield Item(
            name=f"{label} · {benchmark} · trial {trial}",
            kind="benchmark",
            checkpoint=suite.shown(label),
            folder=home,
            command=(sys.executable, str(ROOT / "tools" / "run_benchmark.py"), "--job", str(home / JOB)),
            job=job,
            devices=devices,
            expected=row.hours * 3600 / devices if row.hours and available else None,
            benchmark=benchmark,
            trial=trial,
            after=maker.name if maker is not None else "",
            checkpoint_file=file,
            modules=("transfer.convert.convert", f"transfer.frameworks.{row.framework}.run"),
        )


def _job(suite: Suite, label: str, benchmark: str, file: Path, trial: int, home: Path, devices: int) -> Job:
    measure, entry = suite.benchmarks[benchmark], suite.checkpoints[label]
    return Job(
        checkpoint=file,
        benchmark=measure.place,
        trial=trial,
        out=home,
        label=benchmark,
        name=suite.shown(label),
        method=entry.method,
        branches=entry.branches,
        notes=entry.notes,
        source=entry.source,
        options=measure.options,
        data=measure.data,
        skip_bad=measure.skip_bad,
        devices=devices,
        images_per_device=measure.images_per_device,
        scaling=measure.scaling,
        tiny=suite.tiny,
    )


def _key(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def finished(item: Item) -> bool:
    """Tell whether an item's product is there; a result of another checkpoint file does not count."""
    try:
        if item.kind == "random":
            return item.checkpoint_file.is_file() and _whole(item.checkpoint_file, _version(item.checkpoint_file))
        if item.kind == "pretrain":
            summary = bounds.mapping(item.folder / "summary.json") or {}
            return summary.get("status") == "finished" and item.checkpoint_file.is_file()
        measured = results.read(item.folder / results.FILE).checkpoint.sha256
    except (OSError, ValueError):
        return False
    return not item.checkpoint_file.exists() or measured == _digest(item.checkpoint_file)


@functools.lru_cache(maxsize=4096)
def _whole(file: Path, _version: tuple[int, ...]) -> bool:
    """Tell whether a suite's own random weights can be read; torn ones are named, and made again."""
    try:
        if file.suffix == ".pth":
            bounds.check_zip(file)
    except FileError as error:
        print(f"{error}; it is made again", file=sys.stderr, flush=True)
        return False
    return True


def _version(file: Path) -> tuple[int, ...]:
    found = file.stat()
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _digest(file: Path) -> str:
    """Return a file's hash; what is not there has none, and is refused before anything runs."""
    return _digest_of(file, _version(file)) if file.is_file() else "none"


@functools.lru_cache(maxsize=4096)
def _digest_of(file: Path, _version: tuple[int, ...]) -> str:
    return digest(file)


def begun(items: Sequence[Item], counts: Mapping[tuple[str, str], int]) -> list[Item]:
    """Return the measurements whose trial is below the count of their cell (checkpoint, benchmark), and what they need."""
    kept = [i for i in items if i.trial is not None and i.trial < counts[i.checkpoint, i.benchmark]]
    needed = {item.after for item in kept}
    return [item for item in items if item in kept or (item.trial is None and item.name in needed)]


def manifest(suite: Suite, items: Sequence[Item], folder: Path) -> dict[str, Any]:
    """Describe a suite for the report: what was asked for, so that what is missing can be named."""
    sources: dict[str, list[Item]] = {}
    for item in items:
        if item.kind != "benchmark":
            sources.setdefault(item.checkpoint, []).append(item)
    shown = {label: suite.shown(label) for label in suite.checkpoints}
    return {
        "name": suite.name,
        "looks": suite.looks,
        "baseline": None if suite.baseline is None else shown[suite.baseline],
        "checkpoints": [
            {
                "label": label,
                **entry.model_dump(mode="json", include={"method", "branches", "notes"}),
                "name": shown[label],
                "kind": sources[shown[label]][0].kind if shown[label] in sources else "file",
                "runs": [str(item.folder.relative_to(folder)) for item in sources.get(shown[label], [])],
            }
            for label, entry in suite.checkpoints.items()
        ],
        "benchmarks": {label: measure.benchmark.title for label, measure in suite.benchmarks.items()},
        "items": [
            {
                "checkpoint": item.checkpoint,
                "benchmark": item.benchmark,
                "trial": item.trial,
                "folder": str(item.folder.relative_to(folder)),
                "command": item.job.command() if item.job else list(item.command),
            }
            for item in items
            if item.kind == "benchmark"
        ],
    }
