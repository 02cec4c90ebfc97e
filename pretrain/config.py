"""The settings of a pre-training run, checked before anything starts."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from core.config import Settings
from core.plugins import choice
from pretrain.optimizers import OptimizerSettings
from pretrain.schedules import Schedule
from pretrain.views import ViewSettings


class RunSettings(Settings):
    """Where and how to compute; nothing here changes what is learned except ``seed`` and ``precision``."""

    folder: Path | None = None  # by default runs/<name of the config file>
    seed: int = 0
    overwrite: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    threads: int | None = Field(None, ge=1)  # torch threads; by default torch's own choice
    tensorboard: bool = False


class TrainSettings(Settings):
    """``batch_size`` is global: all processes together."""

    epochs: int = Field(200, ge=1)
    batch_size: int = Field(256, ge=2)
    workers: int = Field(8, ge=0)
    log_every: int = Field(10, ge=1)  # steps
    checkpoint_every: int = Field(1, ge=1)  # epochs between updates of last.pth
    keep_every: int = Field(50, ge=1)  # epochs between the epoch_XXXX.pth that are kept


class PretrainSettings(Settings):
    """One pre-training run; ``plain_weight`` is the weight of the loss between the clean views (0 leaves it out)."""

    backbone: choice("core.backbones")
    data: choice("pretrain.data")
    views: ViewSettings = ViewSettings()
    method: choice("pretrain.methods")
    plain_weight: float = Field(1.0, ge=0)
    branches: dict[Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")], choice("pretrain.branches")] = Field({})
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: Schedule = Schedule()
    train: TrainSettings = TrainSettings()
    run: RunSettings = RunSettings()
