"""A process that has imported what items need, and forks one for each of their commands: imports are paid once a suite.

A forked command is as much a process of its own as a started one: session, environment, output and end are its own, and it
ends with whoever asked for it. Nothing is computed in the warm process, so a fork finds no threads and no drawn numbers.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.files import datasets_root
from core.provenance import ROOT

PLACE = "MASKTRANSFER_WARM"  # the socket of the warm process, for all that is started below
MARK = "MASKTRANSFER_ITEM"  # the folder of the item that a process works on
MARK_ROOM = 4096  # bytes, Linux's longest path
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # are read when libraries are loaded
DATASETS = "DETECTRON2_DATASETS"  # is read when Detectron2's data sets are imported
MESSAGE = 2**20  # bytes
BEGUN = b"begun "  # and the process's number
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


class Forked:
    """A command that runs in a fork of the warm process, with what is used of ``subprocess.Popen``."""

    def __init__(self, line: socket.socket, pid: int) -> None:
        self.line, self.pid = line, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raise ``subprocess.TimeoutExpired`` where it does not come in time."""
        if self.returncode is None:
            if not select.select([self.line], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("", timeout or 0)
            told = self.line.recv(MESSAGE)
            self.returncode = int(told) if told else -signal.SIGKILL  # nobody is left to tell
            self.line.close()
        return self.returncode


@contextlib.contextmanager
def kept(modules: Sequence[str], environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Keep a warm process that has imported ``modules``; yield the variable by which commands find it.

    Without modules, and on other systems than Linux since 5.3, there is none, and commands are started as ever.
    """
    if not modules or not _able():
        yield {}
        return
    with (
        tempfile.TemporaryDirectory(prefix="warm-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line,
    ):
        line.bind(place := f"{folder}/socket")
        line.listen(128)
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        room = {MARK: " " * MARK_ROOM}  # first, see ``_mark``
        own = {**room, **os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path, **environment, **room}
        command = [sys.executable, "-P", "-m", __name__, str(line.fileno()), str(os.getpid()), *modules]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        made = subprocess.Popen(command, env=own, pass_fds=[line.fileno()], start_new_session=True, **quiet)  # type: ignore[call-overload]
        line.close()  # a command that asks after its end is refused, and then started
        try:
            yield {PLACE: place}
        finally:
            made.kill()
            made.wait()


def _able() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return sys.platform == "linux"


def ask(
    command: Sequence[str], output: int, environment: Mapping[str, str], errors: int | None = None
) -> Forked | None:
    """Have a Python command run with its output in the file ``output``; None where it must be started by itself.

    ``errors`` is the file of its standard error, where that is another one.
    """
    place, (python, *rest) = environment.get(PLACE), command
    if not place or python != sys.executable or not (rest[0].endswith(".py") or rest[:2] == ["-P", "-m"]):
        return None
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        line.connect(place)
        request = {"arguments": rest, "environment": dict(environment), "folder": os.getcwd(), "asker": os.getpid()}
        socket.send_fds(line, [json.dumps(request).encode()], [output, output if errors is None else errors])
        begun = line.recv(MESSAGE)
    except OSError:  # it has ended
        begun = b""
    if not begun.startswith(BEGUN):
        line.close()
        return None
    return Forked(line, int(begun.removeprefix(BEGUN)))


# ---- in the warm process ----


def serve(listener: socket.socket) -> dict[str, Any]:
    """Fork for every request and tell its exit code; return in each fork, with what was asked."""
    running: dict[int, tuple[int, socket.socket]] = {}  # by the file descriptor that tells of a child's end
    while True:
        for ready in select.select([listener.fileno(), *running], [], [])[0]:
            if ready != listener.fileno():
                pid, line = running.pop(ready)
                os.close(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with line, contextlib.suppress(OSError):  # nobody asks any more
                    line.send(str(code).encode())
                continue
            line = listener.accept()[0]
            message, files, _, _ = socket.recv_fds(line, MESSAGE, 2)
            if not files:  # who asked has ended before it said what
                line.close()
                continue
            request = json.loads(message)
            if any(os.environ.get(name) != request["environment"].get(name) for name in THREADS):
                line.close()
            elif (pid := os.fork()) == 0:
                listener.close()
                for other, (_, theirs) in running.items():
                    os.close(other)
                    theirs.close()
                return {**request, "files": files, "line": line}
            else:
                running[os.pidfd_open(pid)] = pid, line
            for file in files:
                os.close(file)


def become(request: dict[str, Any], server: int, mark: int) -> None:
    """Turn a fork into the process of its command: its own session, streams, environment and randomness."""
    os.setsid()
    _end_with(request["asker"])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != server:
        os._exit(143)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm's warning before a time limit goes to every process
    for stream, file in enumerate(request["files"], start=1):
        os.dup2(file, stream)
        os.close(file)
    root = os.environ.get(DATASETS)
    os.environ.clear()
    os.environ.update(request["environment"])
    registered = sys.modules.get("transfer.frameworks.detectron2.datasets")
    if registered is not None and os.environ.get(DATASETS) != root:
        registered.register_again(datasets_root())
    folder = os.fsencode(request["environment"].get(MARK, ""))
    ctypes.memmove(mark, folder.ljust(MARK_ROOM, b"\0"), MARK_ROOM)  # where other processes read our environment
    name = Path(next(word for word in request["arguments"] if word not in ("-P", "-m"))).stem
    ctypes.CDLL(None).prctl(_PR_SET_NAME, os.fsencode(name)[:15])  # what ps and top call it
    os.chdir(request["folder"])
    random.seed()
    np.random.seed()
    with request["line"] as line:
        line.send(BEGUN + str(os.getpid()).encode())


def _end_with(asker: int) -> None:
    """Send ourselves SIGTERM when the process that asked for us ends, as the kernel does with the children of one."""
    try:
        alive = os.pidfd_open(asker)
    except ProcessLookupError:
        os._exit(143)

    def watch() -> None:
        select.select([alive], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def run(arguments: Sequence[str]) -> None:
    """Run a script, or ``-P -m MODULE``, with its arguments as ``python`` does."""
    if arguments[0] == "-P":
        sys.argv = list(arguments[2:])
        runpy.run_module(arguments[2], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
        runpy.run_path(arguments[0], run_name="__main__")


def main() -> None:
    """Import what is named, then serve; in a fork, run what was asked for."""
    listener, parent, *modules = sys.argv[1:]
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        return
    libc.getenv.restype = ctypes.c_void_p
    mark = libc.getenv(MARK.encode())
    for module in modules:
        with contextlib.suppress(ImportError):  # the command will say so
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # so that a fork's collections copy no memory
    server = os.getpid()
    request = serve(socket.socket(fileno=int(listener)))
    become(request, server, mark)
    run(request["arguments"])


if __name__ == "__main__":
    main()
