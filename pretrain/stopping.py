"""SIGTERM and SIGINT end a run between two steps, with a checkpoint written."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stop_signals(asked: Callable[[int], None]) -> Iterator[None]:
    """Call ``asked`` with the number of a SIGTERM or SIGINT; a second SIGINT ends the process at once.

    A second SIGTERM does not: under Slurm a process gets one from the system and one from torchrun.
    """

    def stop(number: int, frame: Any) -> None:
        asked(number)
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
