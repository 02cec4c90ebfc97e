"""One JSON file per trial, written once and never edited; hand-made ones of the same form are read like any other.

``result.schema.json`` beside this file is the form as JSON Schema; ``python -m transfer.results`` writes it again.
A packed file holds what a report needs of a results folder, one text file a line of JSON: ``{"file": PATH, "text": TEXT}``.
"""

import contextlib
import gzip
import hashlib
import io
import json
import math
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from core import bounds
from core.errors import InputError
from core.files import FileError, write_atomic
from core.meter import track

SCHEMA_VERSION = 1
FILE = "result.json"
SCHEMA = Path(__file__).parent / "result.schema.json"
OF_A_TRIAL = (FILE, "failure.json", "run/journal.jsonl", "run/curves.json")  # what a report reads of an item's folder
OF_A_RUN = ("summary.json", "config.yaml", "journal.jsonl")  # and of a pre-training's
UNPACKED, RATIO = 2**30, 50  # characters that a packed file may unpack to, and as a multiple of its bytes
SILENT = 2.0  # seconds after which reading and writing a report tells how far it is
LINE = 2**26  # characters of one file in a packed file


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
    conversion: tuple[str, ...] = Field((), strict=False)  # what a user should know of how the file was read


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
    """What the trial took: wall seconds of all sittings, how often it was resumed, peak memory in MiB, and where."""

    seconds: float | None = Field(None, ge=0)
    resumed: int = Field(0, ge=0)
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
    data: dict[str, Any] = {}  # what tells its data from an edited copy: hashes of annotations, images, class list
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


class Damaged(InputError):
    """A result is torn or changed since it was written; the same trial can make it again."""


SEAL = re.compile(
    rb',\n  "content_sha256": "([0-9a-f]{64})"\n\}\n$'
)  # of the bytes before it; results of other tools have none


def write(path: Path, result: Result) -> None:
    """Write a result file atomically, with its checksum as the last entry; refuse to overwrite one."""
    if path.exists():
        raise InputError(f"{path} exists; results are written once, choose another folder")
    content = json.dumps(result.model_dump(mode="json"), indent=2, allow_nan=False).removesuffix("\n}")
    digest = hashlib.sha256(content.encode()).hexdigest()
    write_atomic(path, f'{content},\n  "content_sha256": "{digest}"\n}}\n')


LARGEST = 16 * 2**20  # bytes of a result
ODD = re.compile(
    rb'[:\[,]\s*-?(\d{17}|[\d.]+[eE]\+?\d\d)|\\u[dD][89a-fA-F]|""\s*:'
)  # perhaps no number, character or name


def read(path: Path) -> Result:
    """Read one result file; raise InputError with the reason when it is not one, Damaged when it is no longer whole."""
    data = bounds.regular(path, LARGEST, "a result")
    seal = SEAL.search(data[-100:])
    if seal and hashlib.sha256(data[: -len(seal[0])]).hexdigest() != seal[1].decode():
        raise Damaged("its checksum does not fit; copy it again, or take content_sha256 out if you edited it")
    try:
        result = Result.model_validate_json(data)
        if "schema_version" in result.model_fields_set and not ODD.search(data):
            return result
    except ValueError:
        pass  # read again below, slower, to say what is wrong
    return _explained(data)


def _explained(data: bytes) -> Result:
    try:
        values = bounds.loads(data)
    except ValueError as error:
        raise Damaged(f"not JSON, perhaps truncated ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"holds a {type(values).__name__}, not an object")
    if (version := values.get("schema_version")) != SCHEMA_VERSION:
        raise InputError(f"schema_version is {version!r}; this version reads {SCHEMA_VERSION}")
    try:
        result = Result.model_validate(values)
        if not all(result.metrics):
            raise InputError("metrics: one has no name")
        return result
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
    paths = list(_result_files(folder))
    for path in track(paths, "reading results", len(paths), SILENT):
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


def pack(folder: Path, path: Path) -> int:
    """Write what a report reads of a results folder, pictures aside, as JSON Lines (gzip for ``.gz``); return the files."""
    if not folder.is_dir():
        raise InputError(f"no results folder at {folder}; run a suite first, or check the path")
    names = list(_packable(folder))
    entries = [{"file": name, "text": (folder / name).read_text(encoding="utf-8", errors="replace")} for name in names]
    data = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries).encode()
    write_atomic(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return len(names)


def _packable(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        wanted = ["suite.json"] if "suite.json" in files else []
        if FILE in files or "failure.json" in files:
            wanted += OF_A_TRIAL
            if Path(parent) != folder:
                folders.clear()
        elif "summary.json" in files:
            wanted += OF_A_RUN
        yield from (
            Path(parent, name).relative_to(folder).as_posix() for name in wanted if Path(parent, name).is_file()
        )


def unpack(path: Path, folder: Path) -> None:
    """Write the files that a packed file holds below ``folder``; raise FileError for a line that is no such file."""
    left = most = min(UNPACKED, RATIO * path.stat().st_size + 2**20)
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            lines = io.TextIOWrapper(gzip.GzipFile(fileobj=file) if packed else file, encoding="utf-8")
            number = 0
            while line := lines.readline(min(left, LINE)):
                number, left = number + 1, left - len(line)
                if left <= 0 or len(line) == LINE:
                    raise FileError(f"{path} unpacks to more than {most:,} characters, or a line to more than {LINE:,}")
                _unpack_line(line, folder, f"{path}, line {number}")
    except (OSError, EOFError, UnicodeError, zlib.error) as error:
        raise FileError(
            f"{path} is damaged or not a packed file of results ({error}); copy or pack it again"
        ) from error


@contextlib.contextmanager
def opened(given: Path) -> Iterator[Path]:
    """Give the folder that is named, or one that holds what a packed file holds while the ``with`` block runs.

    ``FILE.jsonl/inside`` is a folder inside a packed file.
    """
    packed = next((path for path in (given, *given.parents) if path.is_file()), None)
    if packed is None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="results.") as folder:
        unpack(packed, Path(folder))
        yield Path(folder) / given.relative_to(packed)


def _unpack_line(line: str, folder: Path, where: str) -> None:
    try:
        entry = json.loads(line)
        name, text = PurePosixPath(entry["file"]), entry["text"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(f'{where} is not {{"file": PATH, "text": TEXT}}; pack the folder again') from error
    known = name.name in {Path(known).name for known in ("suite.json", *OF_A_TRIAL, *OF_A_RUN)}
    if name.is_absolute() or ".." in name.parts or "\0" in str(name) or not known or not isinstance(text, str):
        raise FileError(f"{where} names {str(name)!r}, which is no file of a results folder; pack the folder again")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def schema() -> str:
    """Return the form of a result file as JSON Schema (draft 2020-12)."""
    values = Result.model_json_schema()
    values["required"] = ["schema_version", *values["required"]]
    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "masktransfer/result.schema.json"}
    return json.dumps(described | values, indent=2) + "\n"


if __name__ == "__main__":
    write_atomic(SCHEMA, schema())
    print(SCHEMA)
