"""What would go wrong if a suite ran, all of it at once and before anything does."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from core import config, plugins
from core.errors import InputError
from core.files import datasets_root
from transfer import frameworks
from transfer.suite.execution import Statuses
from transfer.suite.items import Item
from transfer.suite.settings import Entry, Measure, Suite

SPACE = 2**30  # bytes that an item may write: weights, a checkpoint of a detector, logs


def problems(settings: Suite, wanted: Sequence[Item], statuses: Statuses, folder: Path) -> Iterator[str]:
    """Yield a sentence for everything that would stop an item that is still to be done.

    Checkpoints that are missing, ambiguous or do not fit a benchmark's network, data that are not on this machine, where it is
    the one that trains, and too little space.
    """
    waiting = [item for item in wanted if statuses[item.name].state != "done"]
    measured = {item.benchmark for item in waiting if item.kind == "benchmark"}
    names = {frameworks.of(settings.benchmarks[label].benchmark).target for label in measured}
    for label, entry in settings.checkpoints.items():
        if any(item.checkpoint == settings.shown(label) for item in waiting):
            yield from (f"checkpoints.{label}: {reason}" for reason in _misfits(entry, sorted(names)))
    if settings.launcher.name == "local" and not settings.tiny:
        for label in sorted(measured):
            yield from (f"benchmarks.{label}: {missing}" for missing in _missing(settings.benchmarks[label]))
    if waiting and (lacking := no_room(folder)):
        yield lacking


def no_room(folder: Path) -> str:
    """Return why a folder's disk has no room for an item, or an empty text."""
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if (free := shutil.disk_usage(place).free) >= SPACE:
        return ""
    return f"{place} has {free / 2**30:.1f} GiB free, and an item may write 1 GiB; free some, or choose another --out"


def _missing(measure: Measure) -> Iterator[str]:
    """Yield the data sets below the root that a benchmark reads and that are not there; the embedded one is made when needed."""
    if measure.departure().data:
        return
    for name in measure.benchmark.sets:
        if name != "shapes" and not (datasets_root() / name).is_dir():
            yield f"no data set {datasets_root() / name}; python tools/prepare_data.py --help says what makes it"


def _misfits(entry: Entry, names: Sequence[str]) -> Iterator[str]:
    """Yield why a checkpoint cannot be read, or cannot be carried into one of the targets, each reason once."""
    from transfer.convert import targets  # here, as below: torch loads for seconds

    if entry.path is not None and not entry.path.is_file():
        yield f"no file at {entry.path}; check the path"
        return
    known = [targets.TARGETS[name] for name in names if name in targets.TARGETS]
    if not known:
        return
    from transfer.convert.read import read
    from transfer.convert.recipe import Recipe

    try:
        if entry.path is not None:
            found = read(entry.path, entry.source)
            facts, where = found.family.facts(found.config) | found.facts, str(entry.path)
        else:
            values = config.load(entry.pretrain.config, entry.pretrain.overrides) if entry.pretrain else {}
            backbone = entry.random.backbone if entry.random else values.get("backbone", {})
            family = plugins.named("core.backbones", str(backbone.get("name", "resnet")))
            facts, where = family.facts(config.parse(family.Config, backbone, "backbone")), "its backbone"
    except InputError as error:
        yield str(error)
        return
    said = set()
    for target in known:
        try:
            target.refuse(Recipe(**facts), where)
        except InputError as error:
            if str(error) not in said:
                said.add(str(error))
                yield str(error)
