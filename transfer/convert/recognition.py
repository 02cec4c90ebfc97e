"""Find out which network a file's tensors are, and check that they are all of it and nothing else."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from core.backbones import Backbone, families
from core.errors import InputError
from core.files import FileError
from transfer.convert.sources import describe

COUNTER = "num_batches_tracked"  # a counter, not a weight; no framework's file carries it


@dataclasses.dataclass(frozen=True)
class Recognised:
    """A whole backbone in fp32 under our names, in our order; what was dropped and why; what the user should know."""

    family: type[Backbone]
    config: Any
    naming: str
    tensors: dict[str, Tensor]
    dropped: dict[str, str]
    notes: list[str]

    @property
    def arch(self) -> str:
        """Return the network's short name."""
        return self.family.arch(self.config)


def recognise(backbone: Mapping[str, Tensor], source: Path | str) -> Recognised:
    """Recognise and check the tensors of one backbone; raise FileError saying what is wrong with them."""
    family, naming, tensors = _native(backbone, source)
    dropped = {name: "after the four stages" for name in tensors if name.startswith(family.heads)}
    tensors = {name: tensor for name, tensor in tensors.items() if name not in dropped}
    try:
        config = family.recognise(tensors)
    except ValidationError as error:
        raise FileError(f"{source}: its sizes fit no network of ours: {error.errors()[0]['msg']}") from error
    except InputError as error:
        raise FileError(f"{source}: {error}") from error
    assert config is not None, "a naming was found that the family does not recognise"
    dropped |= dict.fromkeys((name for name in tensors if name.endswith(COUNTER)), "a counter, not a weight")
    whole, notes = _checked(tensors, family, config, source)
    return Recognised(family, config, naming, whole, dropped, notes)


def _native(backbone: Mapping[str, Tensor], source: Path | str) -> tuple[type[Backbone], str, dict[str, Tensor]]:
    for family in families().values():
        try:
            found = family.native(backbone)
        except InputError as error:
            raise FileError(f"{source}: {error}") from error
        if found is not None:
            return family, *found
    if not backbone:
        raise FileError(f"{source} holds no backbone, only a projector or classifier; save the whole network")
    if any(name.startswith(("conv1.", "layer")) for name in backbone):
        raise FileError(
            f"{source} lacks the first block of a ResNet (layer1.0.conv1.weight); is it a part of one, or renamed?"
        )
    raise FileError(
        f"{source} holds no network of a known family ({describe(backbone)}); known: {', '.join(families())}. "
        "Is it a projector, a ViT or another architecture?"
    )


def _checked(
    tensors: Mapping[str, Tensor], family: type[Backbone], config: Any, source: Path | str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return exactly the network's tensors in fp32; refuse missing, extra, misshapen, whole-numbered and non-finite ones."""
    with torch.device("meta"):
        expected = {k: v for k, v in family(config).state_dict().items() if not k.endswith(COUNTER)}
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTER)}
    extra = [name for name in found if name not in expected]
    if missing := [name for name in expected if name not in found]:
        unknown = f", and has {len(extra)} unknown, first {extra[0]}: are they renamed?" if extra else ""
        raise FileError(
            f"{source} lacks {len(missing)} of {len(expected)} backbone tensors, first {missing[0]}{unknown}"
        )
    if extra:
        raise FileError(f"{source} has {len(extra)} tensors that a {family.arch(config)} has not, first {extra[0]}")
    for name, tensor in found.items():
        _check_one(name, tensor, expected[name], source)
    notes = []
    for dtype in sorted({str(tensor.dtype).removeprefix("torch.") for tensor in found.values()} - {"float32"}):
        change = "narrowed (values are rounded)" if dtype == "float64" else "widened"
        notes.append(f"{dtype} tensors {change} to float32")
    return {name: found[name].detach().float().contiguous() for name in expected}, notes


def _check_one(name: str, tensor: Tensor, expected: Tensor, source: Path | str) -> None:
    if tensor.shape != expected.shape:
        turned = " (transposed?)" if sorted(tensor.shape) == sorted(expected.shape) else ""
        raise FileError(f"{source}: {name} has shape {tuple(tensor.shape)}, expected {tuple(expected.shape)}{turned}")
    if not tensor.is_floating_point():
        raise FileError(f"{source}: {name} is {tensor.dtype}, not floating point; give the weights before quantisation")
    if not torch.isfinite(tensor).all():
        raise FileError(f"{source}: {name} holds NaN or infinite values; take an earlier checkpoint")
