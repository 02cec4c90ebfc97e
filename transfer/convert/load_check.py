"""Prove that a framework's network holds the file's weights, tensor by tensor."""

from collections.abc import Mapping

import torch
from torch import Tensor

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
        if not torch.equal(found, tensor.detach().cpu().to(found.dtype)):
            raise LoadError(f"{name} differs between the network and {file}: it was not loaded, or changed afterwards")
    return len(expected)
