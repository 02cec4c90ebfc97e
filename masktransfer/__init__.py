"""The suite from Python: each function does what the tool of the same name does (docs/python.md).

Bad input raises ``core.errors.InputError``, one sentence with the next step, as on the command line. What takes seconds to import
is imported by the functions that need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import InputError

if TYPE_CHECKING:
    from masktransfer.features import Features
    from transfer.convert.convert import Proof
    from transfer.report.model import Report
    from transfer.results import Result
    from transfer.suite.items import Item
    from transfer.suite.settings import Suite

__all__ = ["InputError", "convert", "evaluate", "load_backbone", "predict", "report", "run_suite"]


def convert(
    source: Path | str,
    output: Path | str,
    *,
    target: str,
    dialect: str = "auto",
    arch: str = "auto",
    results: Sequence[Path] = (),
    license: str = "",
) -> Proof:
    """Convert a checkpoint for ``target`` (detectron2, mmseg, mmdet, torchvision, timm, safetensors, hf) and return the proof.

    ``results`` and ``license`` go into the model card of target hf.
    """
    from transfer.report import card

    asked = {"target": target, "dialect": dialect, "arch": arch}
    return card.convert(source, output, **asked, results=results, license=license)


def load_backbone(file: Path | str, *, dialect: str = "auto", arch: str = "auto") -> Features:
    """Return the backbone of any converted file or checkpoint as a torch module in evaluation mode.

    It takes images float [N, 3, H, W], RGB, 0 to 255, and returns the four stages' feature maps, fine to coarse.
    """
    from core import remote
    from masktransfer.features import Features
    from transfer.convert.read import read

    return Features(read(remote.local(file), dialect, arch)).eval()


def evaluate(
    checkpoint: Path | str, benchmark: str, *, out: Path | str, trial: int = 0, tiny: str = "", **more: Any
) -> Result:
    """Measure a checkpoint on a benchmark once, in the folder ``out``, and return the result; a finished trial is read.

    ``tiny`` is "shapes" or a folder for a run of a few iterations; ``more`` are further fields of ``transfer.suite.trial.Job``,
    such as ``name``, ``options``, ``devices``.
    """
    from core import config
    from transfer.suite import trial as trials

    values = {"checkpoint": checkpoint, "benchmark": benchmark, "out": out, "trial": trial, "tiny": tiny, **more}
    return trials.run_trial(config.parse(trials.Job, values, "evaluate"))


def predict(run: Path | str, images: Sequence[Path | str], out: Path | str, *, score: float = 0.3) -> list[Path]:
    """Draw what the network of a finished trial finds on images; return the pictures, one an image.

    ``run`` is the trial's folder or the checkpoint it ended with; detections below ``score`` are not drawn.
    """
    from transfer.frameworks import _predict

    return list(_predict.draw(Path(run), [Path(image) for image in images], Path(out), score))


def run_suite(
    suite: Path | str | Mapping[str, Any], overrides: Sequence[str] = (), *, out: Path | str | None = None
) -> Path:
    """Run what a suite file, or a mapping of the same keys, asks for; return the results folder.

    What is finished is skipped. Raises InputError when items did not end well, after all others did.
    """
    from rich.console import Console

    from transfer.suite import run, settings

    read = settings.read(suite if isinstance(suite, Mapping) else Path(suite), overrides)
    folder = Path(out) if out else read.folder
    check_pretraining(read)
    if failed := run.run(read, folder, Console()):
        raise InputError(f"{failed} item(s) of {read.name} did not end well; {folder / 'suite.log'} says why")
    return folder


def report(results: Path | str, *, baseline: str | None = None, out: Path | str | None = None) -> Report:
    """Compare what a results folder (or packed file) holds; write all forms of the report into ``out``, if given."""
    from transfer import results as records
    from transfer.report import assembly, write

    with records.opened(Path(results)) as folder:
        made = assembly.build(folder, baseline, Path(results))
        if out is not None:
            write(made, Path(out))
        return made


def refused(item: Item) -> str:
    """Return why a suite's pre-training could not start, or an empty text."""
    from pretrain.setup import check

    script = next(place for place, word in enumerate(item.command) if word.endswith("run.py"))
    try:
        check(Path(item.command[script + 1]), item.command[script + 2 :], item.devices)
    except InputError as error:
        return str(error)
    return ""


def check_pretraining(settings: Suite) -> None:
    """Check the pre-training configs, which ``transfer`` cannot; raise InputError with the problems of all of them."""
    runs = {
        (entry.pretrain.config, entry.pretrain.overrides) for entry in settings.checkpoints.values() if entry.pretrain
    }
    problems = []
    if runs:
        from core import config
        from pretrain.config import PretrainSettings

        for path, overrides in sorted(runs):
            try:
                config.parse(PretrainSettings, config.load(path, overrides), path)
            except InputError as error:
                problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
