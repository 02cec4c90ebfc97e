"""Frameworks: how a benchmark is carried out, as a command line; the heavy libraries are imported by that command only.

To add one, write ``transfer/frameworks/NAME.py`` with a class named like the file (underscores removed) that extends
``Framework``. Its command trains and tests in ``folder`` and ends by writing ``evaluation.json`` there
(``metrics``, ``seconds``, ``peak_memory_mib``, ``device``, ``recipe``, ``tensors_checked``).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from transfer.benchmarks import Protocol


class Framework(ABC):
    """``target`` is what ``transfer.convert`` calls the framework's weights, ``suffix`` their file's ending."""

    target: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def command(
        self, protocol: Protocol, weights: Path, folder: Path, seed: int, options: Sequence[str] = ()
    ) -> list[str]:
        """Return the command that fine-tunes and tests ``weights`` in ``folder``, going on with a partial run."""

    @abstractmethod
    def bases(self, config: Path) -> list[Path]:
        """Return the files that ``config`` names as its bases, in the framework's own config language."""

    def config_files(self, config: Path) -> list[Path]:
        """Return ``config`` and all its bases, each once, bases first."""
        found: list[Path] = []
        for base in self.bases(config):
            found += [path for path in self.config_files(base) if path not in found]
        return [*found, config]


def partial_run(folder: Path) -> bool:
    """Tell whether ``folder`` holds a run to go on with; both frameworks keep the file ``last_checkpoint``."""
    return (folder / "last_checkpoint").is_file()
