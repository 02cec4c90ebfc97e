"""Train and measure one segmentation network: read, check, adapt, run, write ``evaluation.json``."""

import contextlib
import io
import logging
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transfer.frameworks.mmseg import compat  # isort: skip - before any mm* package
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from core import run_folder as work_folder
from core.errors import InputError
from core.files import sha256, write_json
from transfer.frameworks.mmseg import data, devices, injection, settings, variation
from transfer.frameworks.mmseg.hooks import AverageNorms, Drawings, LoadBackbone, Record, unwrapped
from transfer.frameworks.mmseg.metric import for_json

PLACE = ("work_dir", "launcher", "num_workers", "persistent_workers")


def run(
    config: Path,
    work_dir: Path | None = None,
    weights: Path | None = None,
    resume: bool = False,
    amp: bool = False,
    launcher: str = "none",
    seed: int | None = None,
    cfg_options: Sequence[str] = (),
    tiny: str = "",
    lr_factor: float = 1.0,
    hold_out: float = 0.0,
) -> dict[str, Any]:
    """Train ``config`` from the converted backbone ``weights`` and return what ``evaluation.json`` holds.

    Raises InputError, before anything is trained, for a missing file or a config that contradicts the weights.
    """
    began, cuda = time.monotonic(), torch.cuda.is_available()
    work_dir = work_dir or Path("work_dirs") / config.stem
    cfg = settings.read(config, cfg_options)
    weights = weights or settings.take_checkpoint(cfg)
    backbone = None if weights is None else injection.read_weights(weights)
    injection.inject(cfg, backbone, config)
    if amp:
        settings.use_amp(cfg, cuda)
    processes = compat.world_size(launcher)
    published = devices.published(settings.read(config, ()), processes)
    recipes, lines = _adapt(cfg, published, processes, cuda, (tiny, lr_factor, hold_out))
    resume, opened = work_folder.open_folder(work_dir, _identity(cfg, weights, seed), resume, "--work-dir")
    _fill(cfg, work_dir, resume, launcher, seed)
    with compat.quiet():
        if wrapper := compat.start_processes(launcher, cuda):
            cfg.model_wrapper_cfg = wrapper
        _say([*lines, *opened], backbone)
        runner = _build(cfg, config)
        loader = LoadBackbone(backbone, sha256(weights) if weights else "")
        record = Record(work_dir, cfg.default_hooks.logger.get("interval", 10))
        averaging = [AverageNorms()] if processes > 1 and not cuda else []
        for hook in (loader, record, Drawings(work_dir / "predictions"), *averaging):
            runner.register_hook(hook)
        _train(runner, record, config)
    evaluation = {
        "metrics": for_json(record.metrics),
        "seconds": round(time.monotonic() - began, 1),
        "peak_memory_mib": _peak_memory(cuda),
        "device": "cuda" if cuda else "cpu",
        "recipe": recipes,
        "tensors_checked": loader.tensors,
    }
    if runner.rank == 0:
        _write(work_dir / "evaluation.json", evaluation)
    if wrapper:
        torch.distributed.destroy_process_group()
    return evaluation


def _adapt(
    cfg: Config, published: dict[str, Any], processes: int, cuda: bool, asked: tuple[str, float, float]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Fit the protocol to the devices and to what was asked; return both recipes and what to print."""
    recipes = devices.adapt(cfg, processes, cuda) | {
        "published": published
    }  # the file's, before the command line changed it
    changed = variation.vary(cfg, *asked)
    if changed:
        recipes["effective"] = devices.summary(cfg, processes, processes * cfg.train_dataloader.batch_size)
    return recipes, [*changed, *devices.describe(recipes)]


def _identity(cfg: Config, weights: Path | None, seed: int | None) -> dict[str, Any]:
    """Return what decides a run, flat: all settings but those of place, and what the weights file holds."""
    settings = {key: value for key, value in work_folder.flat(cfg.to_dict()) if key.split(".")[-1] not in PLACE}
    return {**settings, "--seed": seed, "--weights": work_folder.content(weights)}


def _write(file: Path, evaluation: dict[str, Any]) -> None:
    write_json(file, evaluation)
    metrics = ((name, evaluation["metrics"].get(f"seg/{name}")) for name in ("mIoU", "mAcc", "aAcc"))
    print(f"{', '.join(f'{name} {value:.2f}' for name, value in metrics if value is not None)} -> {file}")


def _fill(cfg: Config, work_dir: Path, resume: bool, launcher: str, seed: int | None) -> None:
    """Set what MMSegmentation's own tool sets, the per-class metric and atomic checkpoints."""
    cfg.work_dir, cfg.launcher = str(work_dir), launcher
    cfg.resume = False
    if resume and (checkpoint := compat.latest_checkpoint(work_dir)):
        cfg.load_from, cfg.resume = str(checkpoint), True
    if seed is not None:
        cfg.randomness = {"seed": seed}
    evaluators = cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else [cfg.val_evaluator]
    for evaluator in evaluators:
        if evaluator.type == "IoUMetric":
            evaluator.type = "ClassIoU"
    cfg.default_hooks.checkpoint.backend_args = {"backend": "AtomicBackend"}
    compat.repair_loaders(cfg)


def _build(cfg: Config, source: Path) -> Runner:
    """Build MMEngine's Runner; its log goes to a file in the work folder, warnings also to the terminal."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # hundreds of lines on the environment, all in the log file
            runner = Runner.from_cfg(cfg)
            _ = runner.train_loop  # built now: the settings of the loop are checked only then
    except (TypeError, KeyError) as error:
        raise InputError(f"{source} does not fit MMSegmentation: {str(error).splitlines()[-1]}") from error
    for handler in runner.logger.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setStream(sys.stdout)
            handler.setLevel(logging.WARNING)
            handler.addFilter(compat.hush)
    return runner


def _train(runner: Runner, record: Record, source: Path) -> None:
    data.check_classes(
        runner.val_dataloader.dataset.metainfo["classes"], unwrapped(runner.model).decode_head.num_classes, source
    )
    try:
        runner.train()
    finally:
        record.close()
    if not record.metrics:  # resumed after the last step, before its evaluation
        runner.val()


def _say(lines: Sequence[str], backbone: injection.Weights | None) -> None:
    if int(os.environ.get("RANK", 0)):
        return
    if backbone is None:
        lines = [*lines, "no --weights: the backbone starts random"]
    elif backbone.recipe is None:
        lines = [*lines, f"{backbone.path} carries no recipe: channel order, mean and std are the config's word alone"]
    print("\n".join(lines), flush=True)


def _peak_memory(cuda: bool) -> int:
    """Return the most memory this process held, in MiB: the GPU's, or the resident set."""
    if cuda:
        return round(torch.cuda.max_memory_allocated() / 2**20)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
