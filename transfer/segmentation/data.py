"""Find out before training whether the dataset is there and whole."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from core.errors import InputError
from core.files import FileError, datasets_root


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


def _check_lists(dataset: ConfigDict, root: Path) -> None:
    hint = "make it with tools/prepare_data.py, or set DETECTRON2_DATASETS to the folder that holds it"
    if not root.is_dir():
        raise FileError(f"no dataset folder {root}; {hint}")
    prefix = dataset.get("data_prefix", {})
    images, masks = root / prefix.get("img_path", ""), root / prefix.get("seg_map_path", "")
    for folder in (images, masks):
        if not folder.is_dir():
            raise FileError(f"no folder {folder}; {hint}")
    listing = root / dataset.get("ann_file", "")
    if not listing.is_file():
        raise FileError(f"no list of images {listing}; {hint}")
    names = listing.read_text().split()
    if not names:
        raise FileError(f"{listing} lists no image; {hint}")
    image_suffix, mask_suffix = dataset.get("img_suffix", ".jpg"), dataset.get("seg_map_suffix", ".png")
    for folder, suffix in ((images, image_suffix), (masks, mask_suffix)):
        if missing := [name for name in names if not (folder / f"{name}{suffix}").is_file()]:
            first = folder / f"{missing[0]}{suffix}"
            raise FileError(f"{len(missing)} of {len(names)} files in {listing} are missing, first {first}; {hint}")
