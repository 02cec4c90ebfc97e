"""Measure one backbone: read, check, load, run the task, write ``evaluation.json``."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from core import plugins, remote
from core import run_folder as work_folder
from core.data import Labelled
from core.errors import InputError
from core.files import datasets_root, sha256
from core.stopping import Sitting, stop_signals
from core.weights_file import read_weights_file
from transfer.convert.load_check import compare
from transfer.convert.recipe import Recipe
from transfer.convert.targets import ours as build_network
from transfer.datasets import own, shapes
from transfer.frameworks._protocol import write_evaluation
from transfer.frameworks.classification import job as reading
from transfer.frameworks.classification.job import ClassificationSettings, Job
from transfer.frameworks.classification.views import choose

TASKS = "transfer.frameworks.classification.tasks"


def run(
    config: Path,
    weights: Path,
    work_dir: Path,
    seed: int = 0,
    resume: bool = False,
    options: Sequence[str] = (),
    data: str = "",
    skip_bad: bool = False,
    checkpoint_minutes: float = 10.0,
    tiny: str = "",
) -> dict[str, Any]:
    """Measure the converted backbone ``weights`` as ``config`` says and return what ``evaluation.json`` holds.

    Raises InputError, before anything is trained, for missing data and for a config that contradicts the weights.
    """
    began, weights = time.monotonic(), remote.local(weights)
    folder = None
    if tiny:
        print(f"tiny: a part of {tiny}; this measures nothing")
        data = data or ("" if tiny == reading.EMBEDDED or _several(config) else tiny)
    if data:
        found = own.prepare(data, "classes", skip_bad=skip_bad)
        folder = Path(found.folder)
        print("\n".join([f"data: {found.name}, {len(found.classes)} classes", *found.notes]))
    settings, published = reading.read(config, options, folder, tiny), reading.read(config, (), folder)
    if tiny == reading.EMBEDDED and not data and settings.data.name == "voc":
        shapes.ensure(datasets_root())
    device = torch.device(_device(settings.device))
    network, recipe, tensors = _loaded(weights, settings)
    digest = sha256(weights)
    decides = settings.model_dump(mode="json", exclude={"chunk", "workers", "device"})
    identity = {**dict(work_folder.flat(decides)), "--seed": seed, "--weights": digest}
    held = work_folder.hold(work_dir)
    resume, opened = work_folder.open_folder(work_dir, identity, resume, "--work-dir")
    for line in opened:
        print(line)
    job = Job(
        network=network.to(device),
        recipe=recipe,
        weights_sha256=digest,
        data=_data(settings, seed),
        settings=settings,
        seed=seed,
        folder=work_dir,
        device=device,
        resume=resume,
        sitting=Sitting(work_dir, began, resume, checkpoint_minutes),
    )
    with held, stop_signals(job.sitting.stop):
        metrics = plugins.build(TASKS, settings.task).measure(job)
    recipes = {"effective": _recipe(settings), "published": _recipe(published)}
    evaluation = write_evaluation(work_dir, metrics, job.sitting, device.type, recipe=recipes, tensors_checked=tensors)
    print(", ".join(f"{k} {v:.2f}" for k, v in metrics.items() if v is not None), "->", work_dir / "evaluation.json")
    return evaluation


def _several(config: Path) -> bool:
    """Tell whether a config's images have several classes each: a folder for a tiny run is then one in VOC's layout."""
    return reading.read(config).data.name == "voc"


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device is {name}, but torch finds no GPU; set device=cpu")
    return name


def _loaded(weights: Path, settings: ClassificationSettings) -> tuple[Any, Recipe, int]:
    """Return the network with the file's weights, its recipe, and how many tensors were compared."""
    file = read_weights_file(weights)
    if not isinstance(file.get("backbone"), dict) or not isinstance(file.get("recipe"), dict):
        raise InputError(f"{weights} is not converted for classification; run tools/run_benchmark.py on the checkpoint")
    recipe = Recipe.from_dict(file["recipe"], weights)
    reading.check_recipe(settings, recipe, weights)
    network = build_network(recipe)
    try:
        network.load_state_dict(file["backbone"], strict=False)  # compared next: the counters alone are not in the file
    except RuntimeError as error:
        raise InputError(f"{weights} does not hold the network that its recipe describes; convert it again") from error
    return network, recipe, compare(network.state_dict(), file["backbone"], str(weights))


def _data(settings: ClassificationSettings, seed: int) -> Labelled:
    data = settings.data.read()
    if data.train.labels.ndim > 1 and not plugins.named(TASKS, settings.task.name).several:
        raise InputError(f"data has images of several classes, which task {settings.task.name} does not take; svm does")
    return data._replace(train=choose(data.train, settings.subset, seed))


def _recipe(settings: ClassificationSettings) -> dict[str, Any]:
    task = plugins.build(TASKS, settings.task)
    subset = settings.subset
    labels = str(subset.list) if subset.list else f"{100 * subset.share:g} %"
    views = {"labels": labels, "views": _views(settings), "amp": settings.amp}
    return {"task": settings.task.name, "devices": 1, **task.recipe(), **views}


def _views(settings: ClassificationSettings) -> str:
    views = settings.views
    of = "" if views.resize is None else f" of {views.resize}" if views.resize != "stretch" else ", stretched"
    return f"{views.size} px{of}"
