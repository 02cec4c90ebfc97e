"""Train and measure one segmentation network: read, check, adapt, run, write ``evaluation.json``."""

from transfer.frameworks.mmseg import compat  # noqa: I001 - first: it prepares the mm* packages

import argparse
import contextlib
import inspect
import io
import logging
import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.runner import Runner

from core import remote
from core import run_folder as work_folder
from core.errors import InputError
from core.files import sha256
from core.weights_file import read_weights_file
from core.stopping import Sitting, stop_signals
from transfer.frameworks._protocol import describe, evaluate_again, from_workers, write_evaluation
from transfer.frameworks.mmseg import data as reading
from transfer.frameworks.mmseg import devices, protocol
from transfer.frameworks.mmseg.hooks import (
    AverageNorms,
    Drawings,
    LoadBackbone,
    PlainCheckpoints,
    Record,
    Resumable,
    unwrapped,
)
from transfer.frameworks.mmseg.weights import Weights, inject, read_weights


# Top-level keys that Runner reads besides its own parameters.
EXTRA = {"find_unused_parameters", "model_wrapper_cfg", "sync_bn", "activation_checkpointing", "compile", "tta_model"}
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
    data: str = "",
    skip_bad: bool = False,
    checkpoint_minutes: float = 10.0,
    images_per_device: int = 0,
    scaling: str = "batch",
) -> dict[str, float | None]:
    """Train ``config`` from the converted backbone ``weights``, write ``evaluation.json`` and return its metrics.

    Raises InputError, before anything is trained, for a missing file or a config that contradicts the weights.
    """
    began, cuda = time.monotonic(), torch.cuda.is_available()
    work_dir = work_dir or Path("work_dirs") / config.stem
    cfg = read_config(config, cfg_options)
    weights = remote.local(weights) if weights else take_checkpoint(cfg)
    backbone = None if weights is None else read_weights(weights)
    inject(cfg, backbone, config)
    if amp:
        use_amp(cfg, cuda)
    processes = compat.world_size(launcher)
    published = devices.published(read_config(config, ()), processes)
    owned = protocol.use_own(cfg, data, skip_bad) if data else []
    trial = devices.fits if cuda and not tiny else None
    fitted = devices.adapt(cfg, processes, cuda, _parse(cfg_options), images_per_device, scaling == "linear", trial)
    recipes, lines = _vary(cfg, published, processes, fitted, (tiny, lr_factor, hold_out, bool(data)))
    lines = [*owned, *lines]
    rank = int(os.environ.get("RANK", 0))
    held = contextlib.nullcontext() if rank else work_folder.hold(work_dir)
    resume, opened = work_folder.open_folder(work_dir, _identity(cfg, weights, seed), resume, "--work-dir")
    seed = _fill(cfg, work_dir, resume, launcher, seed)
    sitting = Sitting(work_dir, began, cfg.resume, checkpoint_minutes, keeps=rank == 0)
    with held, compat.quiet():
        if wrapper := compat.start_processes(launcher, cuda):
            cfg.model_wrapper_cfg = wrapper
        _say([*lines, *opened], backbone)
        runner = _build(cfg, config)
        if not devices.agree(cfg.train_dataloader.batch_size):
            raise InputError("the devices hold different numbers of images; give --images-per-device")
        loader = LoadBackbone(backbone, sha256(weights) if weights else "")
        record = Record(work_dir, cfg.default_hooks.logger.get("interval", 10), sitting)
        averaging = [AverageNorms()] if processes > 1 and not cuda else []
        for hook in (
            PlainCheckpoints(),
            loader,
            record,
            Resumable(sitting),
            Drawings(work_dir / "predictions"),
            *averaging,
        ):
            runner.register_hook(hook)
        with stop_signals(sitting.stop):
            _train(runner, record, config)
    metrics = reading.for_json(record.metrics)
    if runner.rank == 0:
        more = {"recipe": recipes, "tensors_checked": loader.tensors}
        write_evaluation(work_dir, metrics, sitting, "cuda" if cuda else "cpu", **more)
        _report(metrics, work_dir)
    if wrapper:
        torch.distributed.destroy_process_group()
    return metrics


def _vary(
    cfg: Config, published: dict[str, Any], processes: int, fitted: Any, asked: tuple[str, float, float, bool]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Depart from the protocol as asked; return both recipes and what to print."""
    recipes, said = fitted
    recipes["published"] = published  # the file's, before the command line changed it
    changed = protocol.vary(cfg, *asked)
    if changed:
        recipes["effective"] = devices.summary(cfg, processes)
    return recipes, [*said, *changed, *describe(recipes["published"], recipes["effective"])]


def _identity(cfg: Config, weights: Path | None, seed: int | None) -> dict[str, Any]:
    """Return what decides a run, flat: all settings but those of place, and what the weights file holds."""
    settings = {key: value for key, value in work_folder.flat(cfg.to_dict()) if key.split(".")[-1] not in PLACE}
    return {**settings, "--seed": seed, "--weights": work_folder.content(weights)}


def _report(metrics: dict[str, float | None], folder: Path) -> None:
    shown = ((name, metrics.get(f"seg/{name}")) for name in ("mIoU", "mAcc", "aAcc"))
    print(
        f"{', '.join(f'{name} {value:.2f}' for name, value in shown if value is not None)} -> {folder}/evaluation.json"
    )


def _fill(cfg: Config, work_dir: Path, resume: bool, launcher: str, seed: int | None) -> int | None:
    """Set what MMSegmentation's own tool sets, the per-class metric, atomic checkpoints, and data that a resumed run finds again.

    Returns the seed: a resumed run has that of its checkpoint where none is given.
    """
    cfg.work_dir, cfg.launcher = str(work_dir), launcher
    cfg.resume = False
    if resume and (checkpoint := compat.latest_checkpoint(work_dir)):
        cfg.load_from, cfg.resume = str(checkpoint), True
        if seed is None:
            seed = (read_weights_file(checkpoint).get("meta") or {}).get("seed")
    if seed is None and launcher == "none":
        seed = secrets.randbelow(2**31)
    if seed is not None:
        cfg.randomness = {"seed": seed}
        reading.resumable(cfg, seed)
    evaluators = cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else [cfg.val_evaluator]
    for evaluator in evaluators:
        if evaluator.type == "IoUMetric":
            evaluator.type = "ClassIoU"
    cfg.default_hooks.checkpoint.backend_args = {"backend": "AtomicBackend"}
    reading.name_files(cfg)
    compat.repair_loaders(cfg)
    return seed


def _build(cfg: Config, source: Path) -> Runner:
    """Build MMEngine's Runner; its log goes to a file in the work folder, warnings also to the terminal."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # hundreds of lines on the environment, all in the log file
            runner = devices.ResumingRunner.from_cfg(cfg)
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
    reading.check_classes(
        runner.val_dataloader.dataset.metainfo["classes"], unwrapped(runner.model).decode_head.num_classes, source
    )
    try:
        with from_workers():
            runner.train()
            if not record.metrics:  # resumed after the last step, before its evaluation
                runner.val()
    except Exception:
        if runner.iter >= runner.max_iters:
            evaluate_again(Path(runner.work_dir))
        raise
    finally:
        record.close()


def _say(lines: Sequence[str], backbone: Weights | None) -> None:
    if int(os.environ.get("RANK", 0)):
        return
    if backbone is None:
        lines = [*lines, "no --weights: the backbone starts random"]
    elif backbone.recipe is None:
        lines = [*lines, f"{backbone.path} carries no recipe: channel order, mean and std are the config's word alone"]
    print("\n".join(lines), flush=True)


def read_config(path: Path, options: Sequence[str]) -> Config:
    """Read a config file and merge ``key=value`` options over it; raise InputError for what cannot be read."""
    if not path.is_file() or path.suffix != ".py":
        raise InputError(
            f"no MMSegmentation config (.py) at {path}; the shipped ones are under configs/transfer/segmentation"
        )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # MMEngine prints every environment variable it puts in
            cfg = Config.fromfile(str(path))
    except Exception as error:  # MMEngine runs the file, so anything can come out of it
        raise InputError(f"{path} is not a valid MMSegmentation config: {error}") from error
    for key in ("model", "train_dataloader", "val_dataloader", "train_cfg", "optim_wrapper"):
        if key not in cfg:
            raise InputError(f"{path} sets no {key}; compare it with configs/transfer/segmentation")
    values = _parse(options)
    known = set(cfg) | set(inspect.signature(Runner.__init__).parameters) | EXTRA
    for key in values:
        if (top := key.split(".")[0]) not in known:
            raise InputError(f"--cfg-options {key}: no {top!r} in {path}; there are: {', '.join(sorted(cfg))}")
    try:
        cfg.merge_from_dict(values)
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(f"--cfg-options do not fit {path}: {error}") from error
    return cfg


def take_checkpoint(cfg: Config) -> Path | None:
    """Take the file out of ``init_cfg=dict(type='Pretrained', checkpoint=FILE)``: MMEngine must not open it itself."""
    init: ConfigDict | None = cfg.model.backbone.get("init_cfg")
    if not isinstance(init, dict) or "checkpoint" not in init:
        return None
    cfg.model.backbone.init_cfg = None
    if remote.is_remote(init["checkpoint"]):
        raise InputError(
            f"{init['checkpoint']} is an address in a config, from which nothing is fetched; give it as --weights"
        )
    return Path(init["checkpoint"])


def use_amp(cfg: Config, cuda: bool) -> None:
    """Switch to mixed precision as MMSegmentation's ``--amp`` does."""
    if not cuda:
        raise InputError("--amp needs a CUDA device; leave it out on a CPU, where it is many times slower")
    cfg.optim_wrapper.type = "AmpOptimWrapper"
    cfg.optim_wrapper.loss_scale = "dynamic"


def _parse(options: Sequence[str]) -> dict[str, Any]:
    """Parse ``key=value`` as MMEngine does."""
    for option in options:
        if "=" not in option:
            raise InputError(f"cannot read --cfg-options {option!r}; write key=value, such as train_cfg.max_iters=100")
    parser = argparse.ArgumentParser()
    parser.add_argument("--options", nargs="+", action=DictAction, default={})
    return parser.parse_args(["--options", *options] if options else []).options
