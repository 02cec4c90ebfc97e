"""Schedules: functions of progress in [0, 1]."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from core.config import Settings
from core.errors import InputError


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
