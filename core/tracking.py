"""Numbers outside their folder: TensorBoard, W&B, MLflow; none is imported unless it is asked for.

Where they go, the services' own environment variables say (``WANDB_MODE``, ``MLFLOW_TRACKING_URI``, ...).
"""

import importlib
import importlib.util
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.errors import InputError
from core.files import write_atomic

Name = Literal["tensorboard", "wandb", "mlflow"]
PROJECT = "masktransfer"  # the W&B project and MLflow experiment, unless their environment variables name another


@dataclass(frozen=True)
class Run:
    """What a service is told of a run; one with a ``folder`` goes on with the run that it had there before."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    project: str = ""
    group: str | None = None

    def before(self, service: str) -> str | None:
        """Return the service's name of the run that the folder had there."""
        path = self.folder / f".{service}_run" if self.folder else None
        return path.read_text().strip() if path and path.exists() else None

    def keep(self, service: str, name: str) -> None:
        """Write down the service's name of the run, to go on with it."""
        if self.folder:
            write_atomic(self.folder / f".{service}_run", f"{name}\n")

    def project_in(self, variable: str) -> str | None:
        """Return the project to name, None where an environment variable does."""
        return self.project or (None if os.environ.get(variable) else PROJECT)


class Tracker(ABC):
    """One service that draws curves."""

    package: str

    @abstractmethod
    def __init__(self, run: Run) -> None:
        """Open the run there."""

    @abstractmethod
    def log(self, values: dict[str, float], step: int | None = None) -> None:
        """Send numbers, those of a step or of the whole run."""

    @abstractmethod
    def close(self) -> None:
        """Send what is left."""


class TensorBoard(Tracker):
    """Event files in the run folder."""

    package = "tensorboard"

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(run.folder))

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        """Add scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the event file."""
        self._writer.close()


class Wandb(Tracker):
    """Weights & Biases."""

    package = "wandb"

    def __init__(self, run: Run) -> None:
        wandb: Any = importlib.import_module(self.package)
        place = {"dir": str(run.folder), "id": run.before("wandb"), "resume": "allow"} if run.folder else {}
        self._run = wandb.init(
            project=run.project_in("WANDB_PROJECT"), name=run.name, group=run.group, config=run.config, **place
        )
        run.keep("wandb", self._run.id)

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        """Send scalars."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """End the run there."""
        self._run.finish()


class Mlflow(Tracker):
    """MLflow; the config of a run folder is a file there, that of any other run its parameters."""

    package = "mlflow"

    def __init__(self, run: Run) -> None:
        self._mlflow: Any = importlib.import_module(self.package)
        if project := run.project_in("MLFLOW_EXPERIMENT_NAME"):
            self._mlflow.set_experiment(project)
        before = run.before("mlflow")
        opened = self._mlflow.start_run(run_id=before, run_name=None if before else run.name)
        if run.folder is None:
            self._mlflow.log_params({key: str(value)[:500] for key, value in run.config.items()})
        elif before is None:
            self._mlflow.log_dict(run.config, "config.json")
        run.keep("mlflow", opened.info.run_id)

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        """Send scalars, under names that MLflow admits."""
        names = {key: "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in key) for key in values}
        self._mlflow.log_metrics({names[key]: value for key, value in values.items()}, step=step)

    def close(self) -> None:
        """End the run there."""
        self._mlflow.end_run()


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": Mlflow}


def check(names: Sequence[str], asked: str = "run.track names") -> None:
    """Raise InputError for a tracker whose package is not installed; import none."""
    for name in names:
        if importlib.util.find_spec(TRACKERS[name].package) is None:
            raise InputError(
                f"{asked} {name}, which is not installed; install it (pip install 'masktransfer[tracking]') "
                "or leave it out; the files in the folder hold the same numbers"
            )


def start(names: Sequence[str], run: Run) -> list[Tracker]:
    """Open a run with the named trackers."""
    check(names)
    return [TRACKERS[name](run) for name in names]
