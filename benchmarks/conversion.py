"""Measure the conversion of networks to each framework, with its proof, once everything is imported.

    python benchmarks/conversion.py [--repeats 3]

A proof compares every tensor and the features of both networks. Checkpoints have random weights and lie on the disk. Each
measurement is the first of its network in a process of its own, after one of another network: seconds of processor time on one
thread, and the largest memory beyond what was held before, against the file's size.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import figures
import torch

from core.backbones import without_values
from transfer.convert import convert

SUFFIXES = {"detectron2": ".pkl", "mmseg": ".pth", "torchvision": ".pth", "timm": ".pth", "hf": ""}
CASES = [(model, target) for model in ("resnet50",) for target in SUFFIXES]
CASES += [(model, target) for model in ("regnety_160", "convnextv2_base") for target in ("detectron2", "mmseg")]


def checkpoint(folder: Path, model: str) -> Path:
    """Save a model of timm's as its own training would, if it is not there yet; values are drawn once."""
    import timm

    file = folder / f"{model}.pth"
    if not file.exists():
        with without_values():
            shapes = timm.create_model(model).state_dict()
        torch.manual_seed(0)
        drawn = {name: _values(tensor) for name, tensor in shapes.items()}
        torch.save(drawn, file)
    return file


def _values(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    return torch.randn(tensor.shape) * 0.02 if tensor.ndim > 1 else torch.rand(tensor.shape) + 0.5


def held(key: str) -> int:
    """Return bytes of this process's memory from Linux: VmRSS now, VmHWM at most."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) * 1024


def measure(folder: Path, model: str, target: str) -> dict[str, float]:
    """Convert once; return processor seconds, and peak memory over the file's size."""
    torch.set_num_threads(1)
    other = "resnet18" if target == "torchvision" else "mobilenetv2_050"
    convert.convert(checkpoint(folder, other), folder / f"warm{SUFFIXES[target]}", target=target)
    source, before = checkpoint(folder, model), held("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    began = time.process_time()
    proof = convert.convert(source, folder / f"out-{target}{SUFFIXES[target]}", target=target)
    seconds, peak = time.process_time() - began, held("VmHWM") - before
    assert proof.tensors_mapped == proof.tensors_expected > 200, proof.tensors_mapped
    return {
        "seconds": seconds,
        "memory": peak / source.stat().st_size,
        "parameters": sum(s["parameters"] for s in proof.stages),
    }


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("FOLDER", "MODEL", "TARGET"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(Path(given.one[0]), *given.one[1:])))
        return 0
    found: dict[tuple[str, str], list[dict[str, float]]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory(prefix="conversion-") as scratch:
        for model in dict.fromkeys(model for model, _ in CASES):
            checkpoint(Path(scratch), model)
        for _ in range(given.repeats):
            for case in CASES:
                command = [sys.executable, "-W", "ignore", __file__, "--one", scratch, *case]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[case].append(json.loads(done.stdout.splitlines()[-1]))
    made = []
    for (model, target), values in found.items():
        what = f"{model} ({values[0]['parameters'] / 1e6:.0f} M parameters) converted to {target} and proven"
        goal = 1.0 if model == "resnet50" else 5.0
        seconds = [value["seconds"] for value in values]
        made.append(figures.of(f"{what}, processor time", seconds, unit="s", goal=goal, sense="at most"))
        memory = [value["memory"] for value in values]
        made.append(figures.of(f"{what}: peak memory over the file's size", memory, goal=3.0, sense="at most"))
    return figures.finish("conversion", made)


if __name__ == "__main__":
    sys.exit(main())
