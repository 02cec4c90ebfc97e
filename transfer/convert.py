"""Carry a backbone from any known checkpoint into a framework, and prove that nothing was lost on the way."""

import dataclasses
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.backbones.resnet import BLOCKS, ResNet, rename
from core.errors import InputError
from core.files import FileError, read_weights_file, sha256, write_atomic
from core.plugins import find
from transfer import sources
from transfer.recipe import Recipe

TOLERANCE = 1e-5  # on features of unit-variance input in fp32; the networks differ by exactly 0 in practice
IGNORED = "num_batches_tracked"  # a counter, not a weight; no framework's file carries it


@dataclasses.dataclass(frozen=True)
class Proof:
    """What was carried over and how it was shown to be equal; the content of ``proof.json``."""

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

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


def convert(source: Path | str, output: Path | str, *, target: str, dialect: str = "auto", arch: str = "auto") -> Proof:
    """Convert ``source`` to ``output`` for ``target`` (``detectron2`` or ``mmsegmentation``); write nothing unless it is proven.

    ``dialect`` names a member of ``transfer.sources`` and ``arch`` a network such as ``resnet50``; ``auto`` finds both
    from the tensors. Raises InputError (FileError for the file itself) naming the file, the tensor and the next step.
    """
    source, output = Path(source), Path(output)
    destination = find("transfer.targets", target)
    if output.suffix not in destination.suffixes:
        raise InputError(f"{output} must end in {' or '.join(destination.suffixes)} for {target}")
    checkpoint = read_weights_file(source)
    dialect = sources.detect(checkpoint, source) if dialect == "auto" else dialect
    reader = find("transfer.sources", dialect)
    if not reader.claims(checkpoint):
        raise InputError(f"{source} is not in the layout of {dialect}; leave --source out to have it detected")
    backbone, dropped = reader.split(checkpoint)
    config = architecture(backbone, source)
    if arch not in ("auto", _name(config)):
        raise InputError(f"{source} holds a {_name(config)}, not a {arch}; leave --arch out or give the right file")
    tensors, notes = _checked(backbone, config, source)
    if config.stem not in destination.stems:
        raise InputError(
            f"{source} has the 3x3 CIFAR stem, {target} has a 7x7 one; pre-train with backbone.stem=imagenet"
        )
    recipe = Recipe(
        depth=config.depth,
        width=config.width,
        stem=config.stem,
        source=dialect,
        source_sha256=sha256(source),
        pretrain=reader.pretrain(checkpoint),
    )
    rules = ResNet.rename_rules(destination.rules_name())
    renamed = {rename(name, rules): tensor for name, tensor in tensors.items()}
    differences = _write_proven(output, destination, renamed, tensors, recipe, config)
    return Proof(
        source=dialect,
        arch=_name(config),
        target=target,
        tensors_mapped=len(renamed),
        tensors_expected=len(tensors),
        dropped=dropped | {name: "a counter, not a weight" for name in backbone if name.endswith(IGNORED)},
        max_abs_feature_difference=differences,
        sha256=sha256(output),
        source_sha256=recipe.source_sha256,
        notes=notes,
    )


def architecture(backbone: dict[str, Tensor], source: Path | str) -> ResNet.Config:
    """Find the ResNet that the tensors' names and shapes describe; raise FileError when they describe none."""
    if "conv1.weight" not in backbone or backbone["conv1.weight"].ndim != 4:
        raise FileError(f"{source} has no ResNet stem (conv1.weight); is it a projector, a ViT or a deep-stem network?")
    width, channels, kernel, _ = backbone["conv1.weight"].shape
    if channels != 3:
        raise FileError(f"{source}: conv1.weight takes {channels} channel(s), not 3; pre-train on RGB images")
    if kernel not in (3, 7):
        raise FileError(f"{source}: conv1.weight is {kernel}x{kernel}; only the 7x7 and the 3x3 CIFAR stem are known")
    blocks = {int(m[1]): 0 for name in backbone if (m := re.match(r"layer(\d)\.", name))}
    for stage in blocks:
        blocks[stage] = len({m[1] for name in backbone if (m := re.match(rf"layer{stage}\.(\d+)\.", name))})
    if missing := [stage for stage in range(1, 5) if stage not in blocks]:
        raise FileError(f"{source} lacks layer{missing[0]}; save the whole backbone, not a part of it")
    counts = tuple(blocks[stage] for stage in range(1, 5))
    bottleneck = "layer1.0.conv3.weight" in backbone
    for depth, (block, known) in BLOCKS.items():
        if counts == known and bottleneck == (block.expansion == 4):
            return ResNet.Config(depth=depth, width=width, stem="imagenet" if kernel == 7 else "cifar")
    raise FileError(
        f"{source} has {counts} blocks a stage, which is no ResNet-18/34/50/101; is it another architecture?"
    )


def _name(config: ResNet.Config) -> str:
    name = f"resnet{config.depth}"
    return name if config.width == 64 else f"{name}-width{config.width}"


def _checked(
    backbone: dict[str, Tensor], config: ResNet.Config, source: Path | str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return exactly the tensors of the architecture in fp32, in its order; refuse missing, extra, misshapen, non-finite ones."""
    with torch.device("meta"):
        expected = {k: v for k, v in ResNet(config).state_dict().items() if not k.endswith(IGNORED)}
    found = {name: tensor for name, tensor in backbone.items() if not name.endswith(IGNORED)}
    if missing := [name for name in expected if name not in found]:
        raise FileError(f"{source} lacks {len(missing)} of {len(expected)} backbone tensors, first {missing[0]}")
    if extra := [name for name in found if name not in expected]:
        raise FileError(f"{source} has {len(extra)} tensors that a {_name(config)} has not, first {extra[0]}")
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            raise FileError(f"{source}: {name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}")
        if not torch.isfinite(tensor).all():
            raise FileError(f"{source}: {name} holds NaN or infinite values; take an earlier checkpoint")
    half = sorted({str(tensor.dtype) for tensor in found.values()} - {"torch.float32"})
    notes = [f"{', '.join(half)} tensors widened to float32"] if half else []
    return {name: found[name].detach().float().contiguous() for name in expected}, notes


def _write_proven(
    output: Path,
    target: Any,
    renamed: dict[str, Tensor],
    tensors: dict[str, Tensor],
    recipe: Recipe,
    config: ResNet.Config,
) -> dict[str, float]:
    """Write beside ``output``, read back, compare features; only then rename onto ``output``."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".convert-", dir=output.parent)
    except OSError as error:
        raise FileError(f"cannot write to {output.parent}: {error.strerror}; choose another output") from error
    with folder:
        draft = Path(folder.name) / output.name
        write_atomic(draft, target.pack(renamed, recipe, output.suffix))
        read_back = target.unpack(read_weights_file(draft))
        differences = _compare_features(output, target, read_back, tensors, recipe, config)
        os.replace(draft, output)
    return differences


@torch.no_grad()
def _compare_features(
    output: Path,
    target: Any,
    read_back: dict[str, Tensor],
    tensors: dict[str, Tensor],
    recipe: Recipe,
    config: ResNet.Config,
) -> dict[str, float]:
    reference = ResNet(config).eval()
    reference.load_state_dict(tensors, strict=False)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours, theirs = reference.stages(images), target.stages(output, read_back, recipe, images)
    differences = {
        f"layer{index}": float((a - b).abs().max()) for index, (a, b) in enumerate(zip(ours, theirs, strict=True), 1)
    }
    for stage, difference in differences.items():
        if not difference < TOLERANCE:
            raise FileError(
                f"{output}: features of {stage} differ by {difference:.2g}; nothing was written, please report this"
            )
    return differences
