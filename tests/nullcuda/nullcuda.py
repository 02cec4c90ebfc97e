"""A CUDA runtime that computes nothing, so that torch's real CUDA path runs on a machine without a GPU.

Tensors "on the device" hold nothing: what is read back is 0. What it finds: tensors on two devices, waits, uploads, launches and
allocations a step, host time, start-up code. What it cannot find: wrong numbers, what real NCCL does. cuDNN's v7 calls stand for
the newer ones, and fp16 for bf16 in convolutions. ``NULLCUDA_DEVICES`` (1), ``NULLCUDA_MEMORY_GB`` (80) and
``NULLCUDA_LAUNCH_NS`` (0: a busy wait a launch, 2,500 stands for a real driver) set what is there.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SITE = Path(sysconfig.get_paths()["purelib"])
NAMES = [
    "kernels", "gemms", "convs", "bns", "h2d", "d2h", "d2d", "memset", "h2d_bytes", "d2h_bytes", "sync", "event_sync", "malloc",
    "malloc_bytes", "cur_bytes", "peak_bytes", "hostalloc", "hostalloc_bytes", "nccl", "graphs", "nodes",
]  # fmt: skip


def headers() -> list[Path]:
    """Return the folders of CUDA's and cuDNN's headers in this environment."""
    cuda = [path.parent for path in SITE.glob("nvidia/cu*/include/cuda_runtime_api.h")]
    return [*cuda, SITE / "triton/backends/nvidia/include", SITE / "nvidia/cudnn/include"]


def why_not() -> str | None:
    """Return why the runtime cannot be built here, or None."""
    if shutil.which("gcc") is None:
        return "no gcc to build the null CUDA runtime with"
    folders = headers()
    if (
        len(folders) < 3
        or not all(folder.is_dir() for folder in folders)
        or not any(SITE.glob("torch/lib/libtorch_cuda.so"))
    ):
        return "torch is no CUDA build here, or its CUDA headers are missing"
    return None


def environment() -> dict[str, str]:
    """Build the libraries once for these sources, and return the variables that put them before the real ones."""
    sources = sorted([*HERE.glob("*.c"), *HERE.glob("*.h")])
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources) + str(headers()).encode()).hexdigest()[:16]
    made = Path(tempfile.gettempdir()) / f"nullcuda-{os.getuid()}-{digest}"
    if not made.is_dir():
        with tempfile.TemporaryDirectory(dir=made.parent) as scratch:
            out = Path(scratch) / "lib"
            out.mkdir()
            include = [f"-I{folder}" for folder in headers()]
            gcc = ["gcc", "-shared", "-fPIC", "-O2", "-w"]
            parts = [HERE / "runtime.c", HERE / "calls.c"]
            subprocess.run([*gcc, "-fvisibility=hidden", *include, *parts, "-o", out / "libnullcuda.so"], check=True)
            driver = out / "libcuda.so.1"
            subprocess.run([*gcc, HERE / "driver.c", "-Wl,-soname,libcuda.so.1", "-o", driver], check=True)
            (out / "libcuda.so").symlink_to(driver.name)
            try:
                out.rename(made)
            except OSError:  # another process was first
                assert made.is_dir()
    return {
        "LD_PRELOAD": str(made / "libnullcuda.so"),
        "LD_LIBRARY_PATH": str(made),
        "TORCH_CUDNN_V8_API_DISABLED": "1",
        "OMP_NUM_THREADS": "1",
    }


# ---- inside a process that runs on it ----


def reset() -> None:
    """Start counting anew; memory in use stays counted."""
    _library().nullcuda_reset()


def counted() -> dict[str, int]:
    """Return the calls, bytes and waits since the last reset, ``launches`` among them."""
    values = (ctypes.c_long * len(NAMES))()
    _library().nullcuda_get(values)
    found = dict(zip(NAMES, values, strict=True))
    return found | {"launches": sum(found[name] for name in ("kernels", "gemms", "convs", "bns", "memset", "graphs"))}


def reads(on: bool) -> None:
    """Let what is read back be what was uploaded, which is garbage wherever a kernel should have written."""
    _library().nullcuda_reads(int(on))


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(os.environ["LD_PRELOAD"].split(":")[0])
