"""Frameworks: how a benchmark is carried out, as a command line; the heavy libraries are imported by that command only.

To add one, write ``transfer/frameworks/NAME.py`` with a class named like the file (underscores removed) that extends
``Framework``. Its command trains and tests in ``folder`` and ends by writing ``evaluation.json`` there
(``metrics``, ``seconds``, ``peak_memory_mib``, ``device``, ``recipe``, ``tensors_checked``). ``vary`` and ``summary`` are
optional: what the framework can do beyond the published protocol, and the facts for docs/protocols.md.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from core.errors import InputError
from transfer.benchmarks import Protocol


@dataclass(frozen=True)
class Variation:
    """How one run departs from the published protocol.

    ``tiny`` shortens it on ``shapes`` or on a folder; ``hold_out`` tests on that share of the training set. The number of
    ``devices`` changes how long it takes, not what is learned, and is no part of a protocol's hash.
    """

    devices: int = 1
    tiny: str = ""
    lr_factor: float = 1.0
    hold_out: float = 0.0

    def options(self) -> list[str]:
        """Return what train_net.py and train_seg.py both call it."""
        tiny = ["--tiny", self.tiny] if self.tiny else []
        lr = ["--lr-factor", repr(self.lr_factor)] if self.lr_factor != 1 else []
        return [*tiny, *lr, *(["--hold-out", repr(self.hold_out)] if self.hold_out else [])]


class Framework(ABC):
    """``target`` is what ``transfer.convert.convert`` calls the framework's weights, ``suffix`` their file's ending."""

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

    def vary(self, command: list[str], variation: Variation) -> list[str]:
        """Return ``command`` changed to depart from the protocol; raise InputError where the framework cannot."""
        if variation != Variation():
            raise InputError(f"{type(self).__name__} has no --num-gpus, --tiny and --lr-sweep; leave them out")
        return command

    def summary(self, config: Path) -> dict[str, Any]:
        """Return what ``config`` says of ``devices``, ``batch``, ``lr``, ``warm_up``, ``steps``, ``iterations`` and ``norm``."""
        return {}

    def config_files(self, config: Path) -> list[Path]:
        """Return ``config`` and all its bases, each once, bases first."""
        found: list[Path] = []
        for base in self.bases(config):
            found += [path for path in self.config_files(base) if path not in found]
        return [*found, config]


def partial_run(folder: Path) -> bool:
    """Tell whether ``folder`` holds a run to go on with; both frameworks keep the file ``last_checkpoint``."""
    return (folder / "last_checkpoint").is_file()
