"""Read a native MMSegmentation config and the options on the command line."""

import argparse
import contextlib
import inspect
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.runner import Runner

from core.errors import InputError

# Top-level keys that Runner reads besides its own parameters.
EXTRA = {"find_unused_parameters", "model_wrapper_cfg", "sync_bn", "activation_checkpointing", "compile", "tta_model"}


def read(path: Path, options: Sequence[str]) -> Config:
    """Read a config file and merge ``key=value`` options over it; raise InputError for what cannot be read."""
    if not path.is_file():
        raise InputError(f"no config at {path}; the shipped ones are under configs/transfer/segmentation")
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
