"""One JSON file per trial, written once and never edited; hand-made ones of the same form are read like any other.

``result.schema.json`` beside this file is the form as JSON Schema; ``python -m transfer.results`` writes it again.
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from core.errors import InputError
from core.files import write_atomic, write_json

SCHEMA_VERSION = 1
FILE = "result.json"
SCHEMA = Path(__file__).parent / "result.schema.json"


class _Part(BaseModel):
    # strict: "12.3" in quotes is a mistake of whoever wrote the file; unknown keys are the writer's own notes
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Checkpoint(_Part):
    """The backbone that was measured; ``pretrain`` holds what is known of how it was made."""

    name: str = Field(min_length=1)
    sha256: str = ""
    method: str = ""
    branches: tuple[str, ...] = Field((), strict=False)
    pretrain: dict[str, Any] = {}
    notes: str = ""


class MeasuredProtocol(_Part):
    """The protocol as it was run; ``hash`` covers its settings, its config files and the options on top."""

    name: str = ""
    hash: str = ""
    title: str = ""
    config: str = ""
    train: str = ""
    test: str = ""
    metrics: tuple[str, ...] = Field((), strict=False)
    headline: str = ""
    options: tuple[str, ...] = Field((), strict=False)


class Cost(_Part):
    """What the trial took: wall seconds, peak memory of the process in MiB, and where."""

    seconds: float | None = Field(None, ge=0)
    peak_memory_mib: float | None = Field(None, ge=0)
    device: str = ""


class Result(_Part):
    """One trial of one benchmark; metrics are in percent, None where there was no value (AP without detections)."""

    schema_version: Literal[1] = 1
    benchmark: str = Field(min_length=1)
    protocol: MeasuredProtocol = MeasuredProtocol()
    framework: str = ""
    checkpoint: Checkpoint
    trial: int = Field(ge=0)
    seed: int | None = None
    metrics: dict[str, float | None] = Field(min_length=1)
    cost: Cost = Cost()
    recipe: dict[str, dict[str, Any]] = {}
    tensors_checked: int | None = None
    environment: dict[str, Any] = {}
    command: str = ""
    started: str = ""
    finished: str = ""
    status: Literal["finished"] = "finished"

    @field_validator("metrics")
    @classmethod
    def _nan_is_no_value(cls, metrics: dict[str, float | None]) -> dict[str, float | None]:
        for name, value in metrics.items():
            if value is not None and math.isinf(value):
                raise InputError(f"{name} is infinite; a metric is a number in percent, or null")
        return {name: None if value is None or math.isnan(value) else value for name, value in metrics.items()}


@dataclass(frozen=True)
class Skipped:
    """A file that is not reported, and why."""

    path: Path
    reason: str


@dataclass
class Collection:
    """What a results folder holds: results by file, and the files that could not be used."""

    results: dict[Path, Result] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


def write(path: Path, result: Result) -> None:
    """Write a result file atomically; refuse to overwrite one."""
    if path.exists():
        raise InputError(f"{path} exists; results are written once, choose another folder")
    write_json(path, result.model_dump(mode="json"))


def read(path: Path) -> Result:
    """Read one result file; raise InputError with the reason when it is not one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
    try:
        result = Result.model_validate_json(data)
        if "schema_version" in result.model_fields_set:
            return result
    except ValueError:
        pass  # read again below, slower, to say what is wrong
    return _explained(data)


def _explained(data: bytes) -> Result:
    try:
        values = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON, perhaps truncated ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"holds a {type(values).__name__}, not an object")
    if (version := values.get("schema_version")) != SCHEMA_VERSION:
        raise InputError(f"schema_version is {version!r}; this version reads {SCHEMA_VERSION}")
    try:
        return Result.model_validate(values)
    except ValidationError as error:
        raise InputError("; ".join(_say(problem) for problem in error.errors())) from error


def _say(problem: Any) -> str:
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}"


def read_folder(folder: Path) -> Collection:
    """Read every ``result.json`` below a folder; a bad file, or a second one of a trial, is named and skipped."""
    if not folder.is_dir():
        raise InputError(f"no results folder at {folder}; run a suite first, or check the path")
    collection = Collection()
    first: dict[tuple[str, ...], Path] = {}
    for path in _result_files(folder):
        try:
            result = read(path)
        except InputError as error:
            collection.skipped.append(Skipped(path, str(error)))
            continue
        saved = first.setdefault(_identity(result), path)
        if saved is path:
            collection.results[path] = result
        else:
            collection.skipped.append(Skipped(path, f"the same trial as {saved}"))
    return collection


def _identity(result: Result) -> tuple[str, ...]:
    made_of = (result.checkpoint.name, result.checkpoint.sha256, result.benchmark, result.protocol.hash)
    return (*made_of, str(result.trial))


def _result_files(folder: Path) -> Iterator[Path]:
    """Walk in sorted order; below a result lies only the framework's own output, which can be large."""
    for parent, folders, files in os.walk(folder):
        folders.sort()
        if FILE in files:
            yield Path(parent, FILE)
            if Path(parent) != folder:
                folders.clear()


def schema() -> str:
    """Return the form of a result file as JSON Schema (draft 2020-12)."""
    values = Result.model_json_schema()
    values["required"] = ["schema_version", *values["required"]]
    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "masktransfer/result.schema.json"}
    return json.dumps(described | values, indent=2) + "\n"


def duration(seconds: float | None) -> str:
    """Write ``42 s``, ``3 min 05 s`` or ``2 h 10 min``; a dash for None."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )


if __name__ == "__main__":
    write_atomic(SCHEMA, schema())
    print(SCHEMA)
