"""Tasks: what is done with a backbone to learn how good it is.

To add one, write ``transfer/frameworks/classification/tasks/NAME.py`` with a class named like the file (underscores removed) that
extends ``Task`` and has a ``Config``; then name it in a config: ``task: {name: NAME}``.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from core.config import PluginSettings
from transfer.frameworks.classification.job import Job


class Task(ABC):
    """A measurement; metrics are in percent. ``several``: it takes images of several classes each."""

    Config: ClassVar[type[PluginSettings]]
    several: ClassVar[bool] = False

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """Return the settings that a reader of the result must know, as plain values."""

    @abstractmethod
    def measure(self, job: Job) -> dict[str, float | None]:
        """Return the metrics."""
