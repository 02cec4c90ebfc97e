"""Detectron2's trainer with our checkpointer, evaluators and journal."""

from transfer.frameworks.detectron2 import compat  # noqa: F401, I001 - first: it prepares Detectron2's import

import time
import weakref
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, TensorboardXWriter
from torch import nn

from core.errors import InputError
from core.journal import Journal
from transfer.frameworks.detectron2 import evaluators
from transfer.frameworks.detectron2.checkpoint import ProvenCheckpointer


class Trainer(DefaultTrainer):
    """Train as a config asks, with precise BN, checkpoints and evaluation; ``results`` are the last evaluation's."""

    checkpointer: ProvenCheckpointer

    def build_hooks(self) -> list[HookBase | None]:
        """Return Detectron2's hooks, saving through our checkpointer, and the journal."""
        self.checkpointer = ProvenCheckpointer(self.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        found: list[HookBase | None] = super().build_hooks()
        if comm.is_main_process():
            found.append(JournalHook(Path(self.cfg.OUTPUT_DIR), period=_log_period(self.max_iter)))
        return found

    def build_writers(self) -> list[EventWriter]:
        """Return TensorBoard only; the journal is the log."""
        return [TensorboardXWriter(self.cfg.OUTPUT_DIR)]

    @classmethod
    def build_evaluator(cls, cfg: Any, dataset_name: str) -> DatasetEvaluator:
        """Return the evaluator of one test set."""
        return evaluators.build(cfg, dataset_name)

    @classmethod
    def build_optimizer(cls, cfg: Any, model: nn.Module) -> torch.optim.Optimizer:
        """Return Detectron2's SGD, or AdamW where ``SOLVER.OPTIMIZER`` asks for it (arXiv 1711.05101)."""
        if cfg.SOLVER.OPTIMIZER == "SGD":
            return super().build_optimizer(cfg, model)
        if cfg.SOLVER.OPTIMIZER != "AdamW":
            raise InputError(f"SOLVER.OPTIMIZER is {cfg.SOLVER.OPTIMIZER!r}; there are 'SGD' and 'AdamW'")
        parameters = get_default_optimizer_params(model, weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM)
        return torch.optim.AdamW(parameters, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)

    @property
    def results(self) -> dict[str, Any]:
        """Return the last evaluation; ``train`` itself returns it only when the config expects certain numbers."""
        return getattr(self, "_last_eval_results", None) or {}


class JournalHook(HookBase):
    """Write a line of ``journal.jsonl`` every ``period`` steps, and show the progress."""

    def __init__(self, folder: Path, period: int) -> None:
        self.folder, self.period = folder, period

    def before_train(self) -> None:
        """Open the journal, without the lines of steps that will be done again."""
        self.journal = Journal(self.folder, self.trainer.max_iter, start=self.trainer.start_iter, label="detection")
        self.began = time.monotonic()

    def after_step(self) -> None:
        """Log the smoothed loss and its parts."""
        step = self.trainer.iter + 1
        if step % self.period and step != self.trainer.max_iter:
            return
        latest = {name: value for name, (value, _) in self.trainer.storage.latest().items()}
        losses = {name.replace("loss_", "loss/"): value for name, value in latest.items() if "loss_" in name}
        values = {"loss": latest["total_loss"], **losses, "lr": self.trainer.optimizer.param_groups[0]["lr"]}
        values = {name: round(float(value), 6) for name, value in values.items()}
        self.journal.log(step, **values, seconds=round(time.monotonic() - self.began, 3))

    def after_train(self) -> None:
        """Close the journal, also after an error."""
        self.journal.close()


def _log_period(iterations: int) -> int:
    """Return 20, Detectron2's period, or less for a short schedule."""
    return max(1, min(20, iterations // 20))
