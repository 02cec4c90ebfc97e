"""Slurm's side of a suite: what a job does on its node, and what the queue says of it."""

import dataclasses
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from core.errors import InputError
from transfer.suite import process
from transfer.suite.execution import Attempt, Limits, Status, Work, record_failure
from transfer.suite.items import Item

# states after which Slurm does nothing more for a job; a pre-empted one that is requeued soon shows as pending
ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
)
WAITING = frozenset(("CONFIGURING", "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"))
PAUSE = 0.2  # seconds between looks at the running processes
_TERMINATED = (-signal.SIGTERM, 128 + signal.SIGTERM)
_WORD_COMES = 5.0  # seconds within which Slurm's SIGTERM reaches all processes of a job

Place = tuple[str, int]  # where an item is in the queue: the name of its job array, and its index there


@dataclass
class Job:
    """One attempt at one item; submitit carries it to a node and calls it there.

    ``attempt_number`` counts from 1; ``minutes`` and ``timeouts`` are what the user allowed, for the message.
    """

    item: Item
    environment: dict[str, str]
    memory_gib: float | None
    attempt_number: int
    minutes: int
    timeouts: int

    def __post_init__(self) -> None:
        self._attempt: Attempt | None = None

    def __call__(self) -> None:
        """Execute the item unless it is finished; exit with 1 if it fails, so that Slurm knows too."""
        from submitit.core.utils import UncompletedJobError

        try:
            with process.sigterm_ends_cleanly():
                state = self._execute()
        except UncompletedJobError:  # from submitit's handler of the warning before the time limit
            limit = f"the time limit of {self.minutes} minutes"
            record_failure(self.item, f"reached {limit} {self.timeouts + 1} times", self.attempt_number)
            state = "failed"
        if state == "failed":
            raise SystemExit(1)

    def checkpoint(self) -> Any:
        """Stop before the time limit, so that the item saves its state; return what is to be requeued."""
        from submitit.core.utils import DelayedSubmission

        if self._attempt is not None:
            self._attempt.stop()
        return DelayedSubmission(dataclasses.replace(self))

    def _execute(self) -> str:
        status = Status(attempts=self.attempt_number - 1)
        work = Work([self.item], {self.item.name: status}, lambda item: None, Limits(0, self.memory_gib))
        while status.state == "waiting":
            self._attempt = work.take(self.item, self.environment)
            if self._attempt is None:
                time.sleep(1.0)  # another runner holds it
        if self._attempt is not None:
            self._wait(self._attempt)
            work.settle(self._attempt)
        return status.state

    def _wait(self, attempt: Attempt) -> None:
        """Wait for the end; a job that Slurm ends was stopped, it did not fail."""
        try:
            while not attempt.over():
                time.sleep(PAUSE)
            if attempt.code in _TERMINATED:
                time.sleep(_WORD_COMES)
        except BaseException:
            attempt.stop()
            raise


def queue() -> dict[Place, str]:
    """Return the state of each of our jobs that Slurm knows; raise InputError if it does not answer."""
    command = ["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%j|%K|%T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"squeue does not answer ({error}); is this a machine of the cluster?") from error
    if done.returncode != 0:
        raise InputError(f"squeue does not answer: {done.stderr.strip()}")
    return read_queue(done.stdout)


def read_queue(text: str) -> dict[Place, str]:
    """Read squeue's lines ``name|array index|state``; a job outside an array has index 0."""
    found = {}
    for line in text.splitlines():
        name, index, state = line.rsplit("|", 2)
        found[name, int(index) if index.isdigit() else 0] = state
    return found
