"""Train: batches in, checkpoints and a journal out; interrupted and resumed equals never interrupted."""

import contextlib
import hashlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from core import checkpoint, distributed
from core.errors import InputError
from core.files import write_json
from core.journal import Journal
from pretrain import optimizers
from pretrain.config import PretrainSettings
from pretrain.loader import Batch, EpochOrder, Pairs, loader
from pretrain.objective import Objective, Scored
from pretrain.views import colour

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class NotFinite(InputError):
    """The loss became NaN or infinite."""


class Trainer:
    """Holds everything a run needs to go on: objective, optimizer, scaler, and how far it is."""

    def __init__(
        self, settings: PretrainSettings, objective: Objective, pairs: Pairs, folder: Path, device: torch.device
    ) -> None:
        self.settings, self.folder, self.device = settings, folder, device
        self.objective = objective.to(device)
        self.pairs = pairs
        train = settings.train
        self.order = EpochOrder(
            len(pairs), train.batch_size, settings.run.seed, distributed.rank(), distributed.world()
        )
        self.optimizer = optimizers.make(settings.optimizer, objective.parameters())
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.run.precision == "fp16")
        self.step = 0
        self.damaged: set[str] = set()
        self.total = self.order.steps * train.epochs
        self.stopped_by: int | None = None
        self._wrapped: nn.Module = self.objective
        self._last: dict[str, float] = {}
        self._forwards: dict[str, int] = {}  # a step

    @property
    def epoch(self) -> int:
        """Return the number of finished epochs."""
        return self.step // self.order.steps

    def _due(self, every: int) -> bool:
        """Tell whether an epoch ends here that is the last one, or a multiple of ``every``."""
        return self.step % self.order.steps == 0 and (self.epoch % every == 0 or self.step == self.total)

    # ---- state ----

    def save(self) -> None:
        """Write ``checkpoints/last.pth``, and ``epoch_XXXX.pth`` at the end of the epochs that are kept."""
        norms = [b for name, b in self.objective.named_buffers() if name.endswith(("running_mean", "running_var"))]
        distributed.average(norms)  # every process normalised its own rows
        states = distributed.gather_objects({"torch": torch.get_rng_state()})
        self.damaged.update(*distributed.gather_objects(self.damaged))
        if not distributed.is_main():
            distributed.barrier()
            return
        state = {
            "format": checkpoint.RUN,
            "version": checkpoint.VERSION,
            "config": self.settings.model_dump(mode="json"),
            "progress": {
                "step": self.step,
                "epoch": self.epoch,
                "damaged": sorted(self.damaged),
                "values": self._last,
                "forwards_per_step": self._forwards,
            },
            "method": self.objective.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": states,
        }
        if self._due(self.settings.train.keep_every):
            checkpoint.save(self.folder / "checkpoints" / f"epoch_{self.epoch:04d}.pth", state)
        checkpoint.save(self.folder / "checkpoints" / "last.pth", state)
        distributed.barrier()

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same run."""
        state = checkpoint.load(path)
        self.objective.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["progress"]["step"]
        self.damaged = set(state["progress"]["damaged"])
        self._last, self._forwards = state["progress"]["values"], state["progress"]["forwards_per_step"]
        if len(state["rng"]) == distributed.world():
            torch.set_rng_state(state["rng"][distributed.rank()]["torch"])

    # ---- the loop ----

    def run(self) -> None:
        """Train to the end, or until SIGTERM or SIGINT; ``stopped_by`` tells which."""
        if self.step == self.total:
            if distributed.is_main() and not (self.folder / "summary.json").exists():
                self._summary(None, 0)  # killed after the last checkpoint
            return
        (self.folder / "summary.json").unlink(missing_ok=True)
        self._prepare()
        began, first = time.monotonic(), self.step
        main = distributed.is_main()
        journal = (
            Journal(self.folder, self.total, start=self.step, tensorboard=self.settings.run.tensorboard)
            if main
            else None
        )
        with _stop_signals(self), journal or contextlib.nullcontext():
            while self.step < self.total and not self.stopped_by:
                self._epoch(journal)
                train = self.settings.train
                if self.stopped_by or self._due(train.checkpoint_every) or self._due(train.keep_every):
                    self.save()
        if main:
            seconds = time.monotonic() - began
            self._summary(seconds, self.step - first)

    def _prepare(self) -> None:
        run = self.settings.run
        self.objective.train()
        if run.channels_last:
            self.objective.to(memory_format=torch.channels_last)
        if run.compile:
            for name, encoder in self.objective.method.named_children():
                if name.endswith("_encoder"):
                    encoder.compile()
        if distributed.world() > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            self._wrapped = DistributedDataParallel(self.objective, device_ids=devices, broadcast_buffers=False)

    def _epoch(self, journal: Journal | None) -> None:
        train = self.settings.train
        self.order.epoch, self.order.first = divmod(self.step, self.order.steps)
        batches = loader(self.pairs, self.order, train.workers, pin=self.device.type == "cuda")
        logged, logged_step = time.monotonic(), self.step
        for batch in batches:
            scored, lr = self._step(batch)
            self.step += 1
            if self.step % train.log_every == 0 or self.step == self.total or self.step % self.order.steps == 0:
                values = self._values(scored)
                now = time.monotonic()
                if journal is not None:
                    rate = (self.step - logged_step) * train.batch_size / (now - logged)
                    journal.log(self.step, epoch=self.epoch, **values, lr=lr, images_per_second=round(rate, 1))
                logged, logged_step = now, self.step
            if distributed.any_process(self.stopped_by is not None, self.device):
                self.stopped_by = self.stopped_by or signal.SIGTERM
                self._values(scored)
                return

    def _step(self, batch: Batch) -> tuple[Scored, float]:
        for name in sorted(set(batch.damaged) - self.damaged):
            print(f"skipping a damaged image: {name}", file=sys.stderr)
        self.damaged.update(batch.damaged)
        first, second = self._views(batch)
        progress = self.step / self.total
        lr = self.settings.optimizer.lr * self.settings.schedule.factor(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.objective.method.begin_step(progress)
        precision = self.settings.run.precision
        self.objective.forwards = dict.fromkeys(self.objective.forwards, 0)
        with torch.autocast(self.device.type, DTYPES[precision], enabled=precision != "fp32"):
            scored = self._wrapped(first, second, self.step, distributed.rank() * len(first))
        self._forwards = dict(self.objective.forwards)
        self.scaler.scale(scored.loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.objective.method.end_step(torch.cat(scored.keys))  # after backward, which still reads the negatives
        return scored, lr

    @torch.no_grad()
    def _views(self, batch: Batch) -> tuple[Tensor, Tensor]:
        views = []
        for crops, colours in zip(batch.crops, batch.colours, strict=True):
            crops, colours = (part.to(self.device, non_blocking=True) for part in (crops, colours))
            view = colour(crops, colours, self.settings.views)
            views.append(
                view.contiguous(memory_format=torch.channels_last) if self.settings.run.channels_last else view
            )
        return views[0], views[1]

    def _values(self, scored: Scored) -> dict[str, float]:
        """Average the step's losses over processes; refuse NaN before anything of it reaches a checkpoint."""
        names = ["loss", *scored.parts]
        values = torch.stack(
            [scored.loss.detach().float(), *(value.float().to(self.device) for value in scored.parts.values())]
        )
        distributed.average([values])
        self._last = dict(zip(names, values.tolist(), strict=True))
        bad = [name for name, value in self._last.items() if value != value or abs(value) == float("inf")]
        if bad:
            branch = next((name for name in bad if "/" in name), bad[0])
            raise NotFinite(
                f"{branch} is not finite at step {self.step}; the last good checkpoint is kept in {self.folder}/checkpoints; "
                "lower optimizer.lr or use run.precision=fp32"
            )
        return self._last

    def _summary(self, seconds: float | None, steps: int) -> None:
        images = steps * self.settings.train.batch_size
        last = self.folder / "checkpoints" / "last.pth"
        write_json(
            self.folder / "summary.json",
            {
                "status": "stopped" if self.stopped_by else "finished",
                "epochs": self.epoch,
                "steps": self.step,
                "final_loss": self._last.get("loss"),
                "forwards_per_step": self._forwards,
                "images_per_second": round(images / seconds, 1) if seconds else None,
                "seconds": round(seconds, 1) if seconds else None,  # of this start
                "damaged_images": len(self.damaged),
                "knn_top1": None,
                "backbone_sha256": _backbone_hash(checkpoint.query_backbone(checkpoint.load(last))),
            },
        )


def _backbone_hash(tensors: dict[str, Tensor]) -> str:
    """Return the sha256 over names and bytes, which does not depend on the file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _stop_signals(trainer: Trainer) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into a stop after the current step; a second one ends the process at once."""

    def stop(number: int, frame: Any) -> None:
        trainer.stopped_by = number
        signal.signal(number, signal.SIG_DFL)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
