"""Run the project as processes, and a small pre-training: what several tests share of that."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

Run = Callable[..., subprocess.CompletedProcess]


def small_run(images: int = 24, **train: int) -> str:
    """Return the config of a pre-training of seconds, MoCo with MixMask; ``train`` stands over its own keys."""
    return f"""
backbone: {{name: resnet, depth: 18, width: 4}}
data: {{name: shapes, count: {images}, size: 32}}
views: {{size: 32}}
method: {{name: moco, queue: 32, dim: 8}}
branches:
  filled: {{name: mixmask, mask: {{name: block, cells: 4, ratio: 0.5}}}}
train: {json.dumps({"epochs": 1, "batch_size": 8, "workers": 0, "log_every": 1} | train)}
optimizer: {{lr: 0.01}}
"""


def begin(
    command: Sequence[str], environment: Mapping[str, str], output: IO[Any], errors: IO[Any] | None = None
) -> Any:
    """Start a command with its output in files; where the environment names a warm process, as a fork of that one."""
    from transfer.suite import warm

    given, errors = {**os.environ, **environment}, errors or output
    forked = warm.ask(command, output.fileno(), given, errors.fileno())
    return forked or subprocess.Popen(command, stdout=output, stderr=errors, env=given)


def completed(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess:
    """Run a command in a folder, as ``begin`` does, and return what it printed."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        with contextlib.chdir(folder):
            code = begin(command, environment, output, errors).wait(400)
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, code, output.read(), errors.read())


def end_when(
    there: Path, number: int, command: Sequence[str], environment: Mapping[str, str], wait: float | None = None
) -> int:
    """Start a command, send it a signal as soon as a file is there, and return its exit code.

    ``wait`` is how many seconds later; then a command that ends before is none of the caller's business.
    """
    with open(os.devnull, "wb") as nowhere:
        process = begin(command, environment, nowhere)
    end = time.monotonic() + 300
    try:
        while not there.exists():
            if wait is not None and process.poll() is not None:
                return process.returncode
            assert process.poll() is None, f"ended with {process.returncode} before {there} was there"
            assert time.monotonic() < end, f"no {there}"
            time.sleep(0.01)
        time.sleep(wait or 0)
        os.kill(process.pid, number)
        return process.wait(timeout=120)
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def truncated(file: Path) -> Iterator[Path]:
    """Cut a file to its first half for a while."""
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    try:
        yield file
    finally:
        file.write_bytes(whole)


def refused(run: Run, changed: Sequence[Any], key: str, folder: Path, **environment: str) -> None:
    """See that a tool refuses to go on in a folder under changed settings, naming the key, and where the folder's are lost."""
    settings = folder / "settings.json"
    kept = settings.read_bytes()
    for left, told in ((kept, key), (None, "no settings.json tells them")):
        if left is None:
            settings.unlink()
        said = run(*changed, check=2, **environment).stderr.splitlines()[-1]
        assert f"{folder} holds a run of other settings (different: {told}); choose another " in said
        assert (settings.read_bytes() if settings.exists() else None) == left
    settings.write_bytes(kept)


def same(one: Path, other: Path) -> None:
    """Compare what trains of two checkpoints bit for bit: weights, optimizer, schedule, how far they are."""
    from core.weights_file import read_weights_file

    left, right = read_weights_file(one), read_weights_file(other)
    for part in ("model", "state_dict", "optimizer", "scheduler", "param_schedulers", "iteration"):
        _same(left.get(part), right.get(part), part)


def _same(left: Any, right: Any, where: str) -> None:
    import torch

    assert type(left) is type(right), where
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key, value in left.items():
            _same(value, right[key], f"{where}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for index, pair in enumerate(zip(left, right, strict=True)):
            _same(*pair, f"{where}.{index}")
    else:
        assert left == right, where
