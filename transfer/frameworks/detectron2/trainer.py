"""Detectron2's trainer with our checkpointer, evaluators and journal, and drawings of a few validation images."""

from transfer.frameworks.detectron2 import compat  # noqa: F401, I001 - first: it prepares Detectron2's import

import contextlib
import functools
import re
import signal
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog, build_detection_test_loader
from detectron2.data.detection_utils import annotations_to_instances, read_image
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.engine.hooks import EvalHook, PreciseBN
from detectron2.evaluation import DatasetEvaluator
from detectron2.solver.build import get_default_optimizer_params
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, TensorboardXWriter
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torchvision.utils import draw_segmentation_masks

from core import distributed
from core.checkpoint import check_room
from core.errors import InputError
from core.files import replacing
from core.journal import Journal
from core.stopping import Sitting
from transfer.frameworks._protocol import carried, evaluate_again
from transfer.frameworks._seeding import drawing, seed_all
from transfer.frameworks.detectron2 import datasets, evaluators
from transfer.frameworks.detectron2.weights import ProvenCheckpointer


class Trainer(DefaultTrainer):
    """Train as a config asks, with precise BN, checkpoints and evaluation; ``results`` are the last evaluation's."""

    checkpointer: ProvenCheckpointer
    start_iter: int

    def __init__(self, cfg: Any, sitting: Sitting) -> None:
        self.sitting = sitting
        super().__init__(cfg)
        self.seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        # not between forward and backward: parts have added their gradients by then
        self._trainer.zero_grad_before_forward = True

    def run_step(self) -> None:
        """Take a step, on gradients of several parts where ``SOLVER.ACCUMULATE`` says so."""
        network = self._trainer.model
        if (parts := self.cfg.SOLVER.ACCUMULATE) > 1:
            self._trainer.model = _Summed(self._trainer, parts)
        try:
            super().run_step()
        finally:
            self._trainer.model = network

    def resume_or_load(self, resume: bool = True) -> None:
        """Load weights or a checkpoint; a resumed run goes on with the images that its first sitting would have seen next.

        It does so at this config's rate: a checkpoint's optimizer brings back that of its own. Where an iteration has other
        images than the checkpoint's, the same number of images counts as done.
        """
        rates, self.images = self.scheduler.base_lrs, self.cfg.SOLVER.IMS_PER_BATCH
        super().resume_or_load(resume)
        done, self.images = self.images, self.cfg.SOLVER.IMS_PER_BATCH
        self.start_iter = carried(self.start_iter, done, self.images, comm.is_main_process())
        self.scheduler.last_epoch = self.start_iter
        self.scheduler.base_lrs = rates
        for group, base, rate in zip(self.optimizer.param_groups, rates, self.scheduler.get_lr(), strict=True):
            group.update(initial_lr=base, lr=rate)
        self._trainer.data_loader.begin(self.seed, self.start_iter * self.cfg.SOLVER.ACCUMULATE)

    def state_dict(self) -> dict[str, Any]:
        """Return how far the training is, its seed and the images of an iteration."""
        return {**super().state_dict(), "seed": self.seed, "images": self.cfg.SOLVER.IMS_PER_BATCH}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on; a run that was given no seed keeps the one that it drew."""
        super().load_state_dict(state)
        self.images = state.get("images", self.images)
        if self.cfg.SEED < 0:
            self.seed = int(state.get("seed", self.seed))

    @classmethod
    def build_train_loader(cls, cfg: Any) -> datasets.TrainLoader:
        """Return Detectron2's training images, in an order and with augmentations that a resumed run finds again.

        A batch is what one forward takes.
        """
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SOLVER.IMS_PER_BATCH //= cfg.SOLVER.ACCUMULATE
        return datasets.TrainLoader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: Any, dataset_name: str) -> Any:
        """Return Detectron2's test images; one that cannot be used is named."""
        mapper = datasets.NamedMapper(DatasetMapper(cfg, is_train=False))
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    def build_hooks(self) -> list[HookBase | None]:
        """Return Detectron2's hooks, saving through our checkpointer, and the journal."""
        self.checkpointer = ProvenCheckpointer(self.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.checkpointer.classes = datasets.classes(self.cfg.DATASETS.TRAIN[0])
        hooks = super().build_hooks()
        for hook in hooks:
            if isinstance(hook, EvalHook):
                hook._func = functools.partial(self._evaluate, hook._func)
        found: list[HookBase | None] = [
            SeededPreciseBN(hook) if isinstance(hook, PreciseBN) else hook for hook in hooks
        ]
        if comm.is_main_process():
            found.append(JournalHook(Path(self.cfg.OUTPUT_DIR), _log_period(self.max_iter), self.sitting))
        return [*found, Resumable(self.sitting)]

    def _evaluate(self, evaluate: Callable[[], Any]) -> Any:
        """Evaluate; all is saved by now, so a signal ends the process at once."""
        if self.sitting.asked:
            self.sitting.leave()
        self.sitting.at_once = True
        try:
            results = evaluate()
        except Exception:
            evaluate_again(Path(self.cfg.OUTPUT_DIR))
            raise
        self.sitting.at_once = False
        return results

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
        solver, blocks = cfg.SOLVER, sum(bool(BLOCK_OF_RES4.search(name)) for name, _ in model.named_modules())
        parameters = get_default_optimizer_params(
            model,
            base_lr=solver.BASE_LR,
            weight_decay=solver.WEIGHT_DECAY,
            weight_decay_norm=solver.WEIGHT_DECAY_NORM,
            weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
            lr_factor_func=lambda name: solver.LAYER_DECAY ** layers_above(name, blocks),
            overrides={} if (bias := solver.WEIGHT_DECAY_BIAS) is None else {"gamma": {"weight_decay": bias}},
        )
        return torch.optim.AdamW(parameters, lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY)

    @property
    def results(self) -> dict[str, Any]:
        """Return the last evaluation; ``train`` itself returns it only when the config expects certain numbers."""
        return getattr(self, "_last_eval_results", None) or {}


class Resumable(HookBase):
    """Let a run be stopped and gone on with at any step: seed each step, save by the minute and when a signal asks for an end."""

    def __init__(self, sitting: Sitting) -> None:
        self.sitting = sitting
        self.last: Path | None = None  # what was saved by the minute

    def before_train(self) -> None:
        """Let all processes end after the same step; raise Unwritable when the disk cannot hold the checkpoints to come."""
        self.vote, trainer = distributed.Vote(), self.trainer
        files = (trainer.max_iter - trainer.start_iter) // trainer.cfg.SOLVER.CHECKPOINT_PERIOD + 2
        check_room(Path(trainer.cfg.OUTPUT_DIR), trainer.model, trainer.optimizer, files)

    def before_step(self) -> None:
        """Make what the step draws a function of seed, step and process."""
        seed_all(self.trainer.seed, "step", self.trainer.iter, comm.get_rank())

    def after_step(self) -> None:
        """Save where it is time."""
        step, checkpointer = self.trainer.iter, self.trainer.checkpointer
        stop = self.vote.cast(self.sitting.asked != 0)
        if comm.is_main_process():
            if checkpointer.iteration != step and (stop or self.sitting.due()):
                checkpointer.save(f"model_{step:07d}", iteration=step)
                if self.last is not None:
                    self.last.unlink(missing_ok=True)
                self.last = Path(checkpointer.save_dir) / f"model_{step:07d}.pth"
            if checkpointer.iteration == step:
                self.sitting.saved()
        if stop:
            comm.synchronize()
            self.sitting.asked = self.sitting.asked or signal.SIGTERM
            self.sitting.leave()


class SeededPreciseBN(HookBase):
    """Detectron2's precise BN, on the same images and with the same draws whenever it is done."""

    def __init__(self, hook: PreciseBN) -> None:
        self.hook = hook

    def after_step(self) -> None:
        """Update the statistics where the hook would."""
        self.hook.trainer = self.trainer
        if not self.hook._disabled:
            self.hook._data_iter = None
            self.hook._data_loader.begin(self.trainer.seed, 0)
        with drawing(self.trainer.seed, "precise bn", comm.get_rank()):
            self.hook.after_step()


BLOCK = re.compile(r"(?:bottom_up|backbone|roi_heads)\.(?:(stem)|res([2-5])\.(\d+))\.")
BLOCK_OF_RES4 = re.compile(r"(?:bottom_up|backbone)\.res4\.\d+$")


def layers_above(name: str, blocks: int) -> int:
    """Return how many layers stand above a parameter, for an lr that falls from layer to layer; ``blocks`` are res4's.

    A layer is the stem, res2, res3, each three blocks of res4, res5, and all the rest, as in the releases of ConvNeXt (arXiv
    2201.03545) and SparK (arXiv 2301.03580).
    """
    top = 3 + -(-blocks // 3)
    if not (match := BLOCK.search(name)):
        return 0
    stem, stage, block = match.groups()
    return top + 1 - (0 if stem else {"2": 1, "3": 2, "4": 3 + int(block or 0) // 3, "5": top}[stage])


class _Summed:
    """A network that, called with the first of ``parts`` batches, takes the others from the loader and returns their mean losses.

    The gradients of all parts but the last are added up on the way.
    """

    training = True

    def __init__(self, trainer: Any, parts: int) -> None:
        self.trainer, self.network, self.parts = trainer, trainer.model, parts

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        before: dict[str, Tensor] = {}
        for _ in range(self.parts - 1):
            with getattr(self.network, "no_sync", contextlib.nullcontext)():
                losses = {name: loss / self.parts for name, loss in self.network(batch).items()}
                total = torch.stack(list(losses.values())).sum()
                scaler = getattr(self.trainer, "grad_scaler", None)
                (total if scaler is None else scaler.scale(total)).backward()
            before = {name: loss.detach() + before.get(name, 0) for name, loss in losses.items()}
            batch = next(self.trainer._data_loader_iter)
        return {name: loss / self.parts + before[name] for name, loss in self.network(batch).items()}


class JournalHook(HookBase):
    """Write a line of ``journal.jsonl`` every ``period`` steps, and show the progress."""

    def __init__(self, folder: Path, period: int, sitting: Sitting) -> None:
        self.folder, self.period, self.sitting = folder, period, sitting

    def before_train(self) -> None:
        """Open the journal, without the lines of steps that will be done again."""
        self.journal = Journal(self.folder, self.trainer.max_iter, start=self.trainer.start_iter, label="detection")

    def after_step(self) -> None:
        """Log the smoothed loss and its parts, and the rate of this step."""
        step = self.trainer.iter + 1
        if step % self.period and step != self.trainer.max_iter:
            return
        latest = {name: value for name, (value, _) in self.trainer.storage.latest().items()}
        losses = {name.replace("loss_", "loss/"): value for name, value in latest.items() if "loss_" in name}
        values = {"loss": latest["total_loss"], **losses}
        values = {name: round(float(value), 6) for name, value in values.items()}
        values["lr"] = latest["lr"]  # the optimizer's own is the next step's by now
        self.journal.log(step, **values, seconds=round(self.sitting.seconds, 3))

    def after_train(self) -> None:
        """Close the journal, also after an error."""
        self.journal.close()


def _log_period(iterations: int) -> int:
    """Return 20, Detectron2's period, or less for a short schedule."""
    return max(1, min(20, iterations // 20))


CONFIDENT = 0.3  # predictions below are not drawn,
AT_LEAST = 2  # except an image's best (Detectron2 sorts by score): a short training is not confident
AT_MOST = 12  # predictions of one image
PALETTE = ["#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000", "#e0a800", "#f032e6"]


def draw(cfg: Any, model: nn.Module, name: str, folder: Path, count: int = 4) -> list[Path]:
    """Write PNGs of the first ``count`` images of dataset ``name`` to ``folder`` and return their paths."""
    classes = MetadataCatalog.get(name).thing_classes
    mapper, written = DatasetMapper(cfg, is_train=False), []
    model.eval()
    for record in DatasetCatalog.get(name)[:count]:
        image = torch.as_tensor(read_image(record["file_name"], "RGB").copy()).permute(2, 0, 1)
        truth = annotations_to_instances(record["annotations"], image.shape[1:], "bitmask")
        with torch.no_grad():
            found = model([mapper(record)])[0]["instances"].to("cpu")
        right = picture(image, found[(found.scores > CONFIDENT) | (torch.arange(len(found)) < AT_LEAST)], classes)
        masks = truth.gt_masks.tensor if truth.has("gt_masks") and found.has("pred_masks") else None
        labels = [classes[c] for c in truth.gt_classes]
        left = _overlay(image, truth.gt_boxes.tensor, masks, truth.gt_classes.tolist(), labels)
        sheet = Image.new("RGB", (2 * left.width, left.height))
        sheet.paste(left, (0, 0))
        sheet.paste(right, (left.width, 0))
        path = Path(folder) / f"{Path(record['file_name']).stem}.png"
        with replacing(path) as file:
            sheet.save(file, format="PNG")
        written.append(path)
    return written


def picture(image: Tensor, found: Instances, classes: Sequence[str]) -> Image.Image:
    """Return ``image`` (uint8 [3, H, W]) with its best detections."""
    found = found[:AT_MOST]
    masks = found.pred_masks if found.has("pred_masks") else None
    labels = [f"{classes[c]} {s:.2f}" for c, s in zip(found.pred_classes, found.scores, strict=True)]
    return _overlay(image, found.pred_boxes.tensor, masks, found.pred_classes.tolist(), labels)


def _overlay(
    image: Tensor, boxes: Tensor, masks: Tensor | None, indices: Sequence[int], labels: list[str]
) -> Image.Image:
    """Return ``image`` (uint8 [3, H, W]) enlarged to at least 256 pixels, with coloured boxes, masks and labels."""
    factor = max(1, -(-256 // max(image.shape[1:])))
    image = image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    colours: list[Any] = [PALETTE[index % len(PALETTE)] for index in indices]
    if masks is not None and len(masks):
        large = masks.bool().repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        image = draw_segmentation_masks(image, large, alpha=0.4, colors=colours)
    drawn = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    pen, side = ImageDraw.Draw(drawn), max(drawn.size)
    font = ImageFont.load_default(max(11, side // 60))
    for box, label, colour in zip((boxes * factor).tolist(), labels, colours, strict=True):
        pen.rectangle(box, outline=colour, width=max(2, side // 400))
        words = pen.textbbox(box[:2], label, font=font)
        pen.rectangle(words, fill=colour)
        pen.text(box[:2], label, fill="white", font=font)
    return drawn
