"""Memory format and precision of a run: as asked, or by a short measurement on this device with these shapes."""

import copy
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from core import bounds, distributed
from core.backbones import Backbone
from core.errors import InputError
from core.files import write_json
from pretrain.heads import Encoder
from pretrain.saliency import stage_features

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
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
        return torch.autocast(device.type, DTYPES.get(self.precision), enabled=self.precision in DTYPES)

    def set_backends(self, deterministic: bool) -> None:
        """Say how GPUs multiply float32, which cuDNN rounds to TF32 unless told not to, and how kernels are chosen."""
        rounding = "tf32" if self.precision == "tf32" else "ieee"
        torch.backends.cuda.matmul.fp32_precision = rounding
        torch.backends.cudnn.conv.fp32_precision = rounding  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = not deterministic
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)

    def __str__(self) -> str:
        return f"{'channels-last' if self.channels_last else 'contiguous'} {self.precision}"


def candidates(channels_last: bool | str, precision: str, device: torch.device, bf16: bool) -> list[Form]:
    """Return the forms that settings leave open, the plain one first; ``bf16`` says whether that is worth a try."""
    formats = [False, True] if channels_last == "auto" else [bool(channels_last)]
    open_ones = ["fp32", *(["tf32"] if device.type == "cuda" else []), *(["bf16"] if bf16 else [])]
    return [Form(f, p) for f in formats for p in (open_ones if precision == "auto" else [precision])]


def computes_bf16(device: torch.device) -> bool:
    """Tell whether a device multiplies bf16 itself: GPUs, and CPUs with AMX or AVX-512 BF16; others are far slower with it."""
    if device.type == "cuda":
        return True
    return device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def single_pixel(backbone: Backbone, size: int, device: torch.device) -> bool:
    """Tell whether the last stage sees a single pixel on a CPU: bf16 gradients are wrong there.

    oneDNN's gradient of a 3x3 kernel with stride 2 on one pixel then holds memory that nobody wrote (torch 2.14.1, AVX-512).
    """
    return device.type == "cpu" and stage_features(backbone, torch.zeros(1, 3, size, size), 3).shape[-1] == 1


def check_bf16(precision: str, backbone: Backbone, size: int, device: torch.device) -> None:
    """Refuse bf16 on a CPU where a stage begins with a single pixel."""
    if precision == "bf16" and single_pixel(backbone, size, device):
        raise InputError(
            f"run.precision=bf16 on a CPU: gradients are wrong where the last stage sees a single pixel, as it does of "
            f"{size} px images; set run.precision=fp32, or larger views.size"
        )


class Task(NamedTuple):
    """What a form is timed on: passes of an encoder over a process's images, in ``groups``, compiled if asked."""

    encoder: Encoder
    rows: int
    groups: int
    size: int
    compiled: bool = False


def choose(asked: tuple[bool | str, str], task: Task, device: torch.device) -> tuple[Form, dict[str, float]]:
    """Return the form to train in, told on stderr, and the seconds of each that was timed (none where there is no choice).

    A forward and backward pass of a copy of the encoder on random images; the main process measures and decides for all.
    """
    bf16 = asked[1] == "auto" and computes_bf16(device) and not single_pixel(task.encoder.backbone, task.size, device)
    forms = candidates(*asked, device, bf16)
    if len(forms) == 1:
        if distributed.is_main():
            print(f"computing in {forms[0]}, as set", file=sys.stderr)
        return forms[0], {}

    def measured() -> tuple[Form, dict[str, float]]:
        seconds = _time(forms, task, device)
        best = min(seconds, key=lambda form: seconds[form])
        rounded = {str(form): round(value, 4) for form, value in seconds.items()}
        told = ", ".join(f"{name} {value:.3g} s" for name, value in rounded.items())
        print(f"chose {best}: {told} for {_rows(task, device)} images of {task.size} px", file=sys.stderr)
        return best, rounded

    return distributed.from_main(measured)


def record(folder: Path, form: Form, seconds: dict[str, float], device: torch.device) -> None:
    """Add the form of a run, and what its choice was measured on, to the run's ``environment.json``."""
    path = folder / "environment.json"
    known = bounds.mapping(path) or {}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else known.get("processor", device.type)
    write_json(path, known | {"form": {"chosen": str(form), "device": name, "seconds": seconds}})


def _rows(task: Task, device: torch.device) -> int:
    """Return how many images are timed: a multiple of the groups, of which batch norm needs two images each."""
    rows = min(task.rows, CPU_ROWS) if device.type == "cpu" else task.rows
    return max(2 * task.groups, rows // task.groups * task.groups)


class _LocalNorm(nn.modules.batchnorm._BatchNorm):
    """Stands for SyncBatchNorm where one process measures alone."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def _copy(form: Form, task: Task) -> nn.Module:
    copied = copy.deepcopy(task.encoder).train().to(memory_format=form.memory_format)
    for module in copied.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.__class__ = _LocalNorm  # type: ignore[assignment]
    if task.compiled:
        copied.compile()
    return copied


def _time(forms: list[Form], task: Task, device: torch.device) -> dict[Form, float]:
    """Warm each form up, drop those without memory enough and the hopeless, then interleave the rest; return the fastest."""
    rows = _rows(task, device)
    images = torch.randn(rows, 3, task.size, task.size, generator=torch.Generator().manual_seed(0)).to(device)
    few = images if device.type == "cuda" else images[: 2 * task.groups]  # a GPU's memory is tried as it will be used
    copies, warm = {}, dict[Form, float]()
    for form in forms:
        try:
            copies[form] = _copy(form, task)
            _pass(form, copies[form], few)
            warm[form] = _pass(form, copies[form], few)
        except torch.OutOfMemoryError:
            copies.pop(form, None)
            print(f"{form} does not fit into the memory of {device}", file=sys.stderr)
    if not warm:
        raise InputError(
            f"{rows} images of {task.size} px do not fit into the memory of {device} in any form; raise train.accumulate, or "
            "lower train.batch_size"
        )
    left = [form for form in warm if warm[form] < HOPELESS * min(warm.values())]
    timed: dict[Form, list[float]] = {form: [] for form in left}
    for _ in range(REPEATS):
        for form in left:
            timed[form].append(_pass(form, copies[form], images))
    return {form: min(values) for form, values in timed.items()}


def _pass(form: Form, encoder: nn.Module, images: Tensor) -> float:
    images = images.contiguous(memory_format=form.memory_format)
    form.set_backends(deterministic=False)
    _wait(images.device)
    began = time.perf_counter()
    with form.autocast(images.device):
        loss = encoder(images).float().square().mean()
    loss.backward()
    _wait(images.device)
    spent = time.perf_counter() - began
    encoder.zero_grad(set_to_none=True)
    return spent


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
