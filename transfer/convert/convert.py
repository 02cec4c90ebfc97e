"""Carry a backbone from any known checkpoint into a framework, and prove that nothing was lost on the way."""

import dataclasses
import io
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from core import remote
from core.errors import InputError
from core.files import sha256
from core.weights_file import digest, tensors_sha256
from transfer.convert import targets
from transfer.convert.read import Recognised, read
from transfer.convert.recipe import Recipe
from transfer.convert.write import Features, write_proven


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


def convert(
    source: Path | str,
    output: Path | str,
    *,
    target: str,
    dialect: str = "auto",
    arch: str = "auto",
    source_sha256: str = "",
) -> Proof:
    """Convert ``source``, a path or an address of ``core.remote``, to ``output`` for ``target``, a row of ``targets``.

    Nothing is written unless it is proven.

    ``dialect`` names a row of ``dialects`` (``plain:PREFIX`` picks one of several backbones, ``package.module:NAME`` a row from
    elsewhere) and ``arch`` a network such as ``resnet50``; ``auto`` finds both from the tensors. A caller who knows the source's
    digest gives it, so that the file is not hashed again. Raises InputError (FileError for the file itself) naming the file, the
    tensor and the next step.
    """
    source, output = remote.local(source), Path(output)
    destination = targets.find(target)
    destination.check(output)
    if (file := destination.file(output)).exists() and file.samefile(source):
        raise InputError(f"{output} is the input itself; choose another output")
    found = read(source, dialect, arch)
    if found.facts.get("channel_order") == "BGR" and "BGR" not in destination.orders:
        found = found.as_rgb()
    recipe = Recipe(
        **found.family.facts(found.config) | found.facts,
        source=found.dialect,
        source_sha256=source_sha256 or digest(source),
        pretrain=found.pretrain,
    )
    destination.refuse(recipe, source)
    written, features = write_proven(output, destination, found, recipe)
    return Proof(
        source=found.dialect,
        arch=found.arch,
        target=target,
        tensors_mapped=written,
        tensors_expected=len(found.tensors),
        dropped=found.dropped,
        max_abs_feature_difference={stage: difference for stage, (difference, _) in features.items()},
        sha256=sha256(file),
        source_sha256=recipe.source_sha256,
        notes=[*found.notes, *destination.advice(recipe)],
        naming=found.naming,
        tensors_sha256=tensors_sha256(found.tensors),
        stages=_by_stage(found, features),
        recipe=recipe.to_dict(),
    )


def table(proof: Proof) -> str:
    """Return a line a stage (tensors, parameters, difference of features), then what was dropped and why, and the hashes."""
    shown = Table("stage", box=None, pad_edge=False, padding=(0, 0, 0, 2), header_style="")
    for head in ("tensors", "parameters", "largest feature", "largest difference"):
        shown.add_column(head, justify="right")
    for row in proof.stages:
        difference, feature = row["max_abs_feature_difference"], row["max_abs_feature"]
        measured = ("-", "-") if difference is None else (f"{feature:.4g}", f"{difference:.1e}")
        shown.add_row(row["stage"], str(row["tensors"]), f"{row['parameters']:,}", *measured)
    shown.add_row("all", str(proof.tensors_mapped), f"{sum(row['parameters'] for row in proof.stages):,}")
    text = io.StringIO()
    Console(file=text, width=120, color_system=None).print(shown)
    lines = [f"  {line}" for line in text.getvalue().splitlines()]
    reasons = Counter(proof.dropped.values())
    lines += [f"  dropped {count}: {reason}" for reason, count in sorted(reasons.items())]
    hashes = (("input", proof.source_sha256), ("tensors", proof.tensors_sha256), ("output", proof.sha256))
    lines += [f"  names read: {proof.naming}", *(f"  sha256 of the {what}: {value}" for what, value in hashes)]
    return "\n".join(line.rstrip() for line in lines)


def _by_stage(found: Recognised, features: Features) -> list[dict[str, Any]]:
    measured: dict[str, tuple[float, float] | tuple[None, None]] = {
        "stem": (None, None),
        **{f"stage{index}": pair for index, pair in enumerate(features.values(), 1)},
    }
    rows = []
    for stage, (difference, largest) in measured.items():
        tensors = [t for name, t in found.tensors.items() if found.family.stage_of(name, found.config) == stage]
        counts = {"stage": stage, "tensors": len(tensors), "parameters": sum(t.numel() for t in tensors)}
        rows.append({**counts, "max_abs_feature_difference": difference, "max_abs_feature": largest})
    return rows
