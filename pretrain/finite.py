"""Find the step and the branch at which a loss stopped being a number, without waiting for the device at every step.

A checkpoint's tensors are looked at as well, before it is written: a finite loss may have been the last one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from core import distributed
from core.errors import InputError
from pretrain.upload import fused


class NotFinite(InputError):
    """A loss or a weight became NaN or infinite; the message says what is left, and what to try."""

    def __init__(self, what: str, folder: Path, precision: str) -> None:
        last = folder / "checkpoints" / "last.pth"
        left = f"the last good checkpoint is kept in {last}" if last.exists() else "there is no checkpoint from before"
        advice = "lower optimizer.lr" + ("" if precision == "fp32" else " or set run.precision=fp32")
        super().__init__(f"{what}; {left}; {advice}")


def check(tensors: Mapping[str, Tensor], step: int, folder: Path, precision: str) -> None:
    """Raise NotFinite naming the first tensor with a NaN or an infinity in it; a GPU is asked once for all of them."""
    bad = torch.stack([tensor.isfinite().logical_not_().any() for tensor in tensors.values()]).tolist()
    for name, found in zip(tensors, bad, strict=True):
        if found:
            raise NotFinite(f"{name} is not finite after step {step}", folder, precision)


@fused
def _first(losses: list[Tensor], steps: Tensor, step: Tensor) -> Tensor:
    return torch.minimum(steps, torch.where(torch.stack(losses).isfinite(), float("inf"), step))


class FirstBad:
    """Keeps, on the device, the first step at which each loss was not finite."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._steps: Tensor | None = None

    def note(self, step: Tensor, values: Mapping[str, Tensor]) -> None:
        """Look at one step's losses (the values named ``loss`` or ``loss/...``); nothing waits for them.

        The step's number is a float on the device, where a changing constant would be another program.
        """
        self._names = [name for name in values if name.startswith("loss")]
        losses = [values[name] for name in self._names]
        if self._steps is None:
            self._steps = torch.full((len(losses),), float("inf"), device=losses[0].device)
        self._steps.copy_(_first(losses, self._steps, step))

    def kept(self) -> list[Tensor]:
        """Return what is kept."""
        return [] if self._steps is None else [self._steps]

    def seen(self) -> Tensor:
        """Return 1 on the device when a loss was not finite since the start, else 0."""
        assert self._steps is not None
        return self._steps.isfinite().any().float()

    def stop(self, folder: Path, precision: str) -> NoReturn:
        """Raise NotFinite on all processes together, naming the first bad step of any of them and its branch."""
        assert self._steps is not None
        steps = distributed.gather(self._steps[None]).amin(dim=0).tolist()
        bad = [name for name, at in zip(self._names, steps, strict=True) if at == min(steps)]
        branch = next((name for name in bad if "/" in name), bad[0])
        raise NotFinite(f"{branch} is not finite at step {min(steps):.0f}", folder, precision)
