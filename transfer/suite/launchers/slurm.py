"""Execute items as jobs of a Slurm cluster, in job arrays that submitit (MIT licence) writes and submits; what a job does there.

Jobs go on when the suite is stopped, and the next start adopts them: the name of a job array leads to the list of its
items in ``RESULTS/slurm/NAME/items.json``, which is written before the array is submitted. Were an item submitted
twice all the same (a kill in the middle of a submission), its lock keeps it from being done twice.
"""

import dataclasses
import json
import math
import secrets
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import Field

from core import files
from core.errors import InputError
from transfer.suite import process
from transfer.suite.execution import FAILURE, Attempt, Limits, Status, Work, record_failure
from transfer.suite.items import Item, finished
from transfer.suite.launchers import Launcher, LauncherSettings

FOLDER = "slurm"
LIST = "items.json"
LARGEST = 500  # items of one array; Slurm's default limit is 1001
PATIENCE = 3  # looks at the queue before a job without a result is given up: network file systems lag behind

# states after which Slurm does nothing more for a job; a pre-empted one that is requeued soon shows as pending
ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
)
WAITING = frozenset(("CONFIGURING", "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"))
HOUR, DAY = 60, 24 * 60  # minutes
PATIENT = 3  # times the estimate until a job has reached its limit
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


class Slurm(Launcher):
    """Submits what is ready, and watches the queue until everything is done."""

    class Config(LauncherSettings):
        """What a job asks for; what is None is left to the cluster. ``jobs`` is how many of an array run at a time.

        ``devices`` is how many GPUs a job may have at most, those of a node (``--gpus-per-task``; 0 asks for none), and
        ``cpus`` is for each of them. ``minutes`` is a job's time limit (None: three times the estimate, a day where there is
        none); an item that reaches it is stopped in time to save its state and requeued, ``timeouts`` times. ``gres`` is for
        example ``gpu:1``; ``setup`` are shell lines before the item, ``options`` further options of sbatch,
        ``poll_seconds`` the time between looks at the queue.
        """

        name: Literal["slurm"] = "slurm"
        jobs: int = Field(16, ge=1)
        minutes: int | None = Field(None, ge=1)
        devices: int = Field(0, ge=0)
        timeouts: int = Field(3, ge=0)
        cpus: int = Field(1, ge=1)
        partition: str | None = None
        gres: str | None = None
        account: str | None = None
        qos: str | None = None
        constraint: str | None = None
        setup: tuple[str, ...] = ()
        options: dict[str, str | int | bool] = Field({})
        poll_seconds: float = Field(10.0, gt=0)

    config: Config

    def check(self, limits: Limits) -> None:
        """See the contract; the machine must be one that can submit jobs."""
        for program in ("sbatch", "squeue"):
            if shutil.which(program) is None:
                raise InputError(
                    f"no {program} here; start the suite on a machine of the cluster, or set launcher.name=local"
                )
        queue()

    @property
    def width(self) -> int:
        """See the contract."""
        return self.config.jobs

    @property
    def available(self) -> int:
        """See the contract."""
        return self.config.devices

    def run(self, work: Work) -> None:
        """See the contract; jobs that are in the queue when we are stopped stay there."""
        self.tasks: dict[Place, Item] = {}
        self.adopted: set[Place] = set()
        self.missed: Counter[Place] = Counter()
        (self.folder / FOLDER).mkdir(parents=True, exist_ok=True)
        while work.unfinished():
            try:
                states = queue()
            except InputError:
                states = None  # Slurm is being restarted: its jobs go on
            if states is not None:
                self._adopt(work, states)
                self._note_changes(work, states)
                self._submit_ready(work)
            work.observe(None)
            if work.unfinished():
                time.sleep(self.config.poll_seconds)

    def _adopt(self, work: Work, states: dict[Place, str]) -> None:
        """Take over the jobs in the queue that another start of this suite submitted."""
        waiting = {item.folder.name: item for item in work.items if work.statuses[item.name].state == "waiting"}
        submissions = {name for name, _ in states} if waiting else set()
        for path in (self.folder / FOLDER / name / LIST for name in sorted(submissions)):
            names = json.loads(path.read_text()) if path.exists() else []
            for index, name in enumerate(names):
                place = (path.parent.name, index)
                if name in waiting and place not in self.tasks and states.get(place, "COMPLETED") not in ENDED:
                    self.tasks[place] = waiting.pop(name)
                    self.adopted.add(place)
                    work.statuses[self.tasks[place].name].attempts = 1
                    work.note(self.tasks[place], "queued")

    def _note_changes(self, work: Work, states: dict[Place, str]) -> None:
        for place, item in list(self.tasks.items()):
            state = states.get(place, "")
            if state and state not in ENDED:
                self.missed[place] = 0
                self._note_alive(work, item, state)
            elif self._note_ended(work, place, item, state):
                del self.tasks[place]

    @staticmethod
    def _note_alive(work: Work, item: Item, state: str) -> None:
        status = work.statuses[item.name]
        if state in WAITING:
            if status.state != "queued":
                work.note(item, "queued")
        elif status.state != "running":
            status.started = time.monotonic()
            work.note(item, "running")

    def _note_ended(self, work: Work, place: Place, item: Item, state: str) -> bool:
        """Note what a job that has ended left; return False while its files may still be on their way."""
        status = work.statuses[item.name]
        if finished(item):
            status.seconds = time.monotonic() - status.started if status.started else None
            work.note(item, "done")
        elif reason := _reason(item):
            work.fail(item, reason)
        else:
            self.missed[place] += 1
            if self.missed[place] < PATIENCE:
                return False
            reason = f"Slurm ended its job: {state}" if state else "its job left Slurm's queue without a result"
            if place in self.adopted:  # perhaps it never began: we were killed while submitting it
                work.note(item, "waiting", f"submitted again: {reason}")
            else:
                record_failure(item, reason, status.attempts)
                work.fail(item, reason)
        return True

    def _submit_ready(self, work: Work) -> None:
        """Submit the items that are ready, unless another start of this suite has just done so."""
        if not work.ready():
            return
        with FileLock(self.folder / FOLDER / ".lock"):
            try:
                self._adopt(work, queue())
            except InputError:
                return
            ready = work.ready()
            for item in [item for item in ready if finished(item)]:
                work.note(item, "done")
                ready.remove(item)
            alike: dict[
                tuple[int, int], list[Item]
            ] = {}  # an array asks for the same devices and time for all its jobs
            for item in ready:
                alike.setdefault((item.devices, self._minutes(item)), []).append(item)
            for items in alike.values():
                for first in range(0, len(items), LARGEST):
                    if not self._submit(work, items[first : first + LARGEST]):
                        return

    def _minutes(self, item: Item) -> int:
        if self.config.minutes is not None or item.expected is None:
            return self.config.minutes or DAY
        return max(HOUR, math.ceil(PATIENT * item.expected / 60))

    def _submit(self, work: Work, items: list[Item]) -> bool:
        """Submit items as one array; return False if Slurm takes no more of our jobs for now."""
        from submitit.core.utils import FailedJobError

        name = f"masktransfer-{secrets.token_hex(4)}"
        files.write_json(self.folder / FOLDER / name / LIST, [item.folder.name for item in items])
        for item in items:
            (item.folder / FAILURE).unlink(missing_ok=True)
            work.statuses[item.name].attempts += 1
        executor = self._executor(name, work.limits, items[0].devices, self._minutes(items[0]))
        try:
            with executor.batch():
                for item in items:
                    executor.submit(self._job(item, work))
        except FailedJobError as error:
            for item in items:
                work.statuses[item.name].attempts -= 1
            shutil.rmtree(self.folder / FOLDER / name)
            if not self.tasks:
                raise InputError(f"Slurm refused the jobs: {' '.join(str(error).split())}") from error
            return False  # perhaps a limit on jobs in the queue: tried again when some of them have ended
        for index, item in enumerate(items):
            self.tasks[name, index] = item
            work.note(item, "queued")
        return True

    def _job(self, item: Item, work: Work) -> Job:
        environment = process.threads(self.threads or self.config.cpus)
        attempts = work.statuses[item.name].attempts
        return Job(item, environment, work.limits.memory_gib, attempts, self._minutes(item), self.config.timeouts)

    def _executor(self, name: str, limits: Limits, devices: int, minutes: int) -> Any:
        import submitit

        config = self.config
        counted = {"ntasks": 1} if config.devices else {}  # sbatch takes --gpus-per-task only with it
        options = {"requeue": True, **counted, **config.options}
        executor = submitit.SlurmExecutor(self.folder / FOLDER / name, max_num_timeout=config.timeouts)
        chosen = {
            "partition": config.partition,
            "gres": config.gres,
            "gpus_per_task": devices if config.devices else None,
            "account": config.account,
            "qos": config.qos,
            "constraint": config.constraint,
            "mem": None if limits.memory_gib is None else f"{max(round(limits.memory_gib * 1024), 1)}M",
        }
        executor.update_parameters(
            job_name=name,
            time=minutes,
            cpus_per_task=config.cpus * devices,
            array_parallelism=config.jobs,
            stderr_to_stdout=True,
            setup=list(config.setup),
            additional_parameters={key: value for key, value in options.items() if value is not False},
            **{key: value for key, value in chosen.items() if value is not None},
        )
        return executor


def _reason(item: Item) -> str:
    """Return the reason in an item's ``failure.json``, or nothing."""
    path: Path = item.folder / FAILURE
    try:
        return str(json.loads(path.read_text())["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


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
