"""Prove that a framework's network holds the file's weights, tensor by tensor; ask the same of any model of anybody's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core import remote
from core.errors import InputError


class LoadError(InputError):
    """A tensor of the weights file did not arrive in the network."""


def compare(loaded: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: str = "the weights file") -> int:
    """Compare every expected tensor with the loaded one of the same name, bit for bit, and return how many there are.

    Raises LoadError that names the first tensor that is missing, has another shape, or other values.
    """
    if not expected:
        raise LoadError(f"{file} holds no backbone tensor; convert a checkpoint with tools/convert_to_d2.py")
    for name, tensor in expected.items():
        if name not in loaded:
            raise LoadError(f"{name} of {file} is not in the network; is it of another architecture?")
        found = loaded[name].detach().cpu()
        if found.shape != tensor.shape:
            raise LoadError(f"{name} has shape {tuple(found.shape)} in the network and {tuple(tensor.shape)} in {file}")
        wanted = tensor.detach().cpu().to(found.dtype)
        shared = (found.data_ptr(), found.stride()) == (wanted.data_ptr(), wanted.stride())  # the same memory
        if not shared and not torch.equal(found, wanted):
            raise LoadError(f"{name} differs between the network and {file}: it was not loaded, or changed afterwards")
    return len(expected)


def inside(model: nn.Module, file: Path | str, dialect: str = "auto", arch: str = "auto") -> tuple[list[str], bool]:
    """Say whether a built model holds the backbone of a checkpoint (a path or an address): each tensor bit for bit, and equal
    features of its four stages.

    The backbone is looked for in the model's state as in any checkpoint. Returns what was found, and whether all of it is well.
    """
    from transfer.convert import read  # here: it is above this file

    found = read.read(remote.local(file), dialect, arch)
    contents = read.Contents(model.state_dict(), f"the model of type {type(model).__name__}")
    name = found.arch if found.family.__name__ == "Timm" else ""
    prefixes = contents.whole.prefixes
    if len(prefixes) != 1:
        said = (
            "no ResNet, ConvNeXt or known network of timm"
            if not prefixes
            else f"several backbones: {', '.join(prefixes)}"
        )
        raise InputError(f"{contents.path} has {said} inside; return the part that holds one backbone")
    own = read.recognise(read.split(contents, read.find("plain"), "plain")[0], contents.path, name)
    if own.arch != found.arch:
        return [f"the model is a {own.arch}, {file} holds a {found.arch}"], False
    other = [key for key, value in found.tensors.items() if not torch.equal(own.tensors[key], value)]
    total = len(found.tensors)
    lines = [f"{total - len(other)} of {total} tensors of {file} are in the model"]
    if other:
        lines.append(f"not loaded, or changed afterwards: {', '.join(other[:3])}{' ...' if len(other) > 3 else ''}")
    try:
        differences = _features(model, prefixes[0], found)
    except Exception as error:
        return [*lines, f"features were not compared: its backbone cannot be run on images alone ({error})"], not other
    agree = all(difference is not None and difference < 1e-5 for difference in differences)
    for stage, difference in enumerate(differences, 1):
        lines.append(
            f"  stage {stage}: "
            + ("no such features" if difference is None else f"features differ by {difference:.1e}")
        )
    return lines, agree and not other


@torch.no_grad()
def _features(model: nn.Module, prefix: str, found: Any) -> list[float | None]:
    """Return each stage's difference, relative to its largest feature, from the nearest features inside the model's backbone."""
    from transfer.convert.read import unwrapped

    wanted = {unwrapped(part): part for part, _ in model.named_modules()}
    backbone = model.get_submodule(wanted[prefix.rstrip(".")]) if prefix else model
    training = model.training
    given: list[Tensor] = []

    def note(_: Any, __: Any, output: Any) -> None:
        values = (
            output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else [output]
        )
        given.extend(value.detach().clone() for value in values if isinstance(value, Tensor) and value.ndim == 4)

    hooks = [part.register_forward_hook(note) for part in backbone.modules()]
    reference = found.family(found.config).eval()
    reference.load_state_dict(found.tensors, strict=False)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    try:
        model.eval()
        backbone(images)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    differences: list[float | None] = []
    for features in reference.stages(images):
        near = [float((one - features).abs().max()) for one in given if one.shape == features.shape]
        differences.append(min(near) / max(1.0, float(features.abs().max())) if near else None)
    return differences
