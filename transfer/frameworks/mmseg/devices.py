"""Fit a published protocol to the devices at hand: the same images per iteration, norms over as many, the same schedule."""

from transfer.frameworks.mmseg import compat  # noqa: F401, I001 - first: it prepares the mm* packages

import contextlib
import copy
import functools
import io
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import get_world_size
from mmengine.registry import LOOPS, RUNNERS, init_default_scope
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from transfer.frameworks._protocol import carried, spread


def adapt(
    cfg: Config,
    processes: int,
    cuda: bool,
    given: Collection[str] = (),
    limit: int = 0,
    linear: bool = False,
    trial: Callable[[Config, int], bool] | None = None,
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Change ``cfg`` in place for ``processes`` devices; return the effective and the published recipe, and what to say.

    The published images per iteration, ``auto_scale_lr.base_batch_size`` (MMEngine's field), are kept, and with them lr and
    schedule; ``linear`` keeps the images per device instead, and so does a batch size among the keys ``given`` by the user,
    which are never changed. A device takes at most ``limit`` images at a time, or as many as ``trial`` finds room for.
    """
    before = published(cfg, processes)
    own, batch = cfg.train_dataloader.batch_size, before["batch"]
    if not cuda or processes == 1:
        _replace_sync_bn(cfg.model)

    def holds(images: int) -> bool:
        if limit:
            return images <= limit
        return trial is None or images <= own or trial(cfg, images)

    linear = linear or "train_dataloader.batch_size" in given
    found = spread(batch, own, processes, before["norm_group"], functools.cache(holds), linear)
    if found.accumulate > 1:
        cfg.optim_wrapper.accumulative_counts, cfg.train_cfg.type = found.accumulate, "AccumulatingLoop"
    cfg.train_dataloader.batch_size = found.forward * found.accumulate
    if found.scale != 1:
        _scale(cfg, found.scale, given)
        cfg.auto_scale_lr.base_batch_size = found.forward * processes
    after = summary(cfg, processes)
    where = "one device" if processes == 1 else "SyncBN needs CUDA; statistics stay per process"
    said = [f"SyncBN becomes BN ({where})"] if before["norm"] != after["norm"] else []
    return {"effective": after, "published": before}, [*said, *([found.said] if found.said else [])]


def published(cfg: Config, processes: int) -> dict[str, Any]:
    """Return the recipe as the config has it, for its own number of devices where it says that."""
    base = (cfg.get("auto_scale_lr") or {}).get("base_batch_size")
    return summary(cfg, max(1, base // cfg.train_dataloader.batch_size) if base else processes)


def summary(cfg: Config, devices: int) -> dict[str, Any]:
    """Return what a protocol's numbers depend on besides data and network, for ``devices`` devices.

    ``batch`` counts the images of an iteration, ``norm_group`` those that a batch norm sees (0: there is none); running
    statistics are what is measured with, so ``precise_bn_images`` is 0.
    """
    schedulers = cfg.get("param_scheduler") or []
    warm_ups = [s.get("end", 0) for s in schedulers if s.type in ("LinearLR", "ConstantLR")]
    frozen = cfg.model.backbone.get("norm_eval", False)  # its norms see no batch
    learn = [part for name, part in cfg.model.items() if not (name == "backbone" and frozen)]
    norms = [mapping["type"] for mapping in mappings(learn) if mapping.get("type") in ("SyncBN", "BN")]
    own = {"type": "frozen"} if frozen else cfg.model.backbone.get("norm_cfg") or {"type": next(iter(norms), "none")}
    batch, parts = cfg.train_dataloader.batch_size, cfg.optim_wrapper.get("accumulative_counts", 1)
    return {
        "devices": devices,
        "batch": devices * batch,
        "accumulate": parts,
        "lr": cfg.optim_wrapper.optimizer.lr,
        "warm_up": max(warm_ups, default=0),
        "steps": [step for s in schedulers for step in s.get("milestones", [])],
        "iterations": cfg.train_cfg.get("max_iters"),
        "norm": own["type"],
        "norm_group": (devices if "SyncBN" in norms else 1) * batch // parts if norms else 0,
        "precise_bn_images": 0,
    }


def _scale(cfg: Config, share: float, given: Collection[str]) -> None:
    """Multiply lr by ``share`` and divide what counts iterations, but for the keys that the user gave."""

    def longer(count: int) -> int:
        return max(1, round(count / share))

    if "optim_wrapper.optimizer.lr" not in given:
        cfg.optim_wrapper.optimizer.lr *= share
    for key in ("max_iters", "val_interval"):
        if key in cfg.train_cfg and f"train_cfg.{key}" not in given:
            cfg.train_cfg[key] = longer(cfg.train_cfg[key])
    hook: Any = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    own = "default_hooks.checkpoint.interval" in given
    if not own and not hook.get("by_epoch", True) and hook.get("interval", -1) > 0:
        hook.interval = longer(hook.interval)
    for scheduler in cfg.get("param_scheduler") or []:
        if "eta_min" in scheduler:
            scheduler.eta_min *= share
        if scheduler.get("by_epoch", True):
            continue
        for key in ("begin", "end", "T_max", "step_size"):
            if scheduler.get(key):
                scheduler[key] = longer(scheduler[key])
        if scheduler.get("milestones"):
            scheduler.milestones = [longer(step) for step in scheduler.milestones]


def _replace_sync_bn(node: Any) -> None:
    for mapping in mappings(node):
        if mapping.get("type") == "SyncBN":
            mapping["type"] = "BN"


def mappings(node: Any) -> Iterator[ConfigDict]:
    """Return every mapping inside a config, itself included."""
    if isinstance(node, Mapping):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for value in node:
            yield from mappings(value)


def fits(cfg: Config, images: int) -> bool:
    """Try a step on ``images`` crops with this process's device; tell whether its memory holds it."""
    try:
        _step(cfg, images)
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def _step(cfg: Config, images: int) -> None:
    init_default_scope("mmseg")
    settings = copy.deepcopy(cfg.model)
    _replace_sync_bn(settings)  # as large, and needs no other process
    network = MODELS.build(settings).to("cuda" if torch.cuda.is_available() else "cpu").train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9)
    height, width = settings.data_preprocessor["size"]
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, height, width, dtype=torch.long)))
    batch = {"inputs": [torch.zeros(3, height, width, dtype=torch.uint8)] * images, "data_samples": [sample] * images}
    with torch.autocast("cuda", enabled=cfg.optim_wrapper.type == "AmpOptimWrapper"):
        losses = network(**network.data_preprocessor(batch, training=True), mode="loss")
    network.parse_losses(losses)[0].backward()
    optimizer.step()


@LOOPS.register_module()
class AccumulatingLoop(IterBasedTrainLoop):
    """MMEngine's loop, but an iteration's images are taken in ``accumulative_counts`` parts whose mean gradient is one step.

    MMEngine itself counts each part as an iteration, and so would the schedule.
    """

    def run(self) -> Any:
        """Count parts where MMEngine's optimizer counts, iterations everywhere else."""
        wrapper = self.runner.optim_wrapper
        parts = self.parts = wrapper._accumulative_counts
        wrapper.initialize_count_status(self.runner.model, self._iter * parts, self._max_iters * parts)
        return super().run()

    def run_iter(self, data_batch: Any) -> None:
        """Take one step."""
        runner, size = self.runner, len(data_batch["inputs"]) // self.parts
        runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=data_batch)
        for first in range(0, size * self.parts, size):
            part = {key: values[first : first + size] for key, values in data_batch.items()}
            outputs = runner.model.train_step(part, optim_wrapper=runner.optim_wrapper)
        runner.call_hook("after_train_iter", batch_idx=self._iter, data_batch=data_batch, outputs=outputs)
        self._iter += 1


@RUNNERS.register_module()
class ResumingRunner(Runner):
    """MMEngine's runner, which goes on at the rates of its own config: MMEngine takes over those of the checkpoint.

    Where an iteration has other images than the checkpoint's, the same number of images counts as done.
    """

    @property
    def images(self) -> int:
        """Return the images of an iteration on all devices."""
        return int(self.cfg.train_dataloader.batch_size * self.world_size)

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """Build it without the page of parameters' names that MMSegmentation prints."""
        with contextlib.redirect_stdout(io.StringIO()):
            return super().build_optim_wrapper(optim_wrapper)

    def resume(self, filename: str, *arguments: Any, **options: Any) -> None:
        """Load everything but the rates, then step the schedulers, which are new, to the checkpoint's iteration."""
        groups = self.optim_wrapper.param_groups
        rates = [{key: group[key] for key in ("lr", "initial_lr") if key in group} for group in groups]
        super().resume(filename, *arguments, **{**options, "resume_param_scheduler": False})
        for group, rate in zip(self.optim_wrapper.param_groups, rates, strict=True):
            group.update(rate)
        before = self.message_hub.get_info("images")
        self.train_loop._iter = carried(self.iter, before, self.images, self.rank == 0)
        for scheduler in self.param_schedulers or []:
            scheduler.optimizer._global_step = self.iter  # else MMEngine warns of rates that run ahead of the steps
        for _ in range(self.iter):
            for scheduler in self.param_schedulers or []:
                scheduler.step()


def agree(count: int) -> bool:
    """Tell whether all processes found room for the same number of images."""
    if get_world_size() == 1:
        return True
    counts: list[Any] = [None] * get_world_size()
    torch.distributed.all_gather_object(counts, count)
    return len(set(counts)) == 1
