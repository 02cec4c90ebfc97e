"""A run that is asked to stop ends between two steps, with a checkpoint written; how long its sittings took is kept beside it."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from core import bounds
from core.files import FileError, write_json

SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
)  # of Slurm and clouds before they kill, of terminals


@contextlib.contextmanager
def stop_signals(asked: Callable[[int], None]) -> Iterator[None]:
    """Call ``asked`` with the number of one of ``SIGNALS``; a second SIGINT ends the process at once.

    A second SIGTERM does not: under Slurm a process gets one from the system and one from torchrun.
    """

    def stop(number: int, frame: Any) -> None:
        asked(number)
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)

    previous = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Sitting:
    """One process's share of a run: when to save, whether to stop, and the time of all sittings together.

    ``sittings.json`` in the run's folder holds the seconds of each sitting. ``minutes`` are those between checkpoints (0: none).
    """

    FILE = "sittings.json"
    KEEP = 15.0  # seconds between two writings of the file

    def __init__(self, folder: Path, began: float, resumed: bool, minutes: float = 10.0, keeps: bool = True) -> None:
        self.file, self.began, self.minutes, self.keeps = folder / self.FILE, began, minutes, keeps
        self.before = self._read() if resumed else []
        self.asked = 0  # the number of the signal that asked to stop
        self.at_once = (
            False  # whether all is saved, as during an evaluation: then a signal ends the process where it is
        )
        self._saved = self._kept = time.monotonic()
        self.keep()

    @property
    def seconds(self) -> float:
        """Return the time of all sittings up to now."""
        return sum(self.before) + time.monotonic() - self.began

    @property
    def resumed(self) -> int:
        """Return how often the run was begun again."""
        return len(self.before)

    def due(self) -> bool:
        """Tell whether it is time for a checkpoint, and keep the file of times."""
        now = time.monotonic()
        if now - self._kept > self.KEEP:
            self.keep()
        return 0 < self.minutes * 60 <= now - self._saved

    def saved(self) -> None:
        """Note that there is a new checkpoint."""
        self._saved = time.monotonic()
        self.keep()

    def keep(self) -> None:
        """Write the seconds of all sittings."""
        self._kept = time.monotonic()
        if self.keeps:
            write_json(self.file, [*self.before, round(self._kept - self.began, 2)])

    def stop(self, number: int) -> None:
        """Ask for an end between two steps (the handler of a signal)."""
        self.asked = self.asked or number
        if self.at_once:
            self.leave()

    def leave(self) -> None:
        """End the process with the exit code of the signal that asked for it; raises SystemExit."""
        self.keep()
        name = signal.Signals(self.asked).name
        raise Stopped(self.asked, f"stopped by {name} after saving a checkpoint; start the same command again to go on")

    def _read(self) -> list[float]:
        try:
            found = bounds.json_value(self.file, "times", bounds.TEXT)
        except FileError:
            return [0.0]  # begun, and not told for how long
        good = isinstance(found, list) and len(found) < 10**6 and all(type(s) in (int, float) and s >= 0 for s in found)
        return found if good and found else [0.0]


class Stopped(SystemExit):
    """A run was asked to stop and has saved; the exit code is 128 and the signal's number."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(128 + number)
        self.message = message
