"""Carry out one detection benchmark: check everything, train, evaluate, and write ``evaluation.json``."""

from transfer.frameworks.detectron2 import compat  # noqa: I001 - first: it prepares Detectron2's import

import argparse
import contextlib
import dataclasses
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import launch
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch.multiprocessing import ProcessExitedException

from core import bounds, remote
from core import run_folder as work_folder
from core.errors import InputError
from core.files import write_atomic
from core.stopping import Sitting, stop_signals
from transfer.convert import recipe
from transfer.frameworks._protocol import describe, from_workers, harmless, write_evaluation
from transfer.frameworks.detectron2 import datasets, devices, evaluators, protocol, weights
from transfer.frameworks.detectron2.trainer import Trainer, draw
from transfer.frameworks.detectron2.weights import ProvenCheckpointer

PLACE = ("OUTPUT_DIR", "MODEL.DEVICE", "MODEL.WEIGHTS", "DATALOADER.NUM_WORKERS")  # where and how, not what is learned
INPUT_ERRORS = (InputError, FileNotFoundError, PermissionError)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A config that is ready to run on ``processes`` devices, and what was asked of it."""

    cfg: CfgNode
    processes: int
    resume: bool
    eval_only: bool
    protocols: dict[str, dict[str, Any]]  # "published" and "effective"
    began: float
    minutes: float  # between checkpoints


def main(arguments: argparse.Namespace) -> int:
    """Run Detectron2's command line; return the exit code (2 for what the user got wrong)."""
    with compat.quiet(), contextlib.ExitStack() as held:
        plan = prepare(arguments, held)
        if plan.processes == 1:
            work(plan)
            return 0
        url = arguments.dist_url
        try:
            launch(_worker, arguments.num_gpus, arguments.num_machines, arguments.machine_rank, url, args=(plan,))
        except ProcessExitedException as error:
            return int(error.exit_code)
        return 0


def prepare(arguments: argparse.Namespace, held: contextlib.ExitStack | None = None) -> Plan:
    """Read the config, inject the recipe, fit it to the devices, check the data; raise InputError or FileError.

    ``held`` gets the lock of the folder that the run writes into.
    """
    began = time.monotonic()
    cuda = torch.cuda.is_available()
    if cuda and arguments.num_gpus > torch.cuda.device_count():
        raise InputError(
            f"--num-gpus {arguments.num_gpus}, but this machine has {torch.cuda.device_count()}; ask for fewer"
        )
    processes = arguments.num_gpus * arguments.num_machines
    if processes < 1:
        raise InputError(f"--num-gpus is {arguments.num_gpus}; give the number of processes, 1 also without a GPU")
    cfg, explicit = read_config(arguments.config_file, arguments.opts)
    if not (cfg.DATASETS.TRAIN or arguments.eval_only):
        raise InputError("DATASETS.TRAIN is empty; give --config-file, such as one of configs/transfer/detection")
    resuming = arguments.resume and (Path(cfg.OUTPUT_DIR) / "last_checkpoint").is_file()
    said = []
    if "MODEL.WEIGHTS" in arguments.opts[::2] and cfg.MODEL.WEIGHTS:  # a person asks for an address, no file does
        cfg.MODEL.WEIGHTS = str(remote.local(cfg.MODEL.WEIGHTS))
    weights.refuse_address(cfg.MODEL.WEIGHTS)
    if cfg.MODEL.WEIGHTS and not (resuming and not Path(cfg.MODEL.WEIGHTS).is_file()):
        file = cfg.MODEL.WEIGHTS
        found = recipe.read(file)
        said = weights.inject(cfg, found, explicit, file) if found else [f"{file} has no recipe: the config decides"]
    elif not resuming:
        said = ["MODEL.WEIGHTS is empty: the backbone starts from random weights"]
    weights.refuse_impossible(cfg)
    written, _ = read_config(arguments.config_file, [])
    published = devices.summary(written, written.SOLVER.REFERENCE_WORLD_SIZE or processes)
    trial = devices.fits if cuda and not (arguments.eval_only or arguments.tiny) else None
    fit = (arguments.images_per_device, arguments.scaling == "linear", trial)
    cfg, changed = devices.adapt(cfg, processes, cuda, arguments.norm, arguments.opts[::2], *fit)
    if arguments.data:
        changed += protocol.use_own(cfg, arguments.data, arguments.skip_bad)
    asked = (arguments.tiny, arguments.lr_factor, arguments.hold_out, bool(arguments.data))
    changed += protocol.vary(cfg, *asked, processes)
    effective = devices.summary(cfg, processes)
    datasets.check((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))
    datasets.check_classes(cfg, cfg.DATASETS.TEST)
    cfg.freeze()
    resume: bool = arguments.resume
    opened: list[str] = []
    if not arguments.eval_only:
        if held is not None and arguments.machine_rank == 0:
            held.enter_context(work_folder.hold(Path(cfg.OUTPUT_DIR)))
        settings = {key: value for key, value in work_folder.flat(cfg) if key not in PLACE}
        settings["MODEL.WEIGHTS"] = work_folder.content(cfg.MODEL.WEIGHTS)
        resume, opened = work_folder.open_folder(Path(cfg.OUTPUT_DIR), settings, resume, "OUTPUT_DIR")
    for line in [*said, *changed, *describe(published, effective), *opened]:
        print(line, file=sys.stderr, flush=True)
    protocols = {"effective": effective, "published": published}
    return Plan(cfg, processes, resume, arguments.eval_only, protocols, began, arguments.checkpoint_minutes)


def read_config(file: str, options: list[str]) -> tuple[CfgNode, set[str]]:
    """Return Detectron2's config and the keys that the file, its bases and the command line set."""
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZER = "SGD"  # our keys beyond Detectron2's: AdamW is the other optimizer,
    cfg.SOLVER.LAYER_DECAY = 1.0  # its rate is multiplied by this from layer to layer towards the image,
    cfg.SOLVER.ACCUMULATE = 1  # and gradients of so many parts of an iteration's images are added up before a step;
    cfg.INPUT.CROP.SHARE, cfg.INPUT.CROP.MIN_SIZE = 1.0, (400, 500, 600)  # datasets.py says what these do
    written = _written(Path(file), ()) if file else {}
    try:
        cfg.merge_from_other_cfg(CfgNode(written))
        cfg.merge_from_list(options)
    except (KeyError, ValueError, AssertionError, TypeError, AttributeError, SyntaxError, RecursionError) as error:
        raise InputError(f"{file}: {error.args[0] if error.args else error}; correct the key or its value") from error
    return cfg, {key for key, _ in work_folder.flat(written)} | set(options[::2])


def _written(file: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Read a config and its ``_BASE_`` as fvcore does, but from files of this machine alone, and as plain values alone."""
    if not file.is_file() or file in seen:
        wrong = f"{file} is its own base" if file in seen else f"no config file {file}"
        raise InputError(f"{wrong}; there are configs in configs/transfer/detection")
    try:
        values = yaml.safe_load(bounds.yaml_text(file))
        bases = values.pop("_BASE_", []) if isinstance(values, dict) else None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is no config of Detectron2: {' '.join(str(error).split())}") from error
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise InputError(f"{file} is no mapping of settings with the paths of files as _BASE_; correct it")
    found: dict[str, Any] = {}
    for base in bases:
        _put(found, _written((file.parent / Path(base).expanduser()).resolve(), (*seen, file)), file)
    _put(found, values, file)
    return found


def _put(under: dict[str, Any], values: Mapping[str, Any], file: Path) -> None:
    """Merge ``values`` over what is there."""
    for key, value in values.items():
        if not isinstance(key, str):
            raise InputError(f"{file}: the key {key!r} is no text; correct it")
        if isinstance(value, dict) and key in under:
            if not isinstance(under[key], dict):
                raise InputError(f"{file}: {key} is a group here and a value in a base; correct one of them")
            _put(under[key], value, file)
        else:
            under[key] = value


def work(plan: Plan) -> None:
    """Train and evaluate, or evaluate only, in this process; the first process writes the results."""
    cfg, folder = plan.cfg, Path(plan.cfg.OUTPUT_DIR)
    _start(plan)
    sitting = Sitting(folder, plan.began, plan.resume, plan.minutes, comm.is_main_process() and not plan.eval_only)
    if plan.eval_only:
        model = build_model(cfg)
        checkpointer = ProvenCheckpointer(model, cfg.OUTPUT_DIR)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=plan.resume)
        with from_workers():
            results = Trainer.test(cfg, model)
    else:
        trainer = Trainer(cfg, sitting)
        datasets.check_classes(cfg, (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))  # the training set has been read by now
        trainer.resume_or_load(resume=plan.resume)
        with stop_signals(sitting.stop), from_workers():
            _train(trainer)
        model, checkpointer, results = trainer.model, trainer.checkpointer, trainer.results
    if not comm.is_main_process():
        return
    metrics = evaluators.for_json(results, cfg.DATASETS.TEST)
    more = {"recipe": plan.protocols, "tensors_checked": checkpointer.checked}
    write_evaluation(folder, metrics, sitting, cfg.MODEL.DEVICE, **more)
    _say(metrics, checkpointer.checked, folder)
    if cfg.DATASETS.TEST:  # last, so that nothing is lost with a picture
        with harmless("drawing predictions"):
            draw(cfg, getattr(model, "module", model), cfg.DATASETS.TEST[0], folder / "predictions")


def _train(trainer: Trainer) -> None:
    """Train; a loss that is no number is told with its iteration and what is left of the run."""
    try:
        trainer.train()
    except FloatingPointError as error:
        pointer, kept = Path(trainer.cfg.OUTPUT_DIR) / "last_checkpoint", "no checkpoint was due yet"
        if pointer.is_file():
            kept = f"the last good checkpoint is {pointer.with_name(pointer.read_text().strip())}"
        raise InputError(
            f"training diverged at iteration {trainer.iter}; lower SOLVER.BASE_LR ({trainer.cfg.SOLVER.BASE_LR:g}); {kept}"
        ) from error


def _worker(plan: Plan) -> None:
    """Run ``work`` in a process that was started for it; a user's error ends it with exit code 2."""
    if not torch.cuda.is_available():  # threads beyond the cores make both processes several times slower
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // comm.get_local_size()))
    try:
        with compat.quiet():
            work(plan)
    except INPUT_ERRORS as error:
        print(f"error: process {comm.get_rank()}: {error}", file=sys.stderr, flush=True)
        os._exit(2)  # the other processes may be waiting for this one


def _start(plan: Plan) -> None:
    """Keep the config, seed, send Detectron2's log to ``log.txt`` and its evaluation's progress to stderr."""
    folder, rank = Path(plan.cfg.OUTPUT_DIR), comm.get_rank()
    for name in (*plan.cfg.DATASETS.TRAIN, *plan.cfg.DATASETS.TEST):
        datasets.define(name)  # a process that was started for this knows no made-up name yet
    folder.mkdir(parents=True, exist_ok=True)
    seed_all_rng(None if plan.cfg.SEED < 0 else plan.cfg.SEED + rank)
    handler = logging.FileHandler(folder / ("log.txt" if rank == 0 else f"log.txt.rank{rank}"))
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    for name in ("detectron2", "fvcore"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(handler)
    if rank == 0:
        write_atomic(folder / "config.yaml", plan.cfg.dump())
        logging.getLogger("detectron2.evaluation.evaluator").addHandler(logging.StreamHandler())


def _say(metrics: dict[str, float | None], checked: int, folder: Path) -> None:
    overall = {name: value for name, value in metrics.items() if "AP-" not in name}
    shown = [f"{name} {'-' if value is None else f'{value:.1f}'}" for name, value in overall.items()]
    print(f"{checked} backbone tensors checked; {', '.join(shown) or 'no test set'}")
    print(f"{folder}/evaluation.json")
