"""Run a command whose whole process group ends with us, however we end; find all processes that work on one item.

An item's processes are found by a variable they inherit: also those in sessions of their own.
"""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from core.errors import InputError
from transfer.suite import warm

GRACE = 30.0  # seconds between SIGTERM and SIGKILL: time to save a checkpoint
Process = subprocess.Popen[bytes] | warm.Forked
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def run(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    watch: Callable[[], None] | None = None,
    every: float = 0.5,
) -> int:
    """Run a command with its output appended to ``log`` and return its exit code (negative: killed by that signal).

    ``watch`` is called every ``every`` seconds. When it, or a signal handler, raises, the process group is stopped
    first. When we are killed outright, Linux sends the command SIGTERM.
    """
    process = start(command, log, environment)
    try:
        while True:
            try:
                return process.wait(timeout=every)
            except subprocess.TimeoutExpired:
                if watch is not None:
                    watch()
    finally:
        stop(process)


def start(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Process:
    """Start a command in a process group of its own that ends with us, its output appended to ``log``.

    Where the environment names a warm process, that forks one which has imported what the command needs.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = open(log, "ab")  # noqa: SIM115 - closed below, after the error that only opening can raise
    except OSError as error:
        raise InputError(f"cannot write {log}: {error.strerror}; choose another folder") from error
    whole = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
    with output:
        return warm.ask(command, output.fileno(), whole) or subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=whole,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),
        )


def _die_with(parent: int) -> Callable[[], None] | None:
    if _LIBC is None:
        return None

    def prepare() -> None:  # runs in the child between fork and exec
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm's warning before a time limit goes to every process
        if os.getppid() != parent:
            os._exit(143)

    return prepare


def stop(process: Process) -> None:
    """End what is left of the process group: first politely, while its leader lives, then for certain."""
    terminate(process)
    finish(process, GRACE)


def terminate(process: Process) -> None:
    """Ask a process group to end, if its leader lives."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)


def finish(process: Process, seconds: float) -> None:
    """Wait for a group's leader for at most ``seconds``, then kill the whole group."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=max(seconds, 0.0))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def sigterm_ends_cleanly() -> Iterator[None]:
    """Turn SIGTERM, SIGHUP and SIGUSR1 into SystemExit(128 + number): children save and stop, files are closed."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def threads(count: int | None, share: int = 1) -> dict[str, str]:
    """Return the variables that give a command ``count`` threads.

    None leaves what the user set, else gives all cores, divided among ``share`` commands.
    """
    if count is None:
        return (
            {} if any(name in os.environ for name in warm.THREADS) else threads(max((os.cpu_count() or 1) // share, 1))
        )
    return dict.fromkeys(warm.THREADS, str(count))


def explain(code: int, log: Path) -> str:
    """Say in one line why a command failed: its own last error, or the signal that ended it."""
    if code < 0:
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"killed by {signal.Signals(-code).name}{hint}"
    lines = [line.strip() for line in tail(log) if line.strip()]
    errors = [at for at, line in enumerate(lines) if re.match(r"(error: |[\w.]*(Error|Exception|Interrupt)\b)", line)]
    last = (lines or ["no output"])[errors[-1] if errors else -1]
    if errors and last.endswith(":"):  # the problems stand below
        last = " ".join(lines[errors[-1] :])
    return f"exit code {code}: {last.removeprefix('error: ')[:500]}"


METER = re.compile(r"([a-z][\w %-]*): (\d+)/(\d+)(  .*)?$")  # what core.meter writes into a log


def progress(log: Path) -> tuple[str, float]:
    """Return the last line in which a command said how far it is, and the share that is done; nothing and 0 before that."""
    for line in reversed(tail(log, 2**16)):
        if (found := METER.match(line)) and int(found[3]):
            return line, int(found[2]) / int(found[3])
    return "", 0.0


class Relay:
    """Pass on to the terminal, or to our own log, what a command writes into ``log`` of how far it is."""

    def __init__(self, log: Path) -> None:
        self.log, self.last = log, progress(log)[0]
        with contextlib.suppress(
            OSError, ValueError
        ):  # a suite writes our output into the same log: there is nothing to pass on
            self.log = Path(os.devnull) if os.path.samestat(os.fstat(sys.stderr.fileno()), os.stat(log)) else log

    def __call__(self) -> None:
        """Print the last line unless it was printed."""
        line, _ = progress(self.log)
        if line not in ("", self.last):
            self.last = line
            print(line, file=sys.stderr, flush=True)


def tail(log: Path, size: int = 8192) -> list[str]:
    """Return the last lines of a file that may be large, still growing, or missing."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.path.getsize(log) - size))
            return re.split(r"[\r\n]+", file.read().decode("utf-8", "replace"))
    except OSError:
        return []


def tag(folder: Path) -> dict[str, str]:
    """Return the variable that marks a command, and all it starts, as working on an item's folder."""
    return {warm.MARK: str(folder.resolve())}


def members(folder: Path) -> list[psutil.Process]:
    """Return the living processes on this machine that work on an item's folder, as far as we may look."""
    mark, here = str(folder.resolve()), os.getpid()
    found = psutil.process_iter(["environ"])
    return [one for one in found if (one.info["environ"] or {}).get(warm.MARK) == mark and one.pid != here]


def kill(folder: Path) -> None:
    """End every process of an item at once."""
    for one in members(folder):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


def memory(processes: Sequence[psutil.Process]) -> int:
    """Return the bytes of memory that processes use; what they share is counted once where the system can tell (Pss)."""
    total = 0
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            try:
                full = one.memory_full_info()
                total += getattr(full, "pss", 0) or full.rss
            except psutil.AccessDenied:
                total += one.memory_info().rss
    return total
