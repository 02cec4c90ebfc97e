"""One trial: a checkpoint into a framework, fine-tuned and tested there, and its numbers into one file."""

import re
import resource
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256 as hash_of
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from core import bounds, files, provenance, remote, run_folder
from core.config import Settings
from core.errors import InputError
from core.weights_file import digest as digest_of
from transfer import benchmarks, frameworks, results
from transfer.benchmarks import Benchmark
from transfer.frameworks import Departure, Framework
from transfer.results import Checkpoint, Cost, MeasuredProtocol, Result
from transfer.suite import lr_sweep, process

RUN = "run"  # the framework's own folder inside the item's
SWEEP = "sweep"  # the runs of an lr sweep, one folder a factor
LOG = "log.txt"
CLAIM = "trial.json"
_SEED_STEP = 1000  # Detectron2 adds the rank to the seed: neighbouring trials must not share a rank's seed


class TrialError(InputError):
    """The framework's command failed; the message says why and where its log is."""


class Job(Settings):
    """What a trial consists of; a suite hands it over as one JSON file, ``tools/run_benchmark.py`` makes it of its options.

    ``benchmark`` is a name or ``FILE.yaml:NAME``; ``label`` is what reports call it. ``name``, ``method``, ``branches`` and
    ``notes`` are what the user says of the checkpoint (a path or an address): what is left empty is read from the file.
    ``options`` go to the framework, ``source`` names the checkpoint's dialect. ``data`` is the user's own folder in place of the
    benchmark's data.
    """

    checkpoint: Annotated[Path, AfterValidator(remote.local)]
    benchmark: str
    trial: int = Field(0, ge=0)
    out: Path
    label: str = ""
    name: str = ""
    method: str = ""
    branches: tuple[str, ...] = ()
    notes: str = ""
    source: str = "auto"
    options: tuple[str, ...] = ()
    devices: int = Field(1, ge=1)
    tiny: str = ""
    lr_sweep: tuple[float, ...] = ()
    data: Path | None = None
    skip_bad: bool = False
    images_per_device: int = Field(0, ge=0)
    scaling: Literal["batch", "linear"] = "batch"

    @property
    def row(self) -> str:
        """Return the benchmark's name as results have it: a row of a user's file keeps the file's name."""
        file, colon, name = self.benchmark.rpartition(":")
        return f"{Path(file).name}{colon}{name}" if colon else name

    @property
    def departure(self) -> Departure:
        """Return how it departs from the protocol."""
        return Departure(
            devices=self.devices,
            data=str(self.data or ""),
            skip_bad=self.skip_bad,
            tiny=self.tiny,
            lr_sweep=self.lr_sweep,
            images_per_device=self.images_per_device,
            scaling=self.scaling,
        )

    @property
    def said(self) -> list[str]:
        """Return the departures and options that change the numbers."""
        return [*self.departure.said(), *self.options]

    def command(self) -> list[str]:
        """Return the command line that does the same, for people."""
        values = {
            **{"--benchmark": self.benchmark, "--trial": self.trial, "--out": self.out},
            **{f"--{key}": getattr(self, key) for key in ("label", "name", "method", "notes", "tiny")},
            **{"--data": self.data or ""},
            **{"--source": self.source.removeprefix("auto"), "--branches": ",".join(self.branches)},
            **{"--num-gpus": self.devices if self.devices > 1 else "", "--lr-sweep": ",".join(map(str, self.lr_sweep))},
            **{"--images-per-device": self.images_per_device or "", "--scaling": self.scaling.removeprefix("batch")},
        }
        said = [f"{flag}={value}" for flag, value in values.items() if str(value)]
        said += ["--skip-bad"] if self.skip_bad else []
        rest = ["--options", *self.options] if self.options else []
        return ["python", "tools/run_benchmark.py", str(self.checkpoint), *said, *rest]


def seed_of(trial: int) -> int:
    """Return the seed of a trial, the same for every checkpoint and benchmark."""
    return _SEED_STEP * (trial + 1)


def run_trial(job: Job) -> Result:
    """Convert, fine-tune, test, and write ``result.json``; a finished trial is returned, a partial one goes on.

    Raises InputError for bad input and for a folder that holds another trial, TrialError when the framework fails.
    """
    benchmark = benchmarks.find(job.benchmark)
    framework = frameworks.of(benchmark)
    if not job.checkpoint.is_file():
        raise InputError(f"no checkpoint at {job.checkpoint}; check the path")
    job = job.model_copy(update={"data": job.data or benchmark.data})
    framework.check(job.departure)  # before anything is written
    _own(job, framework)
    digest, rules = digest_of(job.checkpoint), frameworks.protocol_hash(benchmark, job.said)
    with run_folder.hold(job.out, seconds=60):
        known = _claim(job, digest, rules, data_of(job, benchmark))
        if (done := _done(job, digest, rules)) is not None:
            return done
        started = _now()
        weights, proof = _converted(job, framework, digest)
        evaluation = _measure(_Runs(job, benchmark, framework, weights, known))
        result = Result(
            benchmark=job.label or job.row.rpartition(":")[2],
            protocol=_measured(job, benchmark, rules),
            framework=benchmark.framework,
            checkpoint=_described(job, digest, proof),
            data=data_of(job, benchmark),  # the embedded set was rendered by the run
            **_circumstances(job, started),
            **evaluation,
        )
        results.write(job.out / results.FILE, result)
        weights.unlink()  # the command above makes it again; proof.json keeps its sha256
        return result


def _own(job: Job, framework: Framework) -> None:
    """Read a user's data as training will, and say what was found; raise InputError for what cannot be used."""
    if job.data is None:
        return
    from transfer.datasets import own  # here: it imports torch, which planning need not wait for

    found = own.prepare(job.data, framework.kind, skip_bad=job.skip_bad)
    for note in found.notes:
        print(f"{found.name}: {note}", file=sys.stderr, flush=True)


def data_of(job: Job, benchmark: Benchmark) -> dict[str, str]:
    """Return a fingerprint of each of the benchmark's data sets that is there: annotations, names and sizes of images.

    A user's own folder is part of the protocol's hash instead.
    """
    if job.data or job.tiny:
        return {}
    from transfer.datasets.files import kept_fingerprint

    root = files.datasets_root()
    return {name: kept_fingerprint(root / name)[:12] for name in benchmark.sets if (root / name).is_dir()}


def home(base: Path, job: Job, benchmark: Benchmark) -> Path:
    """Return the folder of a trial: where ``base`` holds one on other data, which was edited since, a folder beside it."""
    before = (bounds.mapping(base / CLAIM) or {}).get("data")
    now = str(data_of(job, benchmark)) if before else ""
    return (
        base if before in (None, now, "{}") else base.with_name(f"{base.name}--{hash_of(now.encode()).hexdigest()[:8]}")
    )


def _claim(job: Job, digest: str, rules: str, data: Mapping[str, str]) -> bool:
    """Note what the folder is for; refuse one made for another checkpoint, protocol, trial or data.

    Return False where the note was damaged: then each part of the folder has to tell by itself what it is of.
    The number of devices may change while it goes on: the images of an iteration and what the norms see do not depend on it.
    """
    fit = {"number of devices": job.devices, "images per device": job.images_per_device, "scaling": job.scaling}
    identity = {"checkpoint": digest, "protocol": rules, "trial": job.trial, **fit, "data": str(data)}
    path = job.out / CLAIM
    before = {"number of devices": 1, "images per device": 0, "scaling": "batch"}  # unless the file says otherwise
    found = bounds.mapping(path)
    damaged = found is None and path.exists()
    if damaged:
        _made_again(path)
    kept = None if found is None else {**before, **found}
    unknown = ("data",) if kept and kept.get("data") in (None, "{}") else ()  # of an older version, or rendered since
    unknown = (*unknown, "number of devices", "images per device")
    run_folder.open_folder(
        job.out,
        identity,
        False,
        "folder",
        begun=kept is not None,
        kept=kept,
        free=unknown,
        file=CLAIM,
        can_resume=False,
    )
    return not damaged


def _made_again(path: Path) -> None:
    """Say that a file is damaged, and put it out of the way."""
    print(f"{path} is damaged: it is made again, and kept as {path.name}.damaged", file=sys.stderr, flush=True)
    path.replace(path.with_name(f"{path.name}.damaged"))


def _done(job: Job, digest: str, rules: str) -> Result | None:
    """Return the folder's result, if there is one; raise InputError when it is of another checkpoint or protocol."""
    path = job.out / results.FILE
    if not path.exists():
        return None
    try:
        result = results.read(path)
    except results.Damaged:
        _made_again(path)
        return None
    if (result.checkpoint.sha256, result.protocol.hash) != (digest, rules):
        raise run_folder.another(job.out, "checkpoint or protocol of its result", "folder")
    return result


def _measured(job: Job, benchmark: Benchmark, rules: str) -> MeasuredProtocol:
    """Describe the protocol as it was run; its title tells a short run or a sweep from the real thing."""
    values = benchmark.model_dump(include={"title", "config", "train", "test", "metrics", "headline"})
    said = [word for word, there in (("tiny", job.tiny), ("lr sweep", job.lr_sweep)) if there]
    if said:
        values["title"] += f" ({', '.join(said)})"
    if job.tiny and not job.data:
        values["train"] = values["test"] = job.tiny
    if job.data:
        name = job.data.expanduser().absolute().name
        values["title"] += f" on {name}"
        values["train"], values["test"] = f"{name}/train", f"{name}/val"
    return MeasuredProtocol(name=job.row, hash=rules, options=tuple(job.said), **values)


def _circumstances(job: Job, started: str) -> dict[str, Any]:
    """Return which trial it was, when it ran and on what."""
    what = {"trial": job.trial, "seed": seed_of(job.trial), "command": shlex.join(job.command())}
    return {**what, "environment": provenance.environment(), "started": started, "finished": _now()}


def _converted(job: Job, framework: Framework, digest: str) -> tuple[Path, dict[str, Any]]:
    """Return the framework's weights file and the proof of its conversion, made now unless both are there."""
    weights, proof = job.out / f"weights{framework.suffix}", job.out / "proof.json"
    values = bounds.mapping(proof)
    if values is None and proof.exists():
        _made_again(proof)
    elif values is not None and weights.exists() and files.sha256(weights) != values.get("sha256"):
        _made_again(weights)
    if values is None or not weights.exists() or values.get("source_sha256") != digest:
        from transfer.convert import convert  # here: it imports torch, which --help and planning need not wait for

        values = convert.convert(
            job.checkpoint, weights, target=framework.target, dialect=job.source, source_sha256=digest
        ).to_dict()
        files.write_json(proof, values)
    for note in values.get("notes") or ():
        print(f"note: {note}", file=sys.stderr, flush=True)
    return weights, values


@dataclass(frozen=True)
class _Runs:
    """What every run of a trial has in common."""

    job: Job
    benchmark: Benchmark
    framework: Framework
    weights: Path
    known: bool  # whether the folder is known to be of this trial; a run of another one is resumed as soon as it is told to

    def run(self, name: str, departure: Departure) -> float:
        """Train and test in the folder ``name`` unless that is done; return the wall seconds spent now."""
        job = self.job
        run, log = job.out / name, job.out / LOG
        evaluation = run / "evaluation.json"
        if evaluation.exists() and bounds.mapping(evaluation) is not None:
            return 0.0
        if evaluation.exists():
            _made_again(evaluation)
        if run.exists() and not run_folder.has_checkpoint(run):
            shutil.rmtree(run)  # stopped before its first checkpoint: its journal would be written twice
        run.mkdir(parents=True, exist_ok=True)
        places = (self.weights.absolute(), run.absolute())
        command = self.framework.command(self.benchmark, *places, seed_of(job.trial), job.options, departure)
        command = [part for part in command if self.known or part != "--resume"]
        begin = time.monotonic()
        print(f"{self.benchmark.framework} trains and tests; its log is {log}", file=sys.stderr, flush=True)
        code = process.run(command, log, process.threads(None), process.Relay(log))
        if code != 0:
            kept = "; the same command goes on from what is trained" if run_folder.has_checkpoint(run) else ""
            why = process.explain(code, log)
            raise TrialError(f"{self.benchmark.framework} failed with {why}; the log is {log}{kept}")
        if not (run / "evaluation.json").exists():
            raise TrialError(f"{self.benchmark.framework} ended without {run / 'evaluation.json'}; the log is {log}")
        return time.monotonic() - begin


def _measure(runs: _Runs) -> dict[str, Any]:
    """Run what the trial consists of, the lr sweep first if asked for, and return the result's numbers."""
    folder, departure = runs.job.out, replace(runs.job.departure, lr_sweep=())
    sweep = None
    if runs.job.lr_sweep:
        held = lr_sweep.HOLD_OUT_TINY if departure.tiny else lr_sweep.HOLD_OUT

        def score(factor: float) -> dict[str, Any]:
            name = f"{SWEEP}/lr-{factor:g}"
            runs.run(name, replace(departure, lr_factor=factor, hold_out=held))
            for checkpoint in (folder / name).glob("*.pth"):
                checkpoint.unlink()  # only its score is wanted, and each is as large as the detector
            return bounds.json_value(folder / name / "evaluation.json", "an evaluation")

        sweep = lr_sweep.sweep(runs.job.lr_sweep, score, runs.benchmark.headline, held)
        departure = replace(departure, lr_factor=sweep["chosen"])
    evaluation = _evaluation(folder / RUN / "evaluation.json", runs.run(RUN, departure))
    if sweep is not None:
        evaluation["recipe"] = {**evaluation.get("recipe", {}), "lr_sweep": sweep}
    return evaluation


def _evaluation(path: Path, seconds: float) -> dict[str, Any]:
    values = bounds.json_value(path, "an evaluation")
    cost = Cost(
        seconds=values.get("seconds") or seconds,
        resumed=values.get("resumed") or 0,
        peak_memory_mib=values.get("peak_memory_mib") or resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        device=values.get("device") or "",
    )
    found = {
        key: values[key] for key in ("metrics", "recipe", "data", "tensors_checked") if values.get(key) is not None
    }
    return {**found, "cost": cost}


def _described(job: Job, digest: str, proof: Mapping[str, Any]) -> Checkpoint:
    pretrain = proof.get("recipe", {}).get("pretrain") or {}
    return Checkpoint(
        name=job.name or named(job.checkpoint, pretrain),
        sha256=digest,
        method=job.method or pretrain.get("method") or "",
        branches=job.branches or tuple(pretrain.get("branches") or ()),
        pretrain=pretrain,
        notes=job.notes,
        conversion=tuple(proof.get("notes") or ()),
    )


def named(checkpoint: Path, pretrain: Mapping[str, Any]) -> str:
    """Name a checkpoint by how it was made, else by its file, with the folder where many files bear that name."""
    made = " + ".join(filter(None, (pretrain.get("method"), *(pretrain.get("branches") or ()))))
    if made:
        return f"{made}, {pretrain['epochs']:g} ep" if pretrain.get("epochs") else made
    if (hub := re.fullmatch(r"models--(.+?)--(.+)", checkpoint.parent.parent.parent.name)) is not None:
        return f"{hub[1]}/{hub[2]}"  # a file in the cache of Hugging Face's hub
    common = checkpoint.stem in ("last", "best", "checkpoint", "model", "model_final", "weights", "latest")
    return f"{checkpoint.absolute().parent.name}/{checkpoint.stem}" if common else checkpoint.stem


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
