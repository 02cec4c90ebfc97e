"""Launchers: where and how many at a time the items of a suite are executed.

To add one, write ``transfer/suite/launchers/NAME.py`` with a class named like the file that extends ``Launcher`` and has a
``Config``; then name it in a suite: ``launcher: {name: NAME}``. ``transfer.suite.execution.Work`` says what is ready, and
executes an item under its lock so that nothing is done twice whoever else runs.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from core.config import PluginSettings
from transfer.suite.execution import Limits, Work


class LauncherSettings(PluginSettings):
    """``jobs`` is how many items are executed at a time, at most; ``tools/run_suite.py --jobs`` sets it."""

    jobs: int | None = Field(None, ge=1)


class Launcher(ABC):
    """``threads`` is what the suite says of threads for one item; ``folder`` is the suite's results folder."""

    Config: ClassVar[type[LauncherSettings]]

    def __init__(self, config: LauncherSettings, threads: int | None, folder: Path) -> None:
        self.config, self.threads, self.folder = config, threads, folder

    @abstractmethod
    def check(self, limits: Limits) -> None:
        """Raise InputError if items cannot be executed here."""

    @abstractmethod
    def run(self, work: Work) -> None:
        """Execute ``work`` until nothing is unfinished; when stopped, leave nothing that a next start would repeat."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Return how many items are executed at a time, for the estimate of the time left."""

    @property
    def available(self) -> int:
        """Return how many devices one item may have; 0: items run on the CPU."""
        return 0
