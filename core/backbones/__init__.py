"""Backbones: ConvNets with four stages that every framework here can hold.

To add one, write ``core/backbones/NAME.py`` with a class named like the file (underscores removed) that extends
``Backbone``, has a ``Config``, gives its tensors' names in each framework (``rename_rules``, ``readings``) and recognises
itself in a file (``recognise``); then name it in a config: ``backbone: {name: NAME}``. A framework that has no such
network of its own gets one in ``transfer/frameworks/FRAMEWORK/backbones.py``, with an entry in ``FAMILIES`` there.
"""

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from core.config import PluginSettings
from core.errors import InputError
from core.plugins import build as _build
from core.plugins import find, names

Rules = list[tuple[str, str | Callable[[re.Match[str]], str]]]


class Backbone(nn.Module, ABC):
    """A ConvNet with four stages; ``feature_dim`` is the number of channels after the last."""

    Config: type[PluginSettings]
    feature_dim: int
    heads: tuple[str, ...] = ()  # prefixes of tensors that stand beside the stages in a whole network, such as ``fc.``

    @abstractmethod
    def stages(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Return the four stages' feature maps, fine to coarse."""

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch feature_dim"]:
        """Return the average-pooled last stage."""
        return self.stages(images)[-1].mean(dim=(2, 3))

    @classmethod
    @abstractmethod
    def rename_rules(cls, framework: str) -> Rules:
        """Return the (pattern, replacement) pairs from our tensor names to those of a framework (``detectron2``, ...)."""

    @classmethod
    def readings(cls) -> dict[str, tuple[str, Rules]]:
        """Return, for each naming found in files, a pattern of one name that tells it, and the rules to our names."""
        return {}

    @classmethod
    def recognise(cls, tensors: Mapping[str, Tensor]) -> Any | None:
        """Return the ``Config`` that tensors under our names describe, or None when they are of another family.

        Raises InputError with the reason when they are of this family but of a form that is not carried.
        """
        return None

    @classmethod
    def arch(cls, config: Any) -> str:
        """Return the network's short name, such as ``resnet50``."""
        return str(config.name)

    @classmethod
    def facts(cls, config: Any) -> dict[str, Any]:
        """Return what a recipe must say about the network: ``family``, ``depth``, ``width``, ``stem``, ``norm``, ..."""
        return {"family": config.name}

    @classmethod
    def stage_of(cls, name: str, config: Any) -> str:
        """Return the stage (``stem``, ``stage1`` to ``stage4``) that one of our tensor names belongs to."""
        return "stem"

    @classmethod
    def after(cls, config: Any, names: Iterable[str]) -> list[str]:
        """Return those of our tensor names that stand after the four stages."""
        return [name for name in names if name.startswith(cls.heads)]

    @classmethod
    def export(cls, tensors: Mapping[str, Tensor], framework: str) -> dict[str, Tensor]:
        """Return the tensors under a framework's names, in its shapes."""
        return renamed(tensors, cls.rename_rules(framework))

    @classmethod
    def native(cls, tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]] | None:
        """Return the naming that the tensors have and the tensors under our names, or None if it is no naming of ours."""
        for naming, (mark, rules) in cls.readings().items():
            if any(re.match(mark, name) for name in tensors):
                return naming, renamed(tensors, rules)
        return None


FILLS = frozenset(
    getattr(Tensor, name) for name in ("normal_", "uniform_", "fill_", "zero_", "erfinv_", "mul_", "add_", "clamp_")
) | {getattr(nn.init, name) for name in ("uniform_", "normal_", "constant_", "kaiming_uniform_")}


class _Unfilled(TorchFunctionMode):
    """Leave out what fills new tensors: on the meta device it is most of the time that building a network takes."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call anything but what fills."""
        if function in FILLS and (tensor := args[0] if args else kwargs["tensor"]).is_meta:
            return tensor
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Build networks on the meta device: names and shapes, and no time for values that are replaced or never read."""
    with torch.device("meta"), _Unfilled():
        yield


def build(config: Any) -> Backbone:
    """Make the backbone that ``config.name`` names, randomly initialised from torch's global generator."""
    return _build("core.backbones", config)


def families() -> dict[str, type[Backbone]]:
    """Return every backbone's class by its name."""
    return {name: find(__name__, name) for name in names(__name__)}


def rename(name: str, rules: Rules) -> str:
    """Apply the (pattern, replacement) pairs of a rename table in order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def renamed(tensors: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Rename all tensors; raise InputError when two of them get one name."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = rename(name, rules)
        if new in found:
            raise InputError(f"{name} and another tensor are both {new}; save one backbone only")
        found[new] = tensor
    return found
