"""Optimizers by name, the groups of parameters that they treat apart, and schedules: functions of progress in [0, 1]."""

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from torch import nn

from core.config import Settings
from core.errors import InputError, nearest
from pretrain.methods import Method


class Schedule(Settings):
    """The learning rate over the run, as a factor of ``optimizer.lr``.

    ``warmup`` is a share of the run, ``warmup_epochs`` the same in epochs (give one of them); ``milestones`` are the
    shares of the run after which ``step`` multiplies the rate by ``gamma`` (0.6 and 0.8 are MoCo v1's 120 and 160 of 200).
    """

    name: Literal["cosine", "constant", "step"] = "cosine"
    warmup: float = Field(0.0, ge=0, lt=1)
    warmup_epochs: float = Field(0.0, ge=0)
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.6, 0.8)
    gamma: float = Field(0.1, gt=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> "Schedule":
        if self.warmup and self.warmup_epochs:
            raise ValueError("warmup and warmup_epochs both set the warm-up; keep one")
        if tuple(sorted(set(self.milestones))) != self.milestones:
            raise ValueError(f"milestones={list(self.milestones)} must rise")
        return self

    def over(self, epochs: int) -> "Schedule":
        """Return the schedule of a run of ``epochs``; raise InputError when the warm-up leaves nothing of it."""
        if not self.warmup_epochs:
            return self
        if self.warmup_epochs >= epochs:
            raise InputError(
                f"schedule.warmup_epochs={self.warmup_epochs:g} leaves nothing of train.epochs={epochs}; lower it"
            )
        return self.model_copy(update={"warmup": self.warmup_epochs / epochs, "warmup_epochs": 0.0})

    def factor(self, progress: float) -> float:
        """Return the factor at ``progress``."""
        if progress < self.warmup:
            return progress / self.warmup
        if self.name == "step":
            return self.gamma ** sum(progress >= milestone for milestone in self.milestones)
        rest = (progress - self.warmup) / (1 - self.warmup)
        return 1.0 if self.name == "constant" else cosine(rest, 1.0, 0.0)


def cosine(progress: float, start: float, end: float) -> float:
    """Go from ``start`` to ``end`` along half a cosine; ``progress`` is in [0, 1]."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


REFERENCE_BATCH = 256  # ``scale_lr: linear`` gives ``lr`` for this batch (arXiv 1706.02677)
Groups = list[dict[str, Any]]


class OptimizerSettings(Settings, ABC):
    """What all optimizers share.

    ``exclude: norm_bias`` frees all parameters of one dimension (biases, scales and shifts of norms) from weight decay;
    ``scale_lr: linear`` takes ``lr * batch / 256``; ``clip_norm`` is the largest permitted norm of the whole gradient.
    """

    name: str
    lr: float = Field(0.03, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    exclude: Literal["none", "norm_bias"] = "none"
    scale_lr: Literal["none", "linear"] = "none"
    clip_norm: float | None = Field(None, gt=0)
    rate_on_device: ClassVar[bool] = (
        True  # takes a learning rate that lies there, so that a captured step can change it
    )

    def base_lr(self, batch: int) -> float:
        """Return the learning rate at factor 1 for a global batch of ``batch`` images."""
        return self.lr * batch / REFERENCE_BATCH if self.scale_lr == "linear" else self.lr

    @abstractmethod
    def make(self, groups: Groups, lr: float, fused: bool) -> torch.optim.Optimizer:
        """Make the optimizer over groups of parameters; ``fused`` spares fp16's gradient scaler a look at the GPU."""


class Sgd(OptimizerSettings):
    """SGD as MoCo uses it (arXiv 1911.05722, sec. 4): one weight decay for all parameters."""

    name: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)

    def make(self, groups: Groups, lr: float, fused: bool) -> torch.optim.Optimizer:
        """Make the optimizer, all tensors in one call."""
        how: dict[str, bool] = {"fused": True} if fused else {"foreach": True}
        return torch.optim.SGD(groups, lr=lr, momentum=self.momentum, weight_decay=self.weight_decay, **how)


class Lars(OptimizerSettings):
    """LARS (arXiv 1708.03888, eq. 6): each tensor's step is ``trust_coefficient`` of its own norm.

    Tensors that ``exclude`` names take plain SGD steps, as in SimCLR (arXiv 2002.05709, sec. 2.2) and BYOL
    (arXiv 2006.07733, sec. 3.3), whose trust coefficient is 0.001. Rates are far from SGD's: 0.3 * batch / 256 in SimCLR.
    """

    name: Literal["lars"] = "lars"
    lr: float = Field(0.3, gt=0)
    weight_decay: float = Field(1e-6, ge=0)
    exclude: Literal["none", "norm_bias"] = "norm_bias"
    rate_on_device: ClassVar[bool] = False
    momentum: float = Field(0.9, ge=0, lt=1)
    trust_coefficient: float = Field(0.001, gt=0)

    def make(self, groups: Groups, lr: float, fused: bool) -> torch.optim.Optimizer:
        """Make the optimizer; with fp16 the scaler reads one number a step from the GPU, as timm's has no fused form."""
        from timm.optim.lars import Lars as TimmLars  # only when asked: it is slow to import

        adapted = [group | {"always_adapt": not group.get("excluded", False)} for group in groups]
        return TimmLars(
            adapted, lr=lr, momentum=self.momentum, weight_decay=self.weight_decay, trust_coeff=self.trust_coefficient
        )


class AdamW(OptimizerSettings):
    """Adam with weight decay apart from the gradient (arXiv 1711.05101)."""

    name: Literal["adamw"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    exclude: Literal["none", "norm_bias"] = "norm_bias"
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)

    def make(self, groups: Groups, lr: float, fused: bool) -> torch.optim.Optimizer:
        """Make the optimizer, all tensors in one call; always fused, since otherwise it reads each tensor's step count."""
        return torch.optim.AdamW(groups, lr=lr, betas=self.betas, weight_decay=self.weight_decay, fused=True)


KINDS: dict[str, type[OptimizerSettings]] = {"sgd": Sgd, "lars": Lars, "adamw": AdamW}


def _choose(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    name = value.get("name", "sgd")
    if name not in KINDS:
        raise InputError(f"no optimizer {name!r}; {nearest(name, KINDS)}")
    return KINDS[name].model_validate(value)


AnyOptimizer = Annotated[SerializeAsAny[OptimizerSettings], BeforeValidator(_choose)]


def groups(method: Method, exclude: str) -> Groups:
    """Sort the parameters that take a gradient by (excluded from decay and adaptation?, constant rate?); no empty groups.

    Raises AssertionError when ``method.constant_lr`` names no submodule with parameters.
    """
    constant = {id(p) for name in method.constant_lr for p in _parameters(method, name)}
    found: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in method.parameters():
        if parameter.requires_grad:
            excluded = exclude == "norm_bias" and parameter.ndim <= 1
            found.setdefault((excluded, id(parameter) in constant), []).append(parameter)
    marked: Groups = []
    for (excluded, steady), parameters in sorted(found.items(), key=lambda item: item[0]):
        group: dict[str, Any] = {"params": parameters, "constant": steady, "excluded": excluded}
        marked.append(group | ({"weight_decay": 0.0} if excluded else {}))
    return marked


def _parameters(method: Method, name: str) -> Iterable[nn.Parameter]:
    parameters = list(method.get_submodule(name).parameters())
    assert parameters, f"{type(method).__name__}.constant_lr names {name}, which has no parameters"
    return parameters


def make(settings: OptimizerSettings, method: Method, batch: int, fused: bool = False) -> torch.optim.Optimizer:
    """Make the optimizer over the method's parameters for a global batch of ``batch`` images."""
    return settings.make(groups(method, settings.exclude), settings.base_lr(batch), fused)


def align(optimizer: torch.optim.Optimizer) -> None:
    """Lay what the optimizer remembers out as its parameters: fused kernels on a CPU read both as one line of numbers."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)


def set_lr(optimizer: torch.optim.Optimizer, base: float, factor: float) -> float:
    """Give every group its rate: ``base * factor``, or ``base`` where the rate is constant; return the first."""
    for group in optimizer.param_groups:
        group["lr"] = base if group.get("constant", False) else base * factor
    return base * factor


@contextlib.contextmanager
def rated(optimizer: torch.optim.Optimizer, rates: torch.Tensor | None) -> Iterator[None]:
    """Let the optimizer read each group's rate from a tensor on the device inside the block, where there are such."""
    groups = optimizer.param_groups if rates is not None else []
    numbers = [group["lr"] for group in groups]
    for group, rate in zip(groups, () if rates is None else rates.unbind(), strict=True):
        group["lr"] = rate
        if "capturable" in group:
            group["capturable"] = True
    try:
        yield
    finally:
        for group, number in zip(groups, numbers, strict=True):
            group["lr"] = number
