"""One trial: a checkpoint into a framework, fine-tuned and tested there, and its numbers into one file."""

import json
import resource
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256 as hash_of
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from core import files, plugins, provenance
from core.errors import InputError
from transfer import process, results
from transfer.benchmarks import Protocol
from transfer.frameworks import Framework
from transfer.results import Checkpoint, Cost, MeasuredProtocol, Result

RUN = "run"  # the framework's own folder inside the item's
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


def protocol_hash(protocol: Protocol, framework: Framework, options: Sequence[str] = ()) -> str:
    """Return the sha256 over a protocol's settings, the text of its config files, and the options on top."""
    try:
        texts = [path.read_text() for path in framework.config_files(provenance.ROOT / protocol.config)]
    except OSError as error:
        raise InputError(f"cannot read {error.filename}, a config of {protocol.title!r} ({error.strerror})") from error
    parts = [protocol.model_dump(mode="json", exclude={"title", "trials"}), texts, list(options)]
    return hash_of(json.dumps(parts).encode()).hexdigest()


def run_trial(
    checkpoint: Path,
    benchmark: str,
    trial: int,
    folder: Path,
    description: Description | None = None,
    options: Sequence[str] = (),
    dialect: str = "auto",
    label: str = "",
) -> Result:
    """Convert, fine-tune, test, and write ``result.json``; a finished trial is returned, a partial one goes on.

    Raises InputError for bad input and for a folder that holds another trial, TrialError when the framework fails.
    """
    if trial < 0:
        raise InputError(f"trial is {trial}; trials count from 0")
    protocol, framework = protocol_of(benchmark)
    if not checkpoint.is_file():
        raise InputError(f"no checkpoint at {checkpoint}; check the path")
    digest, rules = files.sha256(checkpoint), protocol_hash(protocol, framework, options)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _claim(folder, {"checkpoint": digest, "protocol": rules, "trial": trial})
        if (folder / results.FILE).exists():
            return results.read(folder / results.FILE)
        started = _now()
        weights, pretrain = _converted(checkpoint, folder, framework, dialect)
        seconds = _run_framework(protocol, framework, weights, folder, trial, options)
        result = Result(
            benchmark=label or benchmark,
            protocol=MeasuredProtocol(
                name=benchmark,
                hash=rules,
                options=tuple(options),
                **protocol.model_dump(include={"title", "config", "train", "test", "metrics", "headline"}),
            ),
            framework=protocol.framework,
            checkpoint=_described(checkpoint, digest, description or Description(), pretrain),
            trial=trial,
            seed=seed_of(trial),
            environment=provenance.environment(),
            command=_own_command(),
            started=started,
            finished=_now(),
            **_evaluation(folder / RUN / "evaluation.json", seconds),
        )
        results.write(folder / results.FILE, result)
        weights.unlink()  # the command above makes it again; proof.json keeps its sha256
        return result


def _locked(folder: Path) -> Any:
    try:
        return FileLock(folder / ".trial.lock").acquire(timeout=60)  # a killed predecessor may still be saving
    except Timeout as error:
        raise InputError(f"{folder} is in use by another process; wait for it, or choose another folder") from error


def _claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Note what the folder is for; refuse one made for another checkpoint, protocol or trial."""
    path = folder / "trial.json"
    if not path.exists():
        files.write_json(path, identity)
        return
    saved = json.loads(path.read_text())
    if other := [key for key, value in identity.items() if saved.get(key) != value]:
        raise InputError(f"{folder} holds a trial of another {' and '.join(other)}; remove it or choose another folder")


def _converted(checkpoint: Path, folder: Path, framework: Framework, dialect: str) -> tuple[Path, dict[str, Any]]:
    from transfer import convert, recipe  # here: they import torch, which --help and planning need not wait for

    weights = folder / f"weights{framework.suffix}"
    if not (weights.exists() and (folder / "proof.json").exists()):
        proof = convert.convert(checkpoint, weights, target=framework.target, dialect=dialect)
        files.write_json(folder / "proof.json", proof.to_dict())
    found = recipe.read(weights)
    return weights, {} if found is None else found.pretrain


def _run_framework(
    protocol: Protocol, framework: Framework, weights: Path, folder: Path, trial: int, options: Sequence[str]
) -> float:
    """Train and test unless that is already done; return the wall seconds spent now."""
    run, log = folder / RUN, folder / LOG
    if (run / "evaluation.json").exists():
        return 0.0
    if run.exists() and not (run / "last_checkpoint").exists():
        shutil.rmtree(run)  # stopped before its first checkpoint: its journal would be written twice
    run.mkdir(exist_ok=True)
    command = framework.command(protocol, weights.absolute(), run.absolute(), seed_of(trial), options)
    begin = time.monotonic()
    code = process.run(command, log, process.threads(None))
    if code != 0:
        raise TrialError(f"{protocol.framework} failed with {process.explain(code, log)}; the log is {log}")
    if not (run / "evaluation.json").exists():
        raise TrialError(f"{command[1]} ended without {run / 'evaluation.json'}; the log is {log}")
    return time.monotonic() - begin


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
