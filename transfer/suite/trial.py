"""One trial: a checkpoint into a framework, fine-tuned and tested there, and its numbers into one file."""

import json
import resource
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256 as hash_of
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from core import files, plugins, provenance
from core.errors import InputError
from transfer import results
from transfer.benchmarks import Protocol
from transfer.frameworks import Framework, Variation
from transfer.results import Checkpoint, Cost, MeasuredProtocol, Result
from transfer.suite import lr_sweep, process

RUN = "run"  # the framework's own folder inside the item's
SWEEP = "sweep"  # the runs of an lr sweep, one folder a factor
LOG = "log.txt"
_SEED_STEP = 1000  # Detectron2 adds the rank to the seed: neighbouring trials must not share a rank's seed


class TrialError(InputError):
    """The framework's command failed; the message says why and where its log is."""


@dataclass(frozen=True)
class Description:
    """What the user says of a checkpoint; what is left empty is read from the file."""

    name: str = ""
    method: str = ""
    branches: tuple[str, ...] = ()
    notes: str = ""


def seed_of(trial: int) -> int:
    """Return the seed of a trial, the same for every checkpoint and benchmark."""
    return _SEED_STEP * (trial + 1)


def protocol_of(benchmark: str) -> tuple[Protocol, Framework]:
    """Return a benchmark's protocol and its framework; raise InputError listing what there is."""
    protocol: Protocol = plugins.find("transfer.benchmarks", benchmark).protocol
    return protocol, plugins.find("transfer.frameworks", protocol.framework)()


# Where a module lives is no part of a protocol: in a hash it stays under the name it had when the first results were written.
_FORMER = {
    "transfer.frameworks.mmseg.heads": "transfer.segmentation.heads",
    "transfer.frameworks.mmseg.backbones": "transfer.segmentation.convnext",
}


def protocol_hash(protocol: Protocol, framework: Framework, options: Sequence[str] = ()) -> str:
    """Return the sha256 over a protocol's settings, the text of its config files, and the options on top."""
    try:
        texts = [path.read_text() for path in framework.config_files(provenance.ROOT / protocol.config)]
    except OSError as error:
        raise InputError(f"cannot read {error.filename}, a config of {protocol.title!r} ({error.strerror})") from error
    for now, former in _FORMER.items():
        texts = [text.replace(now, former) for text in texts]
    parts = [protocol.model_dump(mode="json", exclude={"title", "trials"}), texts, list(options)]
    return hash_of(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Departure:
    """How a trial departs from its published protocol; everything but the number of devices is part of its hash.

    ``lr_sweep`` are factors of the published learning rate: each is trained on nine tenths of the training set and scored
    on the rest, and the best one is used.
    """

    devices: int = 1
    tiny: str = ""
    lr_sweep: tuple[float, ...] = ()

    def options(self) -> list[str]:
        """Return what of it changes the numbers, as a result's ``options`` have it."""
        tiny = [f"--tiny={self.tiny}"] if self.tiny else []
        return [*tiny, *([f"--lr-sweep={','.join(f'{f:g}' for f in self.lr_sweep)}"] if self.lr_sweep else [])]

    def measured(self, name: str, protocol: Protocol, rules: str, options: Sequence[str]) -> MeasuredProtocol:
        """Describe the protocol as it was run; its title tells a short run or a sweep from the real thing."""
        values = protocol.model_dump(include={"title", "config", "train", "test", "metrics", "headline"})
        said = [word for word, there in (("tiny", self.tiny), ("lr sweep", self.lr_sweep)) if there]
        if said:
            values["title"] += f" ({', '.join(said)})"
        if self.tiny:
            values["train"] = values["test"] = self.tiny
        return MeasuredProtocol(name=name, hash=rules, options=tuple(options), **values)


def run_trial(
    checkpoint: Path,
    benchmark: str,
    trial: int,
    folder: Path,
    description: Description | None = None,
    options: Sequence[str] = (),
    dialect: str = "auto",
    label: str = "",
    departure: Departure | None = None,
) -> Result:
    """Convert, fine-tune, test, and write ``result.json``; a finished trial is returned, a partial one goes on.

    Raises InputError for bad input and for a folder that holds another trial, TrialError when the framework fails.
    """
    departure = departure or Departure()
    protocol, framework = protocol_of(benchmark)
    _check_given(checkpoint, trial)
    said = [*departure.options(), *options]
    digest, rules = files.sha256(checkpoint), protocol_hash(protocol, framework, said)
    framework.vary(
        ["python", "tool"], Variation(devices=departure.devices, tiny=departure.tiny)
    )  # or say now it cannot
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _claim(folder, {"checkpoint": digest, "protocol": rules, "trial": trial}, departure.devices)
        if (folder / results.FILE).exists():
            return results.read(folder / results.FILE)
        started = _now()
        weights, pretrain = _converted(checkpoint, folder, framework, dialect)
        evaluation = _measure(_Job(protocol, framework, weights, folder, trial, options), departure)
        result = Result(
            benchmark=label or benchmark,
            protocol=departure.measured(benchmark, protocol, rules, said),
            framework=protocol.framework,
            checkpoint=_described(checkpoint, digest, description or Description(), pretrain),
            **_circumstances(trial, started),
            **evaluation,
        )
        results.write(folder / results.FILE, result)
        weights.unlink()  # the command above makes it again; proof.json keeps its sha256
        return result


def _check_given(checkpoint: Path, trial: int) -> None:
    if trial < 0:
        raise InputError(f"trial is {trial}; trials count from 0")
    if not checkpoint.is_file():
        raise InputError(f"no checkpoint at {checkpoint}; check the path")


def _circumstances(trial: int, started: str) -> dict[str, Any]:
    """Return which trial it was, when it ran and on what."""
    what = {"trial": trial, "seed": seed_of(trial), "command": _own_command()}
    return {**what, "environment": provenance.environment(), "started": started, "finished": _now()}


def _check_able(framework: Framework, departure: Departure) -> None:
    """Raise InputError before anything is written when the framework knows no such departure."""
    factor = 0.5 if departure.lr_sweep else 1.0
    framework.vary(["python", "tool"], Variation(departure.devices, departure.tiny, factor))


def _locked(folder: Path) -> Any:
    try:
        return FileLock(folder / ".trial.lock").acquire(timeout=60)  # a killed predecessor may still be saving
    except Timeout as error:
        raise InputError(f"{folder} is in use by another process; wait for it, or choose another folder") from error


def _claim(folder: Path, identity: Mapping[str, Any], devices: int) -> None:
    """Note what the folder is for; refuse one made for another checkpoint, protocol, trial or number of devices."""
    path = folder / "trial.json"
    identity = {**identity, "number of devices": devices}
    if not path.exists():
        files.write_json(path, identity)
        return
    saved = {"number of devices": 1, **json.loads(path.read_text())}
    if other := [key for key, value in identity.items() if saved.get(key) != value]:
        raise InputError(f"{folder} holds a trial of another {' and '.join(other)}; remove it or choose another folder")


def _converted(checkpoint: Path, folder: Path, framework: Framework, dialect: str) -> tuple[Path, dict[str, Any]]:
    from transfer.convert import convert, recipe  # here: they import torch, which --help and planning need not wait for

    weights = folder / f"weights{framework.suffix}"
    if not (weights.exists() and (folder / "proof.json").exists()):
        proof = convert.convert(checkpoint, weights, target=framework.target, dialect=dialect)
        files.write_json(folder / "proof.json", proof.to_dict())
    found = recipe.read(weights)
    return weights, {} if found is None else found.pretrain


@dataclass(frozen=True)
class _Job:
    """What every run of a trial has in common."""

    protocol: Protocol
    framework: Framework
    weights: Path
    folder: Path
    trial: int
    options: Sequence[str]

    def run(self, name: str, variation: Variation) -> float:
        """Train and test in the folder ``name`` unless that is done; return the wall seconds spent now."""
        run, log = self.folder / name, self.folder / LOG
        if (run / "evaluation.json").exists():
            return 0.0
        if run.exists() and not (run / "last_checkpoint").exists():
            shutil.rmtree(run)  # stopped before its first checkpoint: its journal would be written twice
        run.mkdir(parents=True, exist_ok=True)
        places = (self.weights.absolute(), run.absolute())
        command = self.framework.command(self.protocol, *places, seed_of(self.trial), self.options)
        command = self.framework.vary(command, variation)
        begin = time.monotonic()
        code = process.run(command, log, process.threads(None))
        if code != 0:
            raise TrialError(f"{self.protocol.framework} failed with {process.explain(code, log)}; the log is {log}")
        if not (run / "evaluation.json").exists():
            raise TrialError(f"{self.protocol.framework} ended without {run / 'evaluation.json'}; the log is {log}")
        return time.monotonic() - begin


def _measure(job: _Job, departure: Departure) -> dict[str, Any]:
    """Run what the trial consists of, the lr sweep first if asked for, and return the result's numbers."""
    variation = Variation(devices=departure.devices, tiny=departure.tiny)
    sweep = None
    if departure.lr_sweep:
        held = lr_sweep.HOLD_OUT_TINY if departure.tiny else lr_sweep.HOLD_OUT

        def score(factor: float) -> dict[str, Any]:
            name = f"{SWEEP}/lr-{factor:g}"
            job.run(name, replace(variation, lr_factor=factor, hold_out=held))
            for checkpoint in (job.folder / name).glob("*.pth"):
                checkpoint.unlink()  # only its score is wanted, and each is as large as the detector
            evaluation: dict[str, Any] = json.loads((job.folder / name / "evaluation.json").read_text())
            return evaluation

        sweep = lr_sweep.sweep(departure.lr_sweep, score, job.protocol.headline, held)
        variation = replace(variation, lr_factor=sweep["chosen"])
    evaluation = _evaluation(job.folder / RUN / "evaluation.json", job.run(RUN, variation))
    if sweep is not None:
        evaluation["recipe"] = {**evaluation.get("recipe", {}), "lr_sweep": sweep}
    return evaluation


def _evaluation(path: Path, seconds: float) -> dict[str, Any]:
    values = json.loads(path.read_text())
    cost = Cost(
        seconds=values.get("seconds") or seconds,
        peak_memory_mib=values.get("peak_memory_mib") or resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        device=values.get("device") or "",
    )
    found = {key: values[key] for key in ("metrics", "recipe", "tensors_checked") if values.get(key) is not None}
    return {**found, "cost": cost}


def _described(checkpoint: Path, digest: str, description: Description, pretrain: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        name=description.name or checkpoint.stem,
        sha256=digest,
        method=description.method or pretrain.get("method") or "",
        branches=description.branches or tuple(pretrain.get("branches") or ()),
        pretrain=pretrain,
        notes=description.notes,
    )


def _own_command() -> str:
    script = Path(sys.argv[0])
    inside = script.is_absolute() and script.is_relative_to(provenance.ROOT)
    return shlex.join(["python", str(script.relative_to(provenance.ROOT) if inside else script), *sys.argv[1:]])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
