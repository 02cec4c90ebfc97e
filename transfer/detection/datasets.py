"""Name the datasets beyond Detectron2's own (COCO, VOC), and check that those of a config are there."""

from transfer.detection import compat  # noqa: F401, I001 - first: it prepares Detectron2's import

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_coco_instances, register_pascal_voc

from core.errors import InputError
from core.files import FileError, datasets_root
from core.shapes import CLASSES

HINT = "set DETECTRON2_DATASETS to the folder that holds it, or see python tools/prepare_data.py --help"
FEW = 10  # images of tiny_coco_few, on which a detector is trained and tested to show that the path learns


def register(root: Path) -> None:
    """Register ``shapes_*``, ``shapes_voc_*`` and ``tiny_coco_*`` below ``root``; files are opened on use."""
    for split in ("train", "val"):
        shapes, tiny = root / "shapes" / "coco", root / "tiny_coco"
        listing = shapes / "annotations" / f"instances_{split}.json"
        register_coco_instances(f"shapes_{split}", {}, str(listing), str(shapes / split))
        listing = tiny / "annotations" / f"instances_{split}2017.json"
        register_coco_instances(f"tiny_coco_{split}", {}, str(listing), str(tiny / f"{split}2017"))
        name = f"shapes_voc_{split}"
        register_pascal_voc(name, str(root / "shapes" / "VOC"), split, 2012, list(CLASSES))
        MetadataCatalog.get(name).evaluator_type = "pascal_voc"
    DatasetCatalog.register("tiny_coco_few", _few)
    MetadataCatalog.get("tiny_coco_few").evaluator_type = "coco"  # without json_file, its evaluator writes one itself


def check(names: Iterable[str]) -> None:
    """Render ``shapes`` if asked for; raise InputError for an unknown dataset, FileError for a missing part."""
    for name in names:
        if name not in DatasetCatalog:
            close = difflib.get_close_matches(name, DatasetCatalog.list(), n=3) or ["shapes_train", "coco_2017_train"]
            raise InputError(f"no dataset {name!r} in DATASETS; did you mean {' or '.join(close)}?")
        needed = _needed("tiny_coco_train" if name == "tiny_coco_few" else name)
        if name.startswith("shapes_") and not all(path.exists() for path in needed):
            from transfer.datasets import shapes

            shapes.ensure(datasets_root())
        for path in needed:
            if not path.exists():
                raise FileError(f"dataset {name} is not there: no {path}; {HINT}")


def _few() -> list[dict[str, Any]]:
    source = MetadataCatalog.get("tiny_coco_train")
    records: list[dict[str, Any]] = load_coco_json(source.json_file, source.image_root, "tiny_coco_few")
    return records[:FEW]


def _needed(name: str) -> list[Path]:
    metadata = MetadataCatalog.get(name)
    if hasattr(metadata, "json_file"):
        return [Path(metadata.json_file), Path(metadata.image_root)]
    if hasattr(metadata, "dirname"):
        folder = Path(metadata.dirname)
        return [folder / "ImageSets" / "Main" / f"{metadata.split}.txt", folder / "Annotations", folder / "JPEGImages"]
    return []


register(datasets_root())
