"""All processes that work on one item, found by a variable they inherit: also those in sessions of their own."""

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "MASKTRANSFER_ITEM"
_PROC = Path("/proc")


def tag(folder: Path) -> dict[str, str]:
    """Return the variable that marks a command, and all it starts, as working on an item's folder."""
    return {VARIABLE: str(folder.resolve())}


def members(folder: Path) -> list[int]:
    """Return the living processes on this machine that work on an item's folder, by id; none without /proc."""
    mark = f"{VARIABLE}={folder.resolve()}".encode()
    found = []
    for place in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            if mark in (place / "environ").read_bytes().split(b"\0") and int(place.name) != os.getpid():
                found.append(int(place.name))
    return found


def kill(folder: Path) -> None:
    """End every process of an item at once."""
    for pid in members(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def can_measure() -> bool:
    """Tell whether this system says how much memory a process uses."""
    return (_PROC / "self" / "statm").exists()


def memory(pids: Sequence[int]) -> int:
    """Return the bytes of memory that processes use; what they share is counted once where Linux can tell (Pss)."""
    return sum(_memory(_PROC / str(pid)) for pid in pids)


def _memory(place: Path) -> int:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (place / "smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((place / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
