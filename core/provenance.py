"""Where a result comes from: seeds, git commit, versions, machine, command."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "torchvision",
    "detectron2",
    "onedl-mmsegmentation",
    "onedl-mmengine",
    "onedl-mmcv",
    "numpy",
    "pillow",
)
ROOT = Path(__file__).resolve().parent.parent


def derive(seed: int, *parts: int | str) -> int:
    """Return a 63-bit seed that depends on all arguments, the same on every machine, process and Python."""
    text = "/".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def environment() -> dict[str, Any]:
    """Describe the machine and the software as plain values."""
    return {
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        "command": [Path(sys.executable).name, *sys.orig_argv[1:]],
    }


def accelerators(device: Any) -> dict[str, Any]:
    """Describe what this process computes on: the device's name, and CUDA's, cuDNN's, NCCL's and the driver's versions."""
    import torch  # here: tools that train nothing start without it

    if device.type != "cuda":
        return {"device": device.type}
    return {
        "device": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        "driver": _driver(),
    }


def shared_memory() -> float:
    """Return the GiB of shared memory (/dev/shm), through which a data loader's workers hand over batches; 0 without any."""
    place = Path("/dev") / "shm"
    return shutil.disk_usage(place).total / 2**30 if place.is_dir() else 0.0


def _driver() -> str | None:
    """Return the version of the NVIDIA driver, as the kernel tells it."""
    try:
        return re.search(r"\d+\.\d+(\.\d+)?", Path("/proc/driver/nvidia/version").read_text())[0]  # type: ignore[index]
    except (OSError, TypeError):
        return None


@functools.cache
def git_commit() -> str | None:
    """Return the commit of the project's checkout, with ``+`` when files differ from it, or None outside git."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        changed = subprocess.run(
            ["git", "--no-optional-locks", "status", "--porcelain"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
