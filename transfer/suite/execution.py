"""What is to be done, who does it now, and what became of it; how items are spread over machines is a launcher's matter.

An item is executed under its lock by one attempt at a time, whoever runs: several runners on one folder share the work.
A failed attempt leaves ``failure.json`` with the reason; a stopped one leaves nothing and is gone on with later.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from core import bounds, files, run_folder
from core.errors import InputError
from core.provenance import ROOT
from transfer.suite import process
from transfer.suite.items import JOB, Item, finished
from transfer.suite.trial import LOG

FAILURE = "failure.json"
LOCK = ".item.lock"
MEASURE_EVERY = 2.0  # seconds between looks at an item's memory, which cost milliseconds per GiB
State = Literal["waiting", "queued", "running", "done", "failed", "blocked"]


@dataclass
class Status:
    """Where an item stands; ``seconds`` is how long it ran now, ``reason`` why it failed or cannot run."""

    state: State = "waiting"
    reason: str = ""
    started: float = 0.0
    seconds: float | None = None
    attempts: int = 0


Statuses = dict[str, Status]
Observer = Callable[[Item | None], None]  # called with an item whose status changed, and with None now and then


@dataclass(frozen=True)
class Limits:
    """What an item may take: how often it is tried again, the GiB of memory its processes may use together."""

    retries: int = 0
    memory_gib: float | None = None


def standing(items: Sequence[Item]) -> Statuses:
    """Find what is already done."""
    return {item.name: Status("done" if finished(item) else "waiting") for item in items}


class Work:
    """The items of a suite and where each stands: launchers take what is ready and say what became of it."""

    def __init__(self, items: Sequence[Item], statuses: Statuses, observe: Observer, limits: Limits) -> None:
        self.items, self.statuses, self.observe, self.limits = items, statuses, observe, limits
        self.begin = time.time()
        self._leftovers: dict[str, float] = {}  # when we first saw processes of a killed runner at an item

    def unfinished(self) -> bool:
        """Tell whether anything waits or runs."""
        return any(status.state in ("waiting", "queued", "running") for status in self.statuses.values())

    def ready(self) -> list[Item]:
        """Return the waiting items whose need is met; those whose need failed are noted as blocked."""
        found = []
        for item in self.items:
            if self.statuses[item.name].state != "waiting":
                continue
            needed = self.statuses.get(item.after, Status("done"))
            if needed.state in ("failed", "blocked"):
                self.block(item, f"{item.after} failed: {needed.reason}")
            elif needed.state == "done":
                found.append(item)
        return found

    def take(self, item: Item, environment: Mapping[str, str]) -> "Attempt | None":
        """Start a ready item; return None if another runner holds it, or has just finished or failed it."""
        lock = hold(item.folder)
        if lock is None:
            return None
        attempt = None
        try:
            if finished(item):
                (item.folder / FAILURE).unlink(missing_ok=True)
                self.note(item, "done")
            elif (failure := self._recent_failure(item)) and failure.get("attempts", 1) > self.limits.retries:
                self.note(item, "failed", f"{failure.get('reason', '')} (under another runner)".lstrip())
            elif not self._left_alone(item):
                return None
            else:
                status = self.statuses[item.name]
                status.attempts = max(status.attempts, failure.get("attempts", 1) if failure else 0) + 1
                attempt = Attempt(item, environment, lock, self.limits.memory_gib)
                status.started = attempt.started
                self.note(item, "running")
        finally:
            if attempt is None:
                lock.release()
        return attempt

    def settle(self, attempt: "Attempt") -> None:
        """Take note of how an attempt ended: done, failed, or to be tried again."""
        item, status = attempt.item, self.statuses[attempt.item.name]
        status.seconds = time.monotonic() - attempt.started
        try:
            reason = attempt.failure()
            if reason:
                record_failure(item, reason, status.attempts)
            else:
                (item.folder / FAILURE).unlink(missing_ok=True)
        finally:
            attempt.lock.release()
        if reason:
            self.fail(item, reason)
        else:
            self.note(item, "done")

    def fail(self, item: Item, reason: str) -> None:
        """Note that an attempt failed; the item waits again while it may still be tried."""
        attempts = self.statuses[item.name].attempts
        if attempts <= self.limits.retries:
            self.note(item, "waiting", f"tried again, since attempt {attempts} failed: {reason}")
        else:
            self.note(item, "failed", reason)

    def block(self, item: Item, reason: str) -> None:
        """Note that an item cannot run because the one it needs failed."""
        record_failure(item, reason, 0)
        self.note(item, "blocked", reason)

    def note(self, item: Item, state: State, reason: str = "") -> None:
        """Change an item's state and tell the observer."""
        status = self.statuses[item.name]
        status.state, status.reason = state, reason
        self.observe(item)

    def _recent_failure(self, item: Item) -> dict[str, Any] | None:
        """Return what another runner wrote of its attempt since we began."""
        path = item.folder / FAILURE
        try:
            values = bounds.mapping(path) if path.stat().st_mtime > self.begin else None
        except OSError:
            return None
        return values if values and values.get("attempts", 1) else None

    def _left_alone(self, item: Item) -> bool:
        """Tell whether no process works on an item any more; those of a killed runner get time to end."""
        if not process.members(item.folder):
            self._leftovers.pop(item.name, None)
            return True
        if time.monotonic() - self._leftovers.setdefault(item.name, time.monotonic()) > process.GRACE:
            process.kill(item.folder)
        return False


class Attempt:
    """One execution of an item, under the lock that ``lock`` holds; it must be settled or stopped."""

    def __init__(self, item: Item, environment: Mapping[str, str], lock: FileLock, memory_gib: float | None) -> None:
        self.item, self.lock, self.cap = item, lock, memory_gib
        self.code: int | None = None
        self._excess, self._measured, self._ended = "", 0.0, 0.0
        self.started = time.monotonic()
        (item.folder / FAILURE).unlink(missing_ok=True)
        self.log = item.folder / LOG
        _append(self.log, f"\n$ {' '.join(item.command)}\n")
        if item.job is not None:
            files.write_json(item.folder / JOB, item.job.model_dump(mode="json"))
        here = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))  # this checkout's packages
        marks = {"PYTHONPATH": here, **process.tag(item.folder)}
        self.process = process.start(item.command, self.log, {**environment, **marks})

    def over(self) -> bool:
        """Tell whether all of the item's processes have ended; end those above the memory cap."""
        if self.code is None:
            self.code = self.process.poll()
            if self.code is None:
                self._watch_memory()
                return False
            self._ended = time.monotonic()
        if not process.members(self.item.folder):
            return True
        if time.monotonic() - self._ended > process.GRACE:
            process.kill(self.item.folder)
        return False

    def failure(self) -> str:
        """Return why the attempt failed, or nothing if it left its product, which is written last: what killed it came late."""
        assert self.code is not None
        if finished(self.item):
            return ""
        if self._excess:
            return self._excess
        if self.code != 0:
            return process.explain(self.code, self.log)
        return "the command ended well but left no result"

    def terminate(self) -> None:
        """Ask the item's processes to end."""
        process.terminate(self.process)

    def stop(self, seconds: float = process.GRACE) -> None:
        """End the item's processes, within ``seconds`` if they are polite, and let go of the lock."""
        self.terminate()
        process.finish(self.process, seconds)
        process.kill(self.item.folder)
        self.lock.release()

    def _watch_memory(self) -> None:
        if self.cap is None or time.monotonic() - self._measured < MEASURE_EVERY:
            return
        self._measured = time.monotonic()
        used = process.memory(process.members(self.item.folder)) / 2**30
        if used > self.cap:
            self._excess = f"used {used:.2f} GiB of memory, above memory_gib={self.cap:g}"
            process.kill(self.item.folder)


def hold(folder: Path) -> FileLock | None:
    """Take an item's lock, or return None if somebody has it."""
    try:
        return run_folder.hold(folder, lock=LOCK)
    except run_folder.InUse:
        return None


def record_failure(item: Item, reason: str, attempts: int, **details: str) -> None:
    """Write ``failure.json``: why an item failed, after how many attempts, and where its log is."""
    record = {
        "reason": reason,
        "attempts": attempts,
        "command": list(item.command),
        "log": LOG,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "process": os.getpid(),
        **details,
    }
    files.write_json(item.folder / FAILURE, record)


def _append(log: Path, text: str) -> None:
    try:
        with open(log, "a") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"cannot write {log}: {error.strerror}; free some space or choose another folder") from error
