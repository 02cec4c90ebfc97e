"""What happens during a run besides training: prove the weights, keep the journal, draw predictions."""

import math
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import all_reduce_params, barrier, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor, nn

from core import bounds, distributed, run_folder
from core.checkpoint import check_room
from core.errors import InputError
from core.files import replacing, write_json
from core.journal import Journal
from core.stopping import Sitting
from transfer.frameworks._protocol import harmless
from transfer.frameworks._seeding import seed_all
from transfer.frameworks.mmseg import compat
from transfer.frameworks.mmseg.weights import Weights, load_backbone


class LoadBackbone(Hook):
    """Load the backbone when training begins, and prove that all of it came from the file.

    It is done here because MMEngine initialises the model again inside ``Runner.train``. A resumed run keeps its
    own weights and the count, and is refused when it began from another file.
    """

    priority = "VERY_HIGH"

    def __init__(self, weights: Weights | None, sha256: str) -> None:
        self.weights, self.sha256 = weights, sha256
        self.tensors = 0

    def before_train(self, runner: Runner) -> None:
        """Load and compare, or check that the resumed run is the same one."""
        hub, folder = runner.message_hub, Path(runner.work_dir)
        if runner.iter > 0:
            run_folder.check_own(folder, runner._load_from, hub.get_info("run", ""))
            began = hub.get_info("backbone_sha256", "")
            if began != self.sha256:
                raise InputError(
                    f"{runner.work_dir} was begun with other weights (sha256 {began[:12] or 'none'}, now "
                    f"{self.sha256[:12] or 'none'}); give the same file or another --work-dir"
                )
            self.tensors = hub.get_info("tensors_checked", 0)
            return
        if self.weights is not None:
            self.tensors = load_backbone(unwrapped(runner.model).backbone, self.weights)
        hub.update_info("run", run_folder.fingerprint(folder))
        hub.update_info("backbone_sha256", self.sha256)
        hub.update_info("tensors_checked", self.tensors)


# What a checkpoint may say besides tensors, and of which type.
META = {"epoch": int, "iter": int, "seed": int, "dataset_meta": dict}
INFO = {
    "epoch": int,
    "iter": int,
    "images": int,
    "max_iters": int,
    "run": str,
    "backbone_sha256": str,
    "tensors_checked": int,
}


class PlainCheckpoints(Hook):
    """Keep pickled objects out of the checkpoints, and take nothing but known plain values out of them.

    MMEngine pickles its logs' ``HistoryBuffer``, executes a text that it finds under ``meta.config``, and removes files that it
    finds named in ``message_hub``.
    """

    priority = "VERY_HIGH"

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Write logs as two lists of numbers each."""
        hub = checkpoint["message_hub"]
        buffers = {name: [numbers.tolist() for numbers in value.data] for name, value in hub["log_scalars"].items()}
        hub["log_scalars"] = buffers

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Rebuild the logs, and drop what is unknown or of another type; raise InputError where nothing is left to go on from."""
        if not (runner._resume and "meta" in checkpoint):
            return
        meta, hub = checkpoint["meta"], checkpoint.get("message_hub")
        hub = hub if isinstance(hub, dict) else {}
        checkpoint["meta"] = meta = _known(meta, META)
        if not {"epoch", "iter"} <= meta.keys():
            raise InputError(f"{runner._load_from} does not say how far it is; go on from another checkpoint")
        info, folder = hub.get("runtime_info"), Path(runner.work_dir)
        kept = _known(info, INFO)
        for name, value in (info if isinstance(info, dict) else {}).items():
            if str(name).startswith("best_score") and isinstance(value, int | float):
                kept[name] = value
            elif str(name).startswith("best_ckpt") and isinstance(value, str):
                kept[name] = str(folder / Path(value).name)  # MMEngine removes it when a better one comes
            elif name == "keep_ckpt_ids" and isinstance(value, list) and all(isinstance(i, int) for i in value):
                kept[name] = value
        logs = hub.get("log_scalars")
        buffers = {name: _buffer(value) for name, value in (logs if isinstance(logs, dict) else {}).items()}
        buffers = {name: value for name, value in buffers.items() if value is not None}
        resumed = dict.fromkeys([*buffers, *kept], True)
        checkpoint["message_hub"] = {"log_scalars": buffers, "runtime_info": kept, "resumed_keys": resumed}


def _known(values: Any, types: Mapping[str, type]) -> dict[str, Any]:
    values = values if isinstance(values, dict) else {}
    return {name: values[name] for name, kind in types.items() if isinstance(values.get(name), kind)}


def _buffer(value: Any) -> HistoryBuffer | None:
    try:
        numbers, counts = (np.array(part, dtype=np.float64) for part in value)
        return HistoryBuffer(numbers, counts)
    except (TypeError, ValueError, AssertionError):
        return None


class Record(Hook):
    """Write ``journal.jsonl`` and the progress display; stop when the loss is no longer a number."""

    priority = "BELOW_NORMAL"  # before the schedulers' hook, which is LOW and sets the next step's rate

    def __init__(self, folder: Path, interval: int, sitting: Sitting) -> None:
        self.folder, self.interval, self.sitting = folder, interval, sitting
        self.metrics: dict[str, float] = {}
        self._journal: Journal | None = None

    def before_train(self, runner: Runner) -> None:
        """Open the journal; a resumed run drops the lines after its checkpoint."""
        if is_main_process():
            self._journal = Journal(self.folder, runner.max_iters, start=runner.iter, label="segmentation")

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        """Log every ``interval`` steps, and the first and the last."""
        step = runner.iter + 1
        if step % self.interval and step not in (1, runner.max_iters):
            return
        loss = float((outputs or {})["loss"].detach())
        if not math.isfinite(loss):
            kept = compat.latest_checkpoint(self.folder)
            told = f"the last good checkpoint is {kept}" if kept else "no checkpoint was due yet"
            raise InputError(f"the loss is {loss} at step {step}; lower optim_wrapper.optimizer.lr; {told}")
        if self._journal is not None:
            lr = runner.optim_wrapper.get_lr()
            rate = next(iter(lr.values()))[0]
            self._journal.log(step, loss=round(loss, 6), lr=rate, seconds=round(self.sitting.seconds, 3))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Keep the latest evaluation."""
        self.metrics = dict(metrics or {})

    def after_train(self, runner: Runner) -> None:
        """Close the journal."""
        self.close()

    def close(self) -> None:
        """Stop the display, also when training failed."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None


class Resumable(Hook):
    """Let a run be stopped and gone on with at any step: seed each step, save by the minute and when a signal asks for an end."""

    priority = "LOWEST"  # after MMEngine's own checkpoints

    def __init__(self, sitting: Sitting) -> None:
        self.sitting = sitting

    def before_train(self, runner: Runner) -> None:
        """Find MMEngine's hook that writes checkpoints, which say how many images an iteration has; look for room for them."""
        runner.message_hub.update_info("images", runner.images)
        self._vote = distributed.Vote()
        self._saver = saver = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
        due = (runner.max_iters - runner.iter) // saver.interval if saver.interval > 0 else 0
        kept = min(due, saver.max_keep_ckpts) if saver.max_keep_ckpts > 0 else due
        check_room(Path(runner.work_dir), runner.model, runner.optim_wrapper.optimizer, kept + 2)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Make what the step draws a function of seed, step and process."""
        seed_all(runner.seed, "step", runner.iter, runner.rank)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        """Save where it is time; all processes end after the same step."""
        step, stop = runner.iter + 1, self._vote.cast(self.sitting.asked != 0)
        saved = Path(self._saver.last_ckpt or "").name == f"iter_{step}.pth"
        if is_main_process():
            if not saved and (stop or self.sitting.due()):
                self._saver._save_checkpoint_with_step(runner, step, meta={"epoch": runner.epoch, "iter": step})
                saved = True
            if saved:
                self.sitting.saved()
        if stop:
            barrier()
            self.sitting.asked = self.sitting.asked or signal.SIGTERM
            self.sitting.leave()

    def before_val(self, runner: Runner) -> None:
        """From here on nothing is lost by ending at once."""
        self.sitting.at_once = True

    def after_val(self, runner: Runner) -> None:
        """Training goes on."""
        self.sitting.at_once = False


class AverageNorms(Hook):
    """Average running statistics over processes before measuring, so that all ranks score one network (BN for SyncBN)."""

    def before_val_epoch(self, runner: Runner) -> None:
        """Average every buffer of floating point."""
        all_reduce_params([b for b in runner.model.buffers() if b.is_floating_point()], op="mean")


class Drawings(Hook):
    """Save a few validation images as image | ground truth | prediction, side by side in the dataset's palette."""

    def __init__(self, folder: Path, count: int = 4) -> None:
        self.folder, self.count = folder, count

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Draw the first image of evenly spaced batches of rank 0."""
        total = len(runner.val_dataloader)
        chosen = {index * total // self.count for index in range(self.count)}
        if not is_main_process() or batch_idx not in chosen or not outputs:
            return
        with harmless("drawing a prediction"):
            self._draw(runner, outputs[0])

    def _draw(self, runner: Runner, sample: Any) -> None:
        known = runner.val_dataloader.dataset.metainfo
        colours = ("#{:02x}{:02x}{:02x}".format(*colour) for colour in known["palette"])
        write_json(self.folder / "classes.json", dict(zip(known["classes"], colours, strict=False)))
        labels = sample.gt_sem_seg.data[0], sample.pred_sem_seg.data[0]
        picture = panels(Path(sample.img_path), *labels, known["palette"])
        with replacing(self.folder / f"{Path(sample.img_path).stem}.png") as file:
            picture.save(file, format="PNG")


def panels(image: Path, truth: Tensor, prediction: Tensor, palette: Sequence[Sequence[int]]) -> Image.Image:
    """Return image, truth and prediction [H, W] side by side; void (255) is drawn white."""
    colours = np.full((256, 3), 255, dtype=np.uint8)
    colours[: len(palette)] = palette
    maps = [Image.fromarray(colours[labels.cpu().numpy().astype(np.uint8)]) for labels in (truth, prediction)]
    with bounds.image(image) as opened:
        photo = opened.convert("RGB").resize(maps[0].size)
    width, height = photo.size
    sheet = Image.new("RGB", (3 * width + 8, height), "white")
    for column, panel in enumerate([photo, *maps]):
        sheet.paste(panel, (column * (width + 4), 0))
    return sheet


def unwrapped(model: nn.Module) -> Any:
    """Return the network inside a data-parallel wrapper."""
    return model.module if is_model_wrapper(model) else model
