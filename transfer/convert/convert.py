"""Carry a backbone from any known checkpoint into a framework, and prove that nothing was lost on the way."""

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import InputError
from core.files import FileError, read_weights_file, sha256, write_atomic
from core.plugins import find
from transfer.convert import sources
from transfer.convert.recipe import Recipe
from transfer.convert.recognition import Recognised, recognise

TOLERANCE = 1e-5  # of the stage's largest value, or of 1; fp32 networks with the same weights differ by rounding only
IMAGE = (2, 3, 64, 64)  # of the images that both networks are shown


@dataclasses.dataclass(frozen=True)
class Proof:
    """What was carried over and how it was shown to be equal; the content of ``proof.json``.

    ``stages`` has a line for the stem and each stage: ``tensors``, ``parameters``, ``max_abs_feature_difference`` and
    ``max_abs_feature`` (None for the stem, whose features frameworks do not give out). ``tensors_sha256`` is that of the
    names, shapes and values in fp32: the same backbone has the same one in every file form.
    """

    source: str
    arch: str
    target: str
    tensors_mapped: int
    tensors_expected: int
    dropped: dict[str, str]
    max_abs_feature_difference: dict[str, float]
    sha256: str
    source_sha256: str
    notes: list[str]
    naming: str
    tensors_sha256: str
    stages: list[dict[str, Any]]
    recipe: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


def convert(source: Path | str, output: Path | str, *, target: str, dialect: str = "auto", arch: str = "auto") -> Proof:
    """Convert ``source`` to ``output`` for ``target`` (a member of ``targets``); write nothing unless it is proven.

    ``dialect`` names a member of ``sources`` (``plain:PREFIX`` picks one of several backbones) and ``arch`` a network
    such as ``resnet50``; ``auto`` finds both from the tensors. Raises InputError (FileError for the file itself) naming the
    file, the tensor and the next step.
    """
    source, output = Path(source), Path(output)
    destination = find("transfer.convert.targets", target)
    if output.suffix not in destination.suffixes:
        raise InputError(f"{output} must end in {' or '.join(destination.suffixes)} for {target}")
    if output.exists() and output.samefile(source):
        raise InputError(f"{output} is the input itself; choose another output")
    checkpoint = read_weights_file(source)
    dialect = sources.detect(checkpoint, source) if dialect == "auto" else dialect
    backbone, dropped = _split(checkpoint, dialect, source)
    found = recognise(backbone, source)
    if arch not in ("auto", found.arch):
        raise InputError(f"{source} holds a {found.arch}, not a {arch}; leave --arch out or give the right file")
    reader = find("transfer.convert.sources", dialect.partition(":")[0])
    recipe = Recipe(
        **found.family.facts(found.config),
        source=dialect,
        source_sha256=sha256(source),
        pretrain=reader.pretrain(checkpoint) or _earlier(checkpoint),
    )
    destination.refuse(recipe, source)
    exported = found.family.export(found.tensors, destination.rules_name())
    features = _write_proven(output, destination, exported, found, recipe)
    return Proof(
        source=dialect,
        arch=found.arch,
        target=target,
        tensors_mapped=len(exported),
        tensors_expected=len(found.tensors),
        dropped=dropped | found.dropped,
        max_abs_feature_difference={stage: difference for stage, (difference, _) in features.items()},
        sha256=sha256(output),
        source_sha256=recipe.source_sha256,
        notes=found.notes + reader.notes(checkpoint),
        naming=found.naming,
        tensors_sha256=tensors_sha256(found.tensors),
        stages=_table(found, features),
        recipe=recipe.to_dict(),
    )


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of names, shapes and fp32 values in the order of names; it does not depend on the file's form."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().float().contiguous()
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.numpy().data)
    return digest.hexdigest()


def _split(checkpoint: dict[str, Any], dialect: str, source: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    name, _, choice = dialect.partition(":")
    reader = find("transfer.convert.sources", name)
    if not reader.claims(checkpoint):
        raise InputError(f"{source} is not in the layout of {name}; leave --source out to have it detected")
    if choice and name != "plain":
        raise InputError(f"--source {dialect}: only plain takes a prefix, as in plain:{choice}")
    if name == "plain":
        there = sources.prefixes(checkpoint)
        wanted = sources.unwrapped(choice).rstrip(".") + "." if choice else ""
        if wanted and wanted not in there:
            raise InputError(f"{source} has no backbone under {wanted}; there are: {', '.join(there)}")
        if not choice and len(there) > 1:
            options = " or ".join(f"plain:{prefix}" for prefix in there)
            raise InputError(f"{source} holds {len(there)} backbones; choose with --source {options}")
    try:
        return reader.take(checkpoint, wanted) if choice else reader.split(checkpoint)
    except InputError as error:
        raise FileError(f"{source}: {error}") from error


def _earlier(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the pre-training that a converted file's recipe remembers."""
    recipe = checkpoint.get("recipe")
    pretrain = recipe.get("pretrain") if isinstance(recipe, dict) else None
    return pretrain if isinstance(pretrain, dict) else {}


def _write_proven(
    output: Path, target: Any, exported: dict[str, Tensor], found: Recognised, recipe: Recipe
) -> dict[str, tuple[float, float]]:
    """Write beside ``output``, read back, compare tensors and features; only then rename onto ``output``."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".convert-", dir=output.parent)
    except OSError as error:
        raise FileError(f"cannot write to {output.parent}: {error.strerror}; choose another output") from error
    with folder:
        draft = Path(folder.name) / output.name
        write_atomic(draft, target.pack(exported, recipe, output.suffix))
        read_back = target.unpack(read_weights_file(draft))
        _compare_tensors(output, read_back, found)
        differences = _compare_features(output, target, read_back, found, recipe)
        try:
            os.replace(draft, output)
        except OSError as error:
            raise FileError(f"cannot write {output}: {error.strerror}; choose another output") from error
    return differences


def _compare_tensors(output: Path, read_back: dict[str, Tensor], found: Recognised) -> None:
    """Take the file's tensors back to our names and compare them bit for bit."""
    again = found.family.native(read_back)
    assert again is not None, "a family must read what it writes"
    for name, tensor in found.tensors.items():
        if name not in again[1] or not torch.equal(again[1][name], tensor):
            raise FileError(f"{output}: {name} is not the same when read back; nothing was written, please report this")


@torch.no_grad()
def _compare_features(
    output: Path, target: Any, read_back: dict[str, Tensor], found: Recognised, recipe: Recipe
) -> dict[str, tuple[float, float]]:
    """Return each stage's largest difference between our network and the target's, and its largest feature."""
    with torch.device("meta"):  # no time is spent on random weights that are replaced at once
        reference = found.family(found.config)
    reference = reference.to_empty(device="cpu").eval()
    reference.load_state_dict(found.tensors, strict=False)
    images = torch.randn(IMAGE, generator=torch.Generator().manual_seed(0))
    ours, theirs = reference.stages(images), target.stages(output, read_back, recipe, images)
    features = {
        f"layer{index}": (float((a - b).abs().max()), float(a.abs().max()))
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True), 1)
    }
    for stage, (difference, largest) in features.items():
        if not difference < TOLERANCE * max(1.0, largest):
            raise FileError(
                f"{output}: features of {stage} differ by {difference:.2g}; nothing was written, please report this"
            )
    return features


def _table(found: Recognised, features: Mapping[str, tuple[float, float]]) -> list[dict[str, Any]]:
    measured: dict[str, tuple[float, float] | tuple[None, None]] = {
        "stem": (None, None),
        **{f"stage{index}": pair for index, pair in enumerate(features.values(), 1)},
    }
    rows = []
    for stage, (difference, largest) in measured.items():
        tensors = [t for name, t in found.tensors.items() if found.family.stage_of(name) == stage]
        counts = {"stage": stage, "tensors": len(tensors), "parameters": sum(t.numel() for t in tensors)}
        rows.append({**counts, "max_abs_feature_difference": difference, "max_abs_feature": largest})
    return rows
