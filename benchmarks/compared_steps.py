"""The steps that ``pretrain_step.py`` times: ours, the MixMask release's, the encoders alone, and a peer's in its own process."""

import copy
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.branches import Draws
from pretrain.branches.mixmask import MixMask
from pretrain.loader import Batch
from pretrain.methods.moco import Moco
from pretrain.optimizers import Sgd
from pretrain.setup import make_trainer
from pretrain.trainer import Trainer
from pretrain.views import UNITS, colours_of

HERE = Path(__file__).resolve().parent
DIM, TEMPERATURE, KEY_MOMENTUM, LR = 128, 0.2, 0.999, 0.03
MIXED = "branches.filled={name: mixmask, scope: batch, mask: {name: block, cells: CELLS, ratio: 0.5}}"


class Shape(NamedTuple):
    """A ResNet's depth, pixels, images, and channels of the stem."""

    depth: int
    size: int
    batch: int
    width: int = 64

    def __str__(self) -> str:
        return f"ResNet-{self.depth}, {self.size} px, batch {self.batch}"

    @property
    def queue(self) -> int:
        """Return MoCo's 65,536, or the next number below that the batch divides, both views' keys in it."""
        return 65536 // (2 * self.batch) * 2 * self.batch


def make(shape: Shape, folder: Path, threads: int, overrides: Sequence[str] = ()) -> Trainer:
    """Make our trainer for MoCo v2; its steps get views from the caller, so that the data set is a formality."""
    config = folder / "step.yaml"
    config.write_text(
        f"backbone: {{name: resnet, depth: {shape.depth}, width: {shape.width}}}\n"
        f"data: {{name: shapes, count: {shape.batch * 100}, size: 32}}\n"
        f"views: {{size: {shape.size}}}\n"
        f"method: {{name: moco, queue: {shape.queue}, temperature: {TEMPERATURE}, key_momentum: {KEY_MOMENTUM}}}\n"
        f"train: {{epochs: 1, batch_size: {shape.batch}, workers: 0, log_every: 1000}}\n"
        f"optimizer: {{lr: {LR}}}\nschedule: {{name: constant}}\n"
        f"run: {{folder: {folder / 'run'}, channels_last: auto, threads: {threads}, overwrite: true}}\n"
    )
    trainer = make_trainer(config, overrides)
    trainer._prepare()
    return trainer


def mixed(shape: Shape) -> str:
    """Return the override that adds MixMask as the release has it."""
    return MIXED.replace("CELLS", str(8 if shape.size % 8 == 0 and shape.size >= 64 else 4))


def random_views(shape: Shape) -> tuple[Tensor, Tensor]:
    """Return two batches of noise."""
    both = torch.randn(2, shape.batch, 3, shape.size, shape.size, generator=torch.Generator().manual_seed(0))
    return both[0], both[1]


class OurStep:
    """The trainer's own step on views that are made already, as the others' are."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def __call__(self, view: Tensor, other: Tensor) -> float:
        """Take one step and return its loss."""
        form = self.trainer.form
        assert form is not None
        first, second = (images.contiguous(memory_format=form.memory_format) for images in (view, other))
        self.trainer._views = lambda batch: (first, second)  # type: ignore[method-assign]
        outcome = self.trainer._step(Batch(torch.empty(0), torch.empty(0), []))
        self.trainer.step += 1
        return outcome.values["loss"].item()


def whole_step(trainer: Trainer, shape: Shape) -> Callable[[], None]:
    """Return our step as training takes it: from uint8 crops, whose colours it changes."""
    trainer.__dict__.pop("_views", None)  # ``OurStep`` hands over views that are made
    generator = torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, (2, shape.batch, 3, shape.size, shape.size), dtype=torch.uint8, generator=generator)
    units = torch.rand(2 * shape.batch, UNITS, generator=generator).tolist()
    drawn = torch.from_numpy(colours_of(trainer.settings.views, units))
    batch = Batch(crops, drawn.view(2, shape.batch, -1), [])

    def step() -> None:
        trainer._step(batch)
        trainer.step += 1

    return step


class ReleaseStep:
    """The MixMask release's step, written anew from what it does, on a copy of our weights.

    Two query forwards and one of the keys in contiguous memory, three logit products, each with its own clone of the queue,
    and a momentum update tensor by tensor.
    """

    def __init__(self, trainer: Trainer) -> None:
        method = trainer.objective.method
        assert isinstance(method, Moco)
        self.settings = trainer.settings
        branch = trainer.objective.branches["filled"]
        assert isinstance(branch, MixMask)
        self.mask = branch.mask
        self.query, self.key = (copied(part, False) for part in (method.query_encoder, method.key_encoder))
        self.queue, self.pointer, self.step_number = method.queue.clone(), 0, 0
        optimizer = self.settings.optimizer
        assert isinstance(optimizer, Sgd)
        self.optimizer = torch.optim.SGD(
            self.query.parameters(), optimizer.lr, momentum=optimizer.momentum, weight_decay=optimizer.weight_decay
        )

    def __call__(self, view: Tensor, other: Tensor) -> float:
        """Take one step and return its loss."""
        draws = Draws(self.settings.run.seed, self.step_number, "filled/0", 0, 1)
        hidden = self.mask.masks(view[:1], draws.per_group(len(view), "mask"))[0]
        shown = 1 - hidden.float().mean().item()
        mixture = torch.where(hidden, view.flip(0), view)
        queries = F.normalize(self.query(view), dim=1)
        with torch.no_grad():
            for theirs, ours in zip(self.key.parameters(), self.query.parameters(), strict=True):
                theirs.data = theirs.data * KEY_MOMENTUM + ours.data * (1 - KEY_MOMENTUM)
            keys = F.normalize(self.key(other), dim=1)
        mixtures = F.normalize(self.query(mixture), dim=1)
        loss = (
            self._contrast(queries, keys)
            + shown * self._contrast(mixtures, keys)
            + (1 - shown) * self._contrast(mixtures.flip(0), keys)
        )
        with torch.no_grad():
            self.queue[:, self.pointer : self.pointer + len(keys)] = keys.T
            self.pointer = (self.pointer + len(keys)) % self.queue.shape[1]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step_number += 1
        return loss.item()

    def _contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        own = torch.einsum("nc,nc->n", queries, keys).unsqueeze(1)
        others = torch.einsum("nc,ck->nk", queries, self.queue.clone().detach())
        logits = torch.cat([own, others], dim=1) / TEMPERATURE
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


class EncodersOnly:
    """What no step can do without: ``queries`` query forwards, one of the keys, and the backward pass, in one format."""

    def __init__(self, trainer: Trainer, queries: int, channels_last: bool) -> None:
        method = trainer.objective.method
        assert isinstance(method, Moco)
        self.queries = queries
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.query, self.key = (copied(part, channels_last) for part in (method.query_encoder, method.key_encoder))

    def __call__(self, view: Tensor, other: Tensor) -> float:
        """Take the passes and return a number that depends on all of them."""
        view, other = (images.contiguous(memory_format=self.format) for images in (view, other))
        with torch.no_grad():
            keys = self.key(other)
        total = torch.stack([(self.query(view) * keys).mean() for _ in range(self.queries)]).sum()
        total.backward()
        for parameter in self.query.parameters():
            parameter.grad = None
        return total.item()


def copied(encoder: nn.Module, channels_last: bool) -> nn.Module:
    """Return a copy of an encoder in a memory format."""
    kind = torch.channels_last if channels_last else torch.contiguous_format
    return copy.deepcopy(encoder).to(memory_format=kind).train()


class PeerStep:
    """Another package's step in a process of its own, which answers one step a line (``peer_steps.py``)."""

    def __init__(self, python: Path, name: str, shape: Shape, threads: int) -> None:
        asked = json.dumps({"name": name, "threads": threads, "queue": shape.queue, **shape._asdict()})
        self.process = subprocess.Popen(
            [python, HERE / "peer_steps.py", asked], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.parameters: int = self._read()["parameters"]

    def __call__(self) -> float:
        """Let it take one step and return the loss."""
        assert self.process.stdin is not None
        print("step", file=self.process.stdin, flush=True)
        return self._read()["loss"]

    def _read(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(map(str, self.process.args))} ended with {self.process.wait()}; see above")  # type: ignore[arg-type]
        return json.loads(line)

    def __enter__(self) -> "PeerStep":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
