"""Memory format and precision of a run: as asked, or by a short measurement on this device with these shapes."""

import copy
import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from core import distributed
from core.backbones import Backbone
from core.errors import InputError
from core.files import write_json
from pretrain.saliency import stage_features

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
REPEATS = 3
CPU_ROWS = (
    8  # images timed on a CPU: the winner does not depend on the batch there, and ResNet-50 takes seconds for these
)
HOPELESS = 2.0  # a form that takes this many times the best one's time in the warm-up pass is timed no further


class Form(NamedTuple):
    """How images and weights lie in memory, and what autocast computes in."""

    channels_last: bool
    precision: str

    @property
    def memory_format(self) -> torch.memory_format:
        """Return torch's name of the format."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context to compute in."""
        return torch.autocast(device.type, DTYPES[self.precision], enabled=self.precision != "fp32")

    def __str__(self) -> str:
        return f"{'channels-last' if self.channels_last else 'contiguous'} {self.precision}"


def candidates(channels_last: bool | str, precision: str, device: torch.device) -> list[Form]:
    """Return the forms that settings leave open, the plain one first; bf16 on a CPU only where it is asked for."""
    formats = [False, True] if channels_last == "auto" else [bool(channels_last)]
    open_ones = ["fp32"] if device.type == "cpu" else ["fp32", "bf16"]
    return [Form(f, p) for f in formats for p in (open_ones if precision == "auto" else [precision])]


def check_bf16(precision: str, backbone: Backbone, size: int, device: torch.device) -> None:
    """Refuse bf16 on a CPU where a stage begins with a single pixel.

    oneDNN's gradient of a 3x3 kernel with stride 2 on one pixel then holds memory that nobody wrote (torch 2.14.1, AVX-512).
    """
    if device.type == "cpu" and precision == "bf16":
        maps = stage_features(backbone, torch.zeros(1, 3, size, size), 3)
        if maps.shape[-1] == 1:
            raise InputError(
                f"run.precision=bf16 on a CPU: gradients are wrong where the last stage sees a single pixel, as it does of "
                f"{size} px images; set run.precision=fp32, or larger views.size"
            )


def choose(
    asked: tuple[bool | str, str], encoder: nn.Module, rows: int, groups: int, size: int, device: torch.device
) -> tuple[Form, dict[str, float]]:
    """Return the form to train in, told on stderr, and the seconds of each that was timed (none where there is no choice).

    A forward and backward pass of a copy of ``encoder`` on random images, a multiple of ``groups`` of them; the main
    process decides for all.
    """
    forms = candidates(*asked, device)
    if len(forms) == 1:
        if distributed.is_main():
            print(f"computing in {forms[0]}, as set", file=sys.stderr)
        return forms[0], {}
    few = 2 * groups  # batch norm needs two images a group
    rows = max(few, (min(rows, CPU_ROWS) if device.type == "cpu" else rows) // groups * groups)
    images = torch.randn(rows, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    seconds = _time(forms, encoder, images, few)
    best: Form = distributed.gather_objects(min(seconds, key=lambda form: seconds[form]))[0]
    rounded = {str(form): round(value, 4) for form, value in seconds.items()}
    if distributed.is_main():
        told = ", ".join(f"{name} {value:.3g} s" for name, value in rounded.items())
        print(f"chose {best}: {told} for {rows} images of {size} px", file=sys.stderr)
    return best, rounded


def record(folder: Path, form: Form, seconds: dict[str, float], device: torch.device) -> None:
    """Add the form of a run, and what its choice was measured on, to the run's ``environment.json``."""
    path = folder / "environment.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else known.get("processor", device.type)
    write_json(path, known | {"form": {"chosen": str(form), "device": name, "seconds": seconds}})


def _time(forms: list[Form], encoder: nn.Module, images: Tensor, few: int) -> dict[Form, float]:
    """Warm each form up on ``few`` images, drop the hopeless, then interleave the rest; return each one's fastest."""
    copies = {form: copy.deepcopy(encoder).train().to(memory_format=form.memory_format) for form in forms}
    warm: dict[Form, float] = {}
    for form in forms:
        _pass(form, copies[form], images[:few])
        warm[form] = _pass(form, copies[form], images[:few])
    left = [form for form in forms if warm[form] < HOPELESS * min(warm.values())]
    timed: dict[Form, list[float]] = {form: [] for form in left}
    for _ in range(REPEATS):
        for form in left:
            timed[form].append(_pass(form, copies[form], images))
    return {form: min(values) for form, values in timed.items()}


def _pass(form: Form, encoder: nn.Module, images: Tensor) -> float:
    images = images.contiguous(memory_format=form.memory_format)
    _wait(images.device)
    began = time.perf_counter()
    with form.autocast(images.device):
        loss = encoder(images).float().square().mean()
    loss.backward()
    _wait(images.device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
