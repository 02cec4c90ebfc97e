"""Train: batches in, checkpoints, a journal and a summary out; interrupted and resumed equals never interrupted."""

import contextlib
import hashlib
import inspect
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from core import checkpoint, distributed, tracking
from core.errors import InputError
from core.files import FileError, write_json
from core.journal import Journal, read
from core.stopping import stop_signals
from pretrain import finite, form, graphs, monitor, optimizers
from pretrain.batchnorm import evaluation_copy, population_statistics
from pretrain.config import PretrainSettings
from pretrain.drawing import Kept
from pretrain.finite import FirstBad
from pretrain.form import Form
from pretrain.loader import Batch, EpochOrder, Pairs, loader
from pretrain.methods import LabelledMethod
from pretrain.objective import Objective, Scored
from pretrain.upload import Inputs, upload
from pretrain.views import colour, recolour, recolouring

NOTHING, SAVE, STOP = range(3)  # what the processes vote for after a step


class Given(NamedTuple):
    """What the device is told of one step, all that is not the same in every step; on a GPU in memory that stays where it is."""

    crops: Tensor  # [views, batch, 3, size, size] uint8
    colours: Tensor  # what ``recolour`` is told, [views * batch, 42]; on a CPU [views, batch, 8] for ``colour``
    number: Tensor  # of the step, from 1 on
    drawn: Sequence[Kept] = ()  # a micro-batch each; without it the branches draw as they go
    labels: Tensor | None = None
    rates: Tensor | None = None  # learning rates of the optimizer's groups, where it reads them on the device


class Outcome(NamedTuple):
    """What one optimizer step gave, all of it still on the device: ``values`` to log, and vectors to watch."""

    values: dict[str, Tensor]
    embeddings: Tensor  # of the last micro-batch
    keys: list[Tensor]
    grad_norm: Tensor | None
    lr: float = 0.0


class Progress(BaseModel):
    """How far a run is, as its checkpoints say; what is not of these types is no checkpoint of ours."""

    model_config = ConfigDict(strict=True)

    step: int = Field(ge=0)
    damaged: list[str]
    values: dict[str, float]
    forwards_per_step: dict[str, int]
    form: tuple[bool, Literal["fp32", "tf32", "bf16", "fp16"]] | None = None
    groups: int | None = None


class _Generators(BaseModel):
    """The states of one process's generators, and of several processes its own running statistics."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    torch: Tensor
    cuda: Tensor | None = None
    norms: dict[str, Tensor] = {}


class Trainer:
    """Holds everything a run needs to go on: objective, optimizer, scaler, and how far it is."""

    def __init__(
        self,
        settings: PretrainSettings,
        objective: Objective,
        pairs: Pairs,
        folder: Path,
        device: torch.device,
        knn: monitor.OnlineKnn | None = None,
    ) -> None:
        self.settings, self.folder, self.device, self.knn = settings, folder, device, knn
        self.objective = objective.to(device)
        self.first_bad = FirstBad()
        self.pairs = pairs
        train, run = settings.train, settings.run
        self.order = self._order()
        self.schedule = settings.schedule.over(train.epochs)
        self.base_lr = settings.optimizer.base_lr(train.batch_size)
        # fused: one pass over memory, a quarter of foreach's time on a CPU, and fp16's scaler never looks at the GPU
        self.optimizer = optimizers.make(settings.optimizer, objective.method, train.batch_size, fused=True)
        self.scaler = torch.amp.GradScaler(device.type, enabled=run.precision == "fp16")
        self.form: Form | None = None  # chosen before the first step
        self.step = 0
        self.damaged: set[str] = set()
        self.total = self.order.steps * train.epochs
        self.stopped_by: int | None = None
        self.asked_by: int | None = None  # a signal that the processes have not agreed on yet
        self.writer = checkpoint.Writer()
        self._saved = time.monotonic()
        self._wrapped: nn.Module = self.objective
        self._inputs = Inputs(device)
        self._taking: Callable[[Given], Outcome] = self._take
        self._last: dict[str, float] = {}
        self._forwards: dict[str, int] = {}  # an image
        rows = train.batch_size // train.accumulate // distributed.world()
        self._labelled = isinstance(objective.method, LabelledMethod)
        chances = objective.method.classes if isinstance(objective.method, LabelledMethod) else rows
        self.alarms = monitor.Alarms(settings.monitor, self.total, chances)

    def _order(self) -> EpochOrder:
        train = self.settings.train
        return EpochOrder(
            len(self.pairs), train.batch_size, self.settings.run.seed, distributed.rank(), distributed.world()
        )

    @property
    def epoch(self) -> int:
        """Return the number of finished epochs."""
        return self.step // self.order.steps

    def _due(self, every: int) -> bool:
        """Tell whether an epoch ends here that is the last one, or a multiple of ``every``."""
        return self.step % self.order.steps == 0 and (self.epoch % every == 0 or self.step == self.total)

    # ---- state ----

    def save(self) -> None:
        """Write ``checkpoints/last.pth``, and ``epoch_NNNN.pth`` where it is kept; raise NotFinite when a weight is no number."""
        norms = self._norms()
        own = {name: value.cpu().clone() for name, value in norms.items()} if distributed.world() > 1 else {}
        distributed.average(list(norms.values()))  # every process normalised its own rows, and goes on with its own
        self.writer.join()  # what a complaint names as kept must be there
        finite.check(self.objective.method.state_dict(), self.step, self.folder, self.settings.run.precision)
        states = distributed.gather_objects({**self._generators(), "norms": own})
        self.damaged.update(*distributed.gather_objects(self.damaged))
        kept = self._due(self.settings.train.keep_every)
        exact = self._population_statistics() if kept and self.settings.train.precise_bn else {}
        if distributed.is_main():
            method = self.objective.method.state_dict()
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
                    "form": tuple(self.form) if self.form else None,
                    "groups": self._groups(),
                },
                "method": method,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "rng": states,
            }
            final = state | {"method": {**method, **exact}}
            files = {self.folder / "checkpoints" / f"epoch_{self.epoch:04d}.pth": final} if kept else {}
            # training never reads running statistics, but a run that goes on keeps its own all the same
            files[self.folder / "checkpoints" / "last.pth"] = final if self.step == self.total else state
            self.writer.write(files)
        for name, value in own.items():
            norms[name].copy_(value)
        self._saved = time.monotonic()

    def _norms(self) -> dict[str, Tensor]:
        """Return the running statistics of all batch norms."""
        buffers = self.objective.named_buffers()
        return {name: value for name, value in buffers if name.endswith(("running_mean", "running_var"))}

    def _groups(self) -> int:
        """Return in how many parts of the batch, of all processes, batch norm and partners work."""
        return self.objective.method.groups * distributed.world()

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same run; raise FileError for one whose content is no such thing."""
        state = checkpoint.load(path)
        try:
            progress = Progress.model_validate(state["progress"])
            ours = self.optimizer.state_dict()["param_groups"]  # what the config says, not the file
            self.objective.method.load_state_dict(state["method"])
            self.optimizer.load_state_dict({**state["optimizer"], "param_groups": ours})
            self.scaler.load_state_dict(state["scaler"])
            generators = [_Generators.model_validate(one) for one in state["rng"]]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise FileError(
                f"{path} is no checkpoint of this run ({type(error).__name__}); put the run's own there"
            ) from error
        if self._misfit() or progress.step > self.total:
            raise FileError(f"{path} does not fit this run's optimizer and steps; put the run's own there")
        if progress.groups not in (None, self._groups()):
            raise InputError(
                f"{path}: batch norm and partners worked in {progress.groups} groups of the batch, here they would in "
                f"{self._groups()}; go on with as many processes as before ({len(generators)})"
            )
        self.step = progress.step
        self.damaged = set(progress.damaged)
        self._last, self._forwards = progress.values, progress.forwards_per_step
        self.form = Form(*progress.form) if progress.form else None
        if len(generators) == distributed.world():
            mine, norms = generators[distributed.rank()], self._norms()
            if mine.norms and {n: v.shape for n, v in mine.norms.items()} != {n: v.shape for n, v in norms.items()}:
                raise FileError(f"{path} does not fit this run's batch norms; put the run's own there")
            for name, value in mine.norms.items():
                norms[name].copy_(value)
            torch.set_rng_state(mine.torch)
            if mine.cuda is not None and self.device.type == "cuda":
                torch.cuda.set_rng_state(mine.cuda, self.device)

    def _misfit(self) -> bool:
        """Tell whether the optimizer keeps something of another shape than its parameter's."""
        kept = ((p.shape, value) for p, state in self.optimizer.state.items() for value in state.values())
        return any(isinstance(value, Tensor) and value.ndim > 0 and value.shape != shape for shape, value in kept)

    def _generators(self) -> dict[str, Tensor]:
        """Return the state of torch's generators: layers such as drop path draw from the device's."""
        cuda = {"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {}
        return {"torch": torch.get_rng_state(), **cuda}

    # ---- the loop ----

    def run(self) -> None:
        """Train to the end, or until SIGTERM or SIGINT; ``stopped_by`` tells which."""
        main, first, began = distributed.is_main(), self.step, time.monotonic()
        if self.step == self.total:
            if main and not (self.folder / "summary.json").exists():
                self._summary(None, 0)  # killed after the last checkpoint
            return
        train = self.settings.train  # a last.pth stands beside the one that it replaces
        files = train.epochs // train.keep_every - self.epoch // train.keep_every + 2
        checkpoint.check_room(self.folder, self.objective.method, self.optimizer, files)
        (self.folder / "summary.json").unlink(missing_ok=True)
        vote = distributed.Vote()
        try:
            with stop_signals(self._ask_to_stop):
                self._prepare()
                with self._journal() if main else contextlib.nullcontext() as journal:
                    while self.step < self.total and self.stopped_by is None:
                        self._epoch(journal, vote)
                        train = self.settings.train
                        if self.stopped_by or self._due(train.checkpoint_every) or self._due(train.keep_every):
                            self.save()
                vote.close()
                if self.step == self.total:
                    self.stopped_by = None  # the signal came with the last step
                self.writer.join()
                if main:
                    self._summary(time.monotonic() - began, self.step - first)
                distributed.barrier()  # torchrun ends the others as soon as one leaves with another code than 0
        finally:
            self.writer.join()  # a run that fails keeps its last good checkpoint

    def _ask_to_stop(self, number: int) -> None:
        self.asked_by = number

    def _prepare(self) -> None:
        """Choose memory format and precision, compile, and share the gradient among processes.

        Only the encoders are compiled: queue pointer, schedules and masks stay outside, so CUDA graphs hold no step's numbers.
        """
        run, train, method = self.settings.run, self.settings.train, self.objective.method
        self.objective.train()
        rows = train.batch_size // train.accumulate // distributed.world()
        if self.form is None:
            asked = (run.channels_last, run.precision)
            task = form.Task(method.query_encoder, rows, method.groups, self.settings.views.size, run.compile)
            self.form, seconds = form.choose(asked, task, self.device)
            if distributed.is_main():
                form.record(self.folder, self.form, seconds, self.device)
        self.form.set_backends(run.deterministic)
        if self.form.channels_last:
            self.objective.to(memory_format=torch.channels_last)
        optimizers.align(self.optimizer)  # a checkpoint may come from another format
        if self.device.type == "cuda" and train.workers:  # elsewhere noise comes from the same generators
            self.pairs.draw_ahead = self._draw_ahead
        if run.compile:
            for name, encoder in method.named_children():
                if name.endswith("_encoder"):
                    encoder.compile()
        if distributed.world() > 1:
            # batch norm's statistics are each process's own (torch renamed the switch after 2.11)
            known = inspect.signature(DistributedDataParallel).parameters
            own = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            kept = {
                name: value.clone() for name, value in self._norms().items()
            }  # the first process's are given to all
            self._wrapped = DistributedDataParallel(
                self.objective,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                gradient_as_bucket_view=True,
                static_graph=train.accumulate == 1,  # no_sync leaves it
                **{own: False},  # type: ignore[arg-type]
            )
            for name, value in self._norms().items():
                value.copy_(kept[name])

        why = graphs.why_not(self.device, self.settings.optimizer)
        if run.graphs and why is None:
            self._taking = graphs.Captured(self._take, self._changing, self._mend)
        elif distributed.is_main() and (run.graphs is True or (run.graphs and self.device.type == "cuda")):
            print(f"run.graphs={run.graphs}: no CUDA graph, {why}", file=sys.stderr)

    def _changing(self) -> dict[str, list[Tensor]]:
        """Return all that a step changes on the device."""
        scaler = [self.scaler._scale, self.scaler._growth_tracker] if self.scaler.is_enabled() else []
        parameters = list(self.objective.parameters())
        kept = [part for state in self.optimizer.state.values() for part in state.values() if isinstance(part, Tensor)]
        return {
            "weights": [part for part in parameters if part.requires_grad],
            "others": [*(part for part in parameters if not part.requires_grad), *self.objective.buffers()],
            "optimizer": kept,
            "rest": [*(part for part in scaler if part is not None), *self.first_bad.kept()],
        }

    def _mend(self) -> None:
        """Forget a step that broke off before its end."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.scaler.is_enabled():
            self.scaler._per_optimizer_states.clear()  # in which the gradient counts as unscaled

    def _stays(self, name: str) -> bool:
        """Tell whether what was drawn is for the host: processes send rows to each other in its order."""
        return distributed.world() > 1 and name.startswith("key ")

    def _draw_ahead(self, step: int) -> list[Kept]:
        """Return what the branches draw for each micro-batch of a step; for a worker of the loader, which has the time."""
        parts, world = self.settings.train.accumulate, distributed.world()
        rows = self.settings.train.batch_size // world // parts
        first = distributed.rank() * rows * parts
        size = self.settings.views.size
        return [self.objective.draw_ahead(rows, size, step, first + number * rows) for number in range(parts)]

    def _journal(self) -> Journal:
        """Open the journal where the run stands, with the alarms its lines have raised so far."""
        run = tracking.Run(self.folder.name, self.settings.model_dump(mode="json"), self.folder)
        trackers = tracking.start(self.settings.run.trackers, run)
        journal = Journal(self.folder, self.total, start=self.step, trackers=trackers)
        for line in read(journal.path):
            self.alarms.see(line)
        return journal

    def _epoch(self, journal: Journal | None, vote: distributed.Vote) -> None:
        train = self.settings.train
        self.order.epoch, self.order.first = divmod(self.step, self.order.steps)
        batches = loader(self.pairs, self.order, train.workers, pin=self.device.type == "cuda")
        logged, logged_step = time.monotonic(), self.step
        for batch in batches:
            outcome = self._step(batch)
            self.step += 1
            if self.step % train.log_every == 0 or self.step == self.total or self.step % self.order.steps == 0:
                values = self._values(outcome)
                rate = (self.step - logged_step) * train.batch_size / (time.monotonic() - logged)
                self._log(journal, outcome, values, rate)
                logged, logged_step = time.monotonic(), self.step
            agreed = vote.cast(self._wish())
            if agreed == STOP:
                self.stopped_by = self.asked_by or signal.SIGTERM
                self._values(outcome)
                return
            if agreed == SAVE and self.step % self.order.steps:
                self._values(outcome)
                self.save()

    def _wish(self) -> int:
        """Say what this process wants to be done after a step; the main process's clock decides on checkpoints."""
        if self.asked_by is not None:
            return STOP
        minutes = self.settings.train.checkpoint_minutes
        late = minutes is not None and time.monotonic() - self._saved > 60 * minutes
        return SAVE if late and distributed.is_main() else NOTHING

    def _log(self, journal: Journal | None, outcome: Outcome, values: dict[str, float], rate: float) -> None:
        knn = self._knn()
        if journal is None:
            return
        line: dict[str, Any] = {"epoch": self.epoch, **values, "lr": outcome.lr}
        if outcome.grad_norm is not None:
            norm = outcome.grad_norm.item()
            line["grad_norm"] = norm if norm == norm and norm != float("inf") else None  # fp16 skips such steps
        line |= monitor.watch(outcome.embeddings, outcome.keys, self._labelled)
        line["images_per_second"] = round(rate, 1)
        if knn is not None:
            line["knn_top1"] = knn
        journal.log(self.step, **line)
        for warning in self.alarms.see({"step": self.step, **line}):
            print(f"warning: {warning}", file=sys.stderr)

    def _step(self, batch: Batch) -> Outcome:
        for name in sorted(set(batch.damaged) - self.damaged):
            print(f"skipping a damaged image: {name}", file=sys.stderr)
        self.damaged.update(batch.damaged)
        if len(self.damaged) > max(1, self.settings.train.damaged_share * len(self.pairs)):
            raise InputError(
                f"{len(self.damaged)} of {len(self.pairs)} images are damaged so far, such as {min(self.damaged)}; copy the "
                "set again, or allow more with train.damaged_share"
            )
        progress = self.step / self.total
        lr = optimizers.set_lr(self.optimizer, self.base_lr, self.schedule.factor(progress))
        self.objective.method.begin_step(progress)
        return self._taking(self._give(batch, self._inputs))._replace(lr=lr)

    def _give(self, batch: Batch, inputs: Inputs) -> Given:
        """Bring a batch, and all else that changes from step to step, to the device; waits for nothing."""
        if self.device.type == "cpu":
            labels = batch.labels if self._labelled else None
            return Given(batch.crops, batch.colours, torch.tensor(self.step + 1.0), batch.drawn, labels)
        told = {
            "colours": recolouring(batch.colours.flatten(0, 1).numpy()),
            "number": torch.tensor(self.step + 1.0),
            "rates": torch.tensor([group["lr"] for group in self.optimizer.param_groups]),
        }
        if self._labelled:
            told["labels"] = batch.labels
        if self.device.type == "mps":  # noise comes from the generators themselves there
            places = {name: upload(part, self.device) for name, part in told.items()}
            crops = batch.crops.to(self.device, non_blocking=True)
            return Given(crops, places["colours"], places["number"], (), places.get("labels"))
        drawn = [dict(part) for part in batch.drawn or self._draw_ahead(self.step)]
        moved = [(number, name) for number, part in enumerate(drawn) for name in part if not self._stays(name)]
        told |= {f"{number} {name}": drawn[number][name] for number, name in moved}
        crops, places = inputs(batch.crops, told)
        for number, name in moved:
            drawn[number][name] = places[f"{number} {name}"]
        fused = self.device.type == "cuda" and self.settings.optimizer.rate_on_device
        rates = places["rates"] if fused else None
        return Given(crops, places["colours"], places["number"], drawn, places.get("labels"), rates)

    def _take(self, given: Given) -> Outcome:
        """Do what the device does in a step; all that is another in the next one is in ``given``."""
        first, second = self._views(given)
        self.objective.forwards = dict.fromkeys(self.objective.forwards, 0)
        scored, parts = [], self.settings.train.accumulate
        for part in range(parts):
            self.objective.kept = given.drawn[part] if given.drawn else None
            scored.append(self._micro_batch(first, second, given.labels, part))
        self._forwards = {encoder: count // parts for encoder, count in self.objective.forwards.items()}
        grad_norm = self._update(given.rates)
        values = {"loss": _mean([one.loss.detach().float() for one in scored])}
        values |= {name: _mean([one.parts[name].float() for one in scored]) for name in scored[0].parts}
        self.first_bad.note(given.number, values)
        return Outcome(values, scored[-1].embeddings, [key.detach() for key in scored[-1].keys], grad_norm)

    def _micro_batch(self, first: Tensor, second: Tensor, labels: Tensor | None, number: int) -> Scored:
        """Score one part of this process's rows and add its gradient; processes share gradients after the last part."""
        assert self.form is not None
        parts = self.settings.train.accumulate
        rows = len(first) // parts
        part = slice(number * rows, (number + 1) * rows)
        alone = isinstance(self._wrapped, DistributedDataParallel) and number < parts - 1
        with self._wrapped.no_sync() if alone else contextlib.nullcontext():  # type: ignore[operator]
            with self.form.autocast(self.device):
                scored = self._wrapped(
                    first[part],
                    second[part],
                    self.step,
                    distributed.rank() * len(first) + part.start,
                    None if labels is None else labels[part],
                )
            self.scaler.scale(scored.loss / parts).backward()
        self.objective.method.end_step(torch.cat(scored.keys))  # after backward, which still reads the negatives
        return scored

    def _update(self, rates: Tensor | None) -> Tensor | None:
        """Step the optimizer; return the gradient's norm before clipping, where it is clipped."""
        norm = None
        if self.settings.optimizer.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            trained = [p for group in self.optimizer.param_groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(trained, self.settings.optimizer.clip_norm)
        with optimizers.rated(self.optimizer, rates):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        # with several processes gradients lie where they are sent from, and stay there
        self.optimizer.zero_grad(set_to_none=self._wrapped is self.objective)
        return norm

    @torch.no_grad()
    def _views(self, given: Given) -> tuple[Tensor, Tensor]:
        """Return both views of the batch; where there is one it is both."""
        assert self.form is not None
        if self.device.type == "cpu":
            made = [
                colour(crops, colours, self.settings.views).contiguous(memory_format=self.form.memory_format)
                for crops, colours in zip(given.crops, given.colours, strict=True)
            ]
            return made[0], made[-1]
        crops = given.crops.flatten(0, 1)
        made = recolour(crops, given.colours, self.settings.views, self.form.memory_format).chunk(len(given.crops))
        return made[0], made[-1]

    # ---- looking at it ----

    def _values(self, outcome: Outcome) -> dict[str, float]:
        """Average the step's losses over processes; refuse NaN before anything of it reaches a checkpoint."""
        bad = self.first_bad.seen()  # also at a step that was not logged
        values = torch.stack([*(value.to(self.device) for value in outcome.values.values()), bad])
        distributed.average([values])
        *averages, seen = values.tolist()
        if seen:
            self.first_bad.stop(self.folder, self.settings.run.precision)
        self._last = dict(zip(outcome.values, averages, strict=True))
        return self._last

    def _population_statistics(self) -> dict[str, Tensor]:
        """Return the query encoder's batch norm statistics over ``train.precise_bn`` batches, by name in the checkpoint."""
        assert self.form is not None
        encoder = self.objective.method.query_encoder
        with torch.random.fork_rng(devices=[]), self.form.autocast(self.device):  # a data loader draws a seed
            found = population_statistics(encoder, self._query_views(self.settings.train.precise_bn))
        return {f"query_encoder.{name}": value for name, value in found.items()}

    def _query_views(self, batches: int) -> Iterator[Tensor]:
        """Give micro-batches of clean query views, those of the epochs to come."""
        order, train = self._order(), self.settings.train
        for number in range(0, batches, order.steps):
            order.epoch, order.first = self.epoch + number // order.steps, max(0, order.steps - (batches - number))
            for batch in loader(self.pairs, order, train.workers, pin=self.device.type == "cuda"):
                given = self._give(batch, Inputs(self.device))
                yield from self._views(given)[0].chunk(train.accumulate)

    def _knn(self) -> float | None:
        """Return the kNN accuracy in percent where it is due, on the main process; the others wait."""
        if self.knn is None or not self._due(self.settings.monitor.every):
            return None
        assert self.form is not None
        backbone = evaluation_copy(self.objective.method.query_encoder.backbone)
        found = None
        if distributed.is_main():
            found = self.knn.top1(backbone, self.device, self.form)
        distributed.barrier()
        return found

    def _summary(self, seconds: float | None, steps: int) -> None:
        lines = read(self.folder / "journal.jsonl")
        if seconds is None:  # nothing was trained by this start, so nothing was seen
            for line in lines:
                self.alarms.see(line)
        facts = {
            "status": "stopped" if self.stopped_by else "finished",
            "epochs": self.epoch,
            "final_loss": self._last.get("loss"),
            "forwards_per_step": self._forwards,
            "damaged_images": len(self.damaged),
            "form": str(self.form) if self.form else None,
            "knn_top1": last_value(lines, "knn_top1"),
            "warnings": self.alarms.warnings,
        }
        write_summary(self.folder, self.step, steps * self.settings.train.batch_size, seconds, facts)


def _mean(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean(dim=0)


def write_summary(folder: Path, steps: int, images: int, seconds: float | None, facts: Mapping[str, Any]) -> None:
    """Write ``folder/summary.json``: ``facts``, the speed of this start's ``images``, and the hash of the last checkpoint."""
    last = folder / "checkpoints" / "last.pth"
    speed = {
        "images_per_second": round(images / seconds, 1) if seconds else None,
        "seconds": round(seconds, 1) if seconds else None,  # of this start
    }
    digest = backbone_hash(checkpoint.query_backbone(checkpoint.load(last)))
    write_json(folder / "summary.json", {**facts, "steps": steps, **speed, "backbone_sha256": digest})


def last_value(lines: Sequence[Mapping[str, Any]], name: str) -> Any:
    """Return the newest value of ``name`` in a journal, or None."""
    return next((line[name] for line in reversed(lines) if name in line), None)


def backbone_hash(tensors: dict[str, Tensor]) -> str:
    """Return the sha256 over names and bytes, which does not depend on the file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
