"""Curves outside the run folder: TensorBoard, W&B, MLflow; none is imported unless it is asked for."""

import importlib
import importlib.util
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from core.errors import InputError
from core.files import write_atomic

Name = Literal["tensorboard", "wandb", "mlflow"]
PROJECT = "masktransfer"  # the W&B project and MLflow experiment, unless their environment variables name another


class Tracker(ABC):
    """One service that draws curves."""

    package: str

    @abstractmethod
    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        """Open the run of ``folder`` there, going on with the one it had before."""

    @abstractmethod
    def log(self, step: int, values: dict[str, float]) -> None:
        """Send one step's numbers."""

    @abstractmethod
    def close(self) -> None:
        """Send what is left."""


class TensorBoard(Tracker):
    """Event files in the run folder."""

    package = "tensorboard"

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the event file."""
        self._writer.close()


class Wandb(Tracker):
    """Weights & Biases; its own environment variables (``WANDB_MODE=offline``, ``WANDB_PROJECT``) hold."""

    package = "wandb"

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        wandb: Any = importlib.import_module(self.package)
        project = None if _set("WANDB_PROJECT") else PROJECT
        self._run = wandb.init(
            project=project, name=folder.name, dir=str(folder), config=config, id=_kept(folder, "wandb"), resume="allow"
        )
        _keep(folder, "wandb", self._run.id)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Send scalars."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """End the run there."""
        self._run.finish()


class Mlflow(Tracker):
    """MLflow; its own environment variables (``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME``) hold."""

    package = "mlflow"

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self._mlflow: Any = importlib.import_module(self.package)
        if not _set("MLFLOW_EXPERIMENT_NAME"):
            self._mlflow.set_experiment(PROJECT)
        before = _kept(folder, "mlflow")
        run = self._mlflow.start_run(run_id=before, run_name=None if before else folder.name)
        if before is None:
            self._mlflow.log_dict(config, "config.json")
            _keep(folder, "mlflow", run.info.run_id)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Send scalars."""
        self._mlflow.log_metrics(values, step=step)

    def close(self) -> None:
        """End the run there."""
        self._mlflow.end_run()


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": Mlflow}


def check(names: Sequence[str]) -> None:
    """Raise InputError for a tracker whose package is not installed; import none."""
    for name in names:
        if importlib.util.find_spec(TRACKERS[name].package) is None:
            raise InputError(
                f"run.track names {name}, which is not installed; install it (pip install 'masktransfer[tracking]') "
                "or leave it out; journal.jsonl holds the same numbers"
            )


def start(names: Sequence[str], folder: Path, config: dict[str, Any]) -> list[Tracker]:
    """Open the named trackers for a run folder."""
    check(names)
    return [TRACKERS[name](folder, config) for name in names]


def _kept(folder: Path, name: str) -> str | None:
    path = folder / f".{name}_run"
    return path.read_text().strip() if path.exists() else None


def _keep(folder: Path, name: str, run: str) -> None:
    write_atomic(folder / f".{name}_run", f"{run}\n")


def _set(variable: str) -> bool:
    return bool(os.environ.get(variable))
