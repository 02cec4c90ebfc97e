"""Say in one table what is installed, what works, and what to do about what does not."""

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import sys
from typing import NamedTuple

import checkout  # noqa: F401

from core.errors import cli
from core.files import datasets_root

NEEDED = {  # distribution -> the module to import in a process of its own, so that one broken framework hides no other
    "torch": "torch",
    "torchvision": "torchvision",
    "detectron2": "transfer.frameworks.detectron2.compat",
    "onedl-mmengine": "mmengine",
    "onedl-mmcv": "mmcv",
    "onedl-mmsegmentation": "transfer.frameworks.mmseg.compat",
    "pycocotools": "pycocotools.mask",
    "faster-coco-eval": "faster_coco_eval",
}
DEVICE = (
    "import torch; g = torch.cuda.is_available(); "
    "print((torch.cuda.get_device_name() + f' x{torch.cuda.device_count()}, nccl') if g "
    "else f'cpu, {torch.get_num_threads()} threads, gloo')"
)


SHARED = 1.2  # GiB that the workers of a process with 256 images of 224 px fill: docs/scaling.md


class Row(NamedTuple):
    """One line of the table; ``needed`` lines that are not ``ok`` make the exit code 1."""

    what: str
    found: str
    ok: bool
    needed: bool
    next_step: str = ""


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    return argparse.ArgumentParser(description=__doc__)


def main() -> int:
    """Print the table; exit 1 when something needed is missing."""
    parser().parse_args()
    from rich.console import Console  # here: --help must not wait
    from rich.table import Table

    rows = [_python(), *map(_package, NEEDED), _device(), _disk(), _shared_memory(), *_datasets()]
    table = Table("", "what", "found", "next step", title="doctor")
    for row in rows:
        mark = "[green]ok[/]" if row.ok else "[red]missing[/]" if row.needed else "[yellow]absent[/]"
        table.add_row(mark, row.what, row.found, row.next_step)
    Console().print(table)
    return int(any(row.needed and not row.ok for row in rows))


def _python() -> Row:
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Row("Python", sys.version.split()[0], ok, True, "" if ok else "make setup PYTHON=python3.11")


def _package(distribution: str) -> Row:
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return Row(distribution, "not installed", False, True, "make setup")
    done = _run(f"import {NEEDED[distribution]}")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Row(distribution, f"{version}, does not import: {reason}", False, True, "make clean setup")
    return Row(distribution, version, True, True)


def _device() -> Row:
    done = _run(DEVICE)
    return Row("device, backend", done.stdout.strip() or "unknown", done.returncode == 0, True)


def _disk() -> Row:
    free = shutil.disk_usage(os.curdir).free / 2**30
    return Row("free disk", f"{free:.0f} GiB", free > 2, True, "" if free > 2 else "free some space: a run needs 2 GiB")


def _shared_memory() -> Row:
    from core.provenance import shared_memory

    found = shared_memory()
    step = (
        "" if found >= SHARED else f"a run with 8 workers hands batches over there: docker run --shm-size={SHARED:g}g"
    )
    return Row("shared memory", f"{found:.1f} GiB", found >= SHARED, False, step)


def _datasets() -> list[Row]:
    from transfer.datasets.checking import PLACES

    root = datasets_root()
    rows = []
    for place in PLACES:
        found = (root / place).is_dir()
        step = (
            ""
            if found
            else "rendered when first used"
            if place.startswith("shapes")
            else "tools/prepare_data.py --help"
        )
        rows.append(Row(f"dataset {place}", str(root / place) if found else "not there", found, False, step))
    return rows


def _run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)


if __name__ == "__main__":
    cli(main)
