"""Find out before training whether the dataset is there and whole, and score each of its classes."""

from transfer.frameworks.mmseg import compat  # noqa: F401, I001 - first: it prepares the mm* packages

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config, ConfigDict
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank
from mmseg.evaluation import IoUMetric
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATA_SAMPLERS, DATASETS, METRICS, TRANSFORMS

from core.errors import InputError
from core.files import FileError, datasets_root
from transfer.datasets import checking
from transfer.frameworks._protocol import reading
from transfer.frameworks._seeding import Numbered, Seeded


def check(cfg: Config) -> None:
    """Render the embedded set if the config asks for it and it is missing; raise FileError for what else is missing."""
    for name in ("train_dataloader", "val_dataloader"):
        for dataset in leaves(cfg[name].dataset):
            root = Path(dataset.get("data_root") or "")
            if root == datasets_root() / "shapes" / "VOC" and not root.exists():
                _render()
            _check_lists(dataset, root)


def leaves(dataset: ConfigDict) -> Iterator[ConfigDict]:
    """Yield the datasets inside ConcatDataset, RepeatDataset and the like."""
    inner: Any = dataset.get("datasets") or ([dataset.dataset] if "dataset" in dataset else None)
    if inner is None:
        yield dataset
    for part in inner or []:
        yield from leaves(part)


def check_classes(classes: tuple[str, ...], num_classes: int, source: Path) -> None:
    """Raise InputError when head and dataset do not have the same number of classes; MMSegmentation does not check."""
    if len(classes) != num_classes:
        raise InputError(
            f"{source}: model.decode_head.num_classes is {num_classes}, but its dataset has {len(classes)} classes "
            f"({', '.join(classes[:3])}, ...); make them equal"
        )


def _render() -> None:
    from transfer.datasets.shapes import ensure  # here: only the embedded set needs its renderer

    ensure(datasets_root())


HINT = "make it with tools/prepare_data.py, or set DETECTRON2_DATASETS to the folder that holds it"
# What MMSegmentation's own classes of datasets are registered with, where it is not .jpg and .png.
PUBLISHED = ("CityscapesDataset", "ADE20KDataset")
SUFFIXES = {"CityscapesDataset": ("_leftImg8bit.png", "_gtFine_labelTrainIds.png")}


def images(dataset: ConfigDict) -> list[Path]:
    """Return the dataset's images in MMSegmentation's order: as its list has them, or sorted where it has no list."""
    root, prefix = Path(dataset.get("data_root") or ""), dataset.get("data_prefix", {})
    folder, (suffix, _) = root / prefix.get("img_path", ""), _suffixes(dataset)
    if not dataset.get("ann_file"):
        return sorted(folder.rglob(f"*{suffix}"), key=str)
    return [folder / f"{name}{suffix}" for name in (root / dataset.ann_file).read_text().split()]


def _check_lists(dataset: ConfigDict, root: Path) -> None:
    """Raise FileError naming the first folder, list, image or mask that is missing."""
    if not root.is_dir():
        raise FileError(f"no dataset folder {root}; {HINT}")
    prefix = dataset.get("data_prefix", {})
    folders = (root / prefix.get("img_path", ""), root / prefix.get("seg_map_path", ""))
    for folder in folders:
        if not folder.is_dir():
            raise FileError(f"no folder {folder}; {HINT}")
    listing = root / dataset.ann_file if dataset.get("ann_file") else None
    if listing is not None and not listing.is_file():
        raise FileError(f"no list of images {listing}; {HINT}")
    suffixes = _suffixes(dataset)
    names = [path.relative_to(folders[0]).as_posix().removesuffix(suffixes[0]) for path in images(dataset)]
    if not names:
        raise FileError(f"{listing or folders[0]} lists no image; {HINT}")
    for folder, suffix in zip(folders, suffixes, strict=True):
        if missing := [name for name in names if not (folder / f"{name}{suffix}").is_file()]:
            first = folder / f"{missing[0]}{suffix}"
            raise FileError(
                f"{len(missing)} of {len(names)} files in {listing or folders[0]} are missing, first {first}; {HINT}"
            )
    if dataset.get("type") in PUBLISHED:  # they have published numbers of images, and no list
        checking.require(root.absolute(), folders[0].name)


def _suffixes(dataset: ConfigDict) -> tuple[str, str]:
    own = SUFFIXES.get(dataset.get("type"), (".jpg", ".png"))
    return dataset.get("img_suffix", own[0]), dataset.get("seg_map_suffix", own[1])


@DATA_SAMPLERS.register_module()
class NumberedSampler(InfiniteSampler):
    """MMEngine's sampler, whose indices know their number in the order of the whole training."""

    start = 0

    def skip(self, num_samples: int) -> None:
        """Go to a place of the order, to resume there."""
        super().skip(num_samples)
        self.start = num_samples

    def __iter__(self) -> Iterator[int]:
        yield from (Numbered(index, number) for number, index in enumerate(super().__iter__(), self.start))


@DATASETS.register_module()
class SeededDataset(Seeded):
    """A data set of the config, whose augmentations are a function of seed, process and sample."""

    def __init__(self, dataset: Any, seed: int) -> None:
        super().__init__(DATASETS.build(dataset), seed, get_rank())


@TRANSFORMS.register_module()
class NamedImage(LoadImageFromFile):
    """Load an image; one that cannot be used is named."""

    def transform(self, results: dict) -> Any:
        """See the base class."""
        with reading(results["img_path"]):
            return super().transform(results)


@TRANSFORMS.register_module()
class NamedLabels(LoadAnnotations):
    """Load a label map; one that cannot be used is named."""

    def transform(self, results: dict) -> Any:
        """See the base class."""
        with reading(results["seg_map_path"]):
            return super().transform(results)


NAMED = {"LoadImageFromFile": "NamedImage", "LoadAnnotations": "NamedLabels"}


def name_files(cfg: Config) -> None:
    """Let the readers of all data sets name the file that they cannot use."""
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        for dataset in leaves(cfg[name].dataset) if cfg.get(name) else ():
            for step in dataset.get("pipeline") or []:
                step["type"] = NAMED.get(step["type"], step["type"])


def resumable(cfg: Config, seed: int) -> None:
    """Let the order and the augmentations of training images be a function of the seed and of how many came before."""
    loader = cfg.train_dataloader
    if loader.sampler.type == "InfiniteSampler":
        loader.sampler.type = "NumberedSampler"
        loader.sampler.seed = seed
        loader.dataset = ConfigDict(type="SeededDataset", dataset=loader.dataset, seed=seed)


@METRICS.register_module()
class ClassIoU(IoUMetric):
    """Return mIoU, mAcc, aAcc and each class's IoU in percent, unrounded; NaN for a class nobody saw or predicted."""

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Sum the areas of all images and score them (the arithmetic is IoUMetric's)."""
        areas = (sum(area.double() for area in column) for column in zip(*results, strict=True))
        scores = self.total_area_to_metrics(*areas, ["mIoU"], self.nan_to_num, self.beta)
        per_class: dict[str, torch.Tensor] = {name: torch.as_tensor(value) * 100 for name, value in scores.items()}
        metrics = {
            "mIoU": float(per_class["IoU"].nanmean()),
            "mAcc": float(per_class["Acc"].nanmean()),
            "aAcc": float(per_class["aAcc"]),
        }
        classes = self.dataset_meta["classes"]
        return metrics | {f"IoU-{name}": float(iou) for name, iou in zip(classes, per_class["IoU"], strict=True)}


def for_json(metrics: dict[str, Any]) -> dict[str, float | None]:
    """Return the metrics of `ClassIoU` as ``seg/<name>``, with None for NaN."""
    values = {name: float(value) for name, value in metrics.items()}
    return {f"seg/{name}": None if math.isnan(value) else value for name, value in values.items()}
