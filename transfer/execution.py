"""Execute work items one after the other: skip what is finished, go on past what fails, leave nothing half done."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from core import files
from transfer import process
from transfer.suite import Item, finished
from transfer.trial import LOG

FAILURE = "failure.json"
State = Literal["waiting", "running", "done", "failed", "blocked"]


@dataclass
class Status:
    """Where an item stands; ``seconds`` is how long it ran now, ``reason`` why it failed or cannot run."""

    state: State = "waiting"
    reason: str = ""
    started: float = 0.0
    seconds: float | None = None


Statuses = dict[str, Status]
Observer = Callable[[Item | None], None]  # called with an item whose status changed, and with None now and then


def standing(items: Sequence[Item]) -> Statuses:
    """Find what is already done."""
    return {item.name: Status("done" if finished(item) else "waiting") for item in items}


def execute(items: Sequence[Item], statuses: Statuses, environment: Mapping[str, str], observe: Observer) -> None:
    """Run every waiting item once, each after the one it needs; ``statuses`` always tells where things stand.

    An item that another runner holds is left for later: two runners on one folder share the work.
    """
    begin = time.time()
    while waiting := [item for item in items if statuses[item.name].state == "waiting"]:
        moved = False
        for item in waiting:
            needed = statuses.get(item.after, Status("done"))
            if needed.state in ("failed", "blocked"):
                _fail(item, statuses[item.name], f"{item.after} failed: {needed.reason}", "blocked")
            elif needed.state != "done" or not _attempt(item, statuses[item.name], environment, observe, begin):
                continue
            moved = True
            observe(item)
        if not moved:
            observe(None)
            time.sleep(1.0)


def _attempt(item: Item, status: Status, environment: Mapping[str, str], observe: Observer, begin: float) -> bool:
    """Run one item unless another runner holds it (then return False) or has just finished or failed it."""
    with _held(item.folder) as held:
        if not held:
            return False
        failure = item.folder / FAILURE
        if finished(item):
            status.state = "done"
            failure.unlink(missing_ok=True)
        elif failure.exists() and failure.stat().st_mtime > begin:
            status.state, status.reason = "failed", "failed under another runner"
        else:
            _run(item, status, environment, observe)
        return True


def _run(item: Item, status: Status, environment: Mapping[str, str], observe: Observer) -> None:
    log = item.folder / LOG
    (item.folder / FAILURE).unlink(missing_ok=True)
    with open(log, "a") as file:
        file.write(f"\n$ {' '.join(item.command)}\n")
    status.state, status.started = "running", time.monotonic()
    observe(item)
    try:
        code = process.run(item.command, log, environment, watch=lambda: observe(None))
    except BaseException:
        status.state = "waiting"  # stopped, not failed: the next start goes on here
        raise
    status.seconds = time.monotonic() - status.started
    if code == 0 and finished(item):
        status.state = "done"
    elif code == 0:
        _fail(item, status, "the command ended well but left no result")
    else:
        _fail(item, status, process.explain(code, log))


def _fail(item: Item, status: Status, reason: str, state: State = "failed") -> None:
    status.state, status.reason = state, reason
    record = {
        "reason": reason,
        "command": list(item.command),
        "log": LOG,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    files.write_json(item.folder / FAILURE, record)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold an item's lock, if nobody else does; the kernel lets go of it when a process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".item.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
