"""Schedules: functions of progress in [0, 1]."""

import math
from typing import Literal

from pydantic import Field

from core.config import Settings


class Schedule(Settings):
    """The learning rate over the run, as a factor of ``optimizer.lr``; ``warmup`` is a share of the run."""

    name: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(0.0, ge=0, lt=1)

    def factor(self, progress: float) -> float:
        """Return the factor at ``progress``."""
        if progress < self.warmup:
            return progress / self.warmup
        rest = (progress - self.warmup) / (1 - self.warmup)
        return 1.0 if self.name == "constant" else cosine(rest, 1.0, 0.0)


def cosine(progress: float, start: float, end: float) -> float:
    """Go from ``start`` to ``end`` along half a cosine; ``progress`` is in [0, 1]."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
