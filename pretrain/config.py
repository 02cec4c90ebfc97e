"""The settings of a pre-training run, checked before anything starts."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from core import tracking
from core.config import Settings
from core.plugins import choice
from pretrain.encoding import MixedNorm
from pretrain.monitor import MonitorSettings
from pretrain.optimizers import AnyOptimizer, Schedule, Sgd
from pretrain.views import ViewSettings


class RunSettings(Settings):
    """Where and how to compute; nothing here changes what is learned except ``seed`` and ``precision``.

    ``auto`` measures ``channels_last`` and ``precision`` (fp32, tf32 on a GPU, bf16 where the device computes it) on this device
    before the first step; the run keeps the choice in its checkpoints. It is not the default: another format rounds
    differently, and a config without it gives the same bits on every start. ``fp32`` is never rounded to TF32 on the way.
    ``deterministic`` gives the same bits on GPUs too, where torch can, and warns where it cannot. ``graphs: auto`` launches a
    step as one CUDA graph where one process uses one GPU (``pretrain/graphs.py``); elsewhere, and with false, kernel by kernel.
    """

    folder: Path | None = None  # by default runs/<name of the config file>
    seed: int = 0
    overwrite: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["fp32", "tf32", "bf16", "fp16", "auto"] = "fp32"
    deterministic: bool = False
    channels_last: bool | Literal["auto"] = False
    compile: bool = False
    graphs: bool | Literal["auto"] = "auto"
    threads: int | None = Field(None, ge=1)  # torch threads; by default torch's own choice
    tensorboard: bool = False  # the same as track=[tensorboard]
    track: tuple[tracking.Name, ...] = ()

    @property
    def trackers(self) -> list[str]:
        """Return the names of the services that get the curves."""
        return list(dict.fromkeys((*(["tensorboard"] if self.tensorboard else []), *self.track)))


class TrainSettings(Settings):
    """``batch_size`` is global: the images of one optimizer step in all processes together.

    ``accumulate`` cuts a process's share of it into that many micro-batches, each with its own forward and backward pass.
    Batch norm, partners, negatives from the batch and the queue (which takes each micro-batch's keys before the next one)
    then see a micro-batch only; masks and steps stay those of the whole batch.

    last.pth is written every ``checkpoint_every`` epochs, and every ``checkpoint_minutes`` in between.

    ``precise_bn`` batches of clean query views give the batch norm statistics of the epoch_NNNN.pth files and of the final
    last.pth (0: the running averages of training); see ``pretrain/batchnorm.py``.

    ``damaged_share`` of the images may be damaged where ``data.damaged`` is skip; one always may.
    """

    epochs: int = Field(200, ge=1)
    batch_size: int = Field(256, ge=2)
    accumulate: int = Field(1, ge=1)
    workers: int = Field(8, ge=0)
    log_every: int = Field(10, ge=1)  # steps
    checkpoint_every: int = Field(1, ge=1)  # epochs between updates of last.pth
    checkpoint_minutes: float | None = Field(None, gt=0)
    keep_every: int = Field(50, ge=1)  # epochs between the epoch_NNNN.pth that are kept
    precise_bn: int = Field(0, ge=0)
    damaged_share: float = Field(0.1, ge=0, le=1)


class PretrainSettings(Settings):
    """One pre-training run; ``plain_weight`` is the weight of the loss between the clean views (0 leaves it out).

    ``mixed_norm`` says how batch norm treats clean and mixed queries: each view by itself, all together, or mixed ones by
    statistics and scales of their own (``objective.Objective``).
    """

    backbone: choice("core.backbones")
    data: choice("core.data")
    views: ViewSettings = ViewSettings()
    method: choice("pretrain.methods")
    plain_weight: float = Field(1.0, ge=0)
    mixed_norm: MixedNorm = "separate"
    branches: dict[Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")], choice("pretrain.branches")] = Field({})
    optimizer: AnyOptimizer = Sgd()
    schedule: Schedule = Schedule()
    train: TrainSettings = TrainSettings()
    run: RunSettings = RunSettings()
    monitor: MonitorSettings = MonitorSettings()
