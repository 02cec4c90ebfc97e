"""Name the datasets beyond Detectron2's own (COCO, VOC), and check that those of a config are there and whole.

A name may also be made up: ``coco:FOLDER:SPLIT`` and ``voc:FOLDER:SPLIT`` are folders in those layouts, and ``NAME+first8``,
``NAME+kept0.1`` and ``NAME+held0.1`` are parts of a dataset: its first 8 images, all but a tenth of it, and that tenth.
"""

from transfer.frameworks.detectron2 import compat  # noqa: F401, I001 - first: it prepares Detectron2's import

import difflib
import functools
import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetFromList, DatasetMapper, MapDataset, MetadataCatalog
from detectron2.data.build import _train_loader_from_config, trivial_batch_collator, worker_init_reset_seed
from detectron2.data.datasets import builtin, load_coco_json, register_coco_instances, register_pascal_voc
from detectron2.data.datasets.pascal_voc import CLASS_NAMES
from detectron2.data.transforms import AugmentationList, RandomApply, RandomCrop, ResizeShortestEdge
from detectron2.structures import BoxMode
from detectron2.utils import comm
from torch.utils.data import DataLoader

from core import bounds
from core.errors import InputError
from core.files import FileError, datasets_root
from core.provenance import derive
from core.shapes import CLASSES
from transfer.datasets import checking, own
from transfer.frameworks._protocol import held, reading
from transfer.frameworks._seeding import Numbered, Seeded

CORNERS = ("xmin", "ymin", "xmax", "ymax")
HINT = "set DETECTRON2_DATASETS to the folder that holds it, or see python tools/prepare_data.py --help"
PART = re.compile(r"(?P<base>.+)\+(?P<kind>first|kept|held)(?P<value>[0-9.]+)")
FOLDER = re.compile(r"(?P<layout>coco|voc):(?P<folder>.+):(?P<split>[^:]+)")
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


def register_again(root: Path) -> None:
    """Register Detectron2's own names and ours below another root than that of its import."""
    DatasetCatalog.clear()
    MetadataCatalog.clear()
    for name in ("coco", "lvis", "cityscapes", "cityscapes_panoptic", "pascal_voc", "ade20k"):
        getattr(builtin, f"register_all_{name}")(str(root))
    register(root)


def check(names: Iterable[str]) -> None:
    """Render ``shapes`` if asked for; raise InputError for an unknown dataset, FileError for a missing part."""
    for name in names:
        define(name)
        base = _base(name)
        needed = _needed("tiny_coco_train" if base == "tiny_coco_few" else base)
        if base.startswith("shapes_") and not all(path.exists() for path in needed):
            from transfer.datasets import shapes

            shapes.ensure(datasets_root())
        for path in needed:
            if not path.exists():
                raise FileError(f"dataset {base} is not there: no {path}; {HINT}")
        _require_whole(base)
        if base != name and not DatasetCatalog.get(name):
            raise InputError(f"{name} has no image; {base} is too small for that part")


def define(name: str) -> None:
    """Register a made-up name, in every process that uses it; raise InputError for a name that means nothing."""
    if name in DatasetCatalog:
        return
    if part := PART.fullmatch(name):
        define(part["base"])
        DatasetCatalog.register(name, functools.partial(_part, name, part["base"], part["kind"], part["value"]))
        _copy_metadata(part["base"], name)
    elif (folder := FOLDER.fullmatch(name)) and folder["layout"] == "coco":
        root, split = Path(folder["folder"]), folder["split"]
        register_coco_instances(name, {}, str(root / "annotations" / f"instances_{split}.json"), str(root / split))
    elif folder:
        root, split, year = (
            Path(folder["folder"]),
            folder["split"],
            2007 if "2007" in Path(folder["folder"]).name else 2012,
        )
        listed = _classes(root)
        DatasetCatalog.register(name, functools.partial(_voc_records, root, split, listed))
        facts = {"dirname": str(root), "split": split, "year": year, "evaluator_type": "pascal_voc"}
        MetadataCatalog.get(name).set(thing_classes=listed, **facts)
    else:
        close = difflib.get_close_matches(name, DatasetCatalog.list(), n=3) or ["shapes_train", "coco_2017_train"]
        raise InputError(f"no dataset {name!r} in DATASETS; did you mean {' or '.join(close)}?")


def classes(name: str) -> list[str]:
    """Return a dataset's classes; a COCO file is read for them."""
    metadata = MetadataCatalog.get(name)
    if not hasattr(metadata, "thing_classes"):
        DatasetCatalog.get(name)
    return list(metadata.thing_classes)


def check_classes(cfg: CfgNode, names: Iterable[str]) -> None:
    """Raise InputError unless the sets have the same classes, as many as the head; COCO's own names are taken at their word."""
    key = {"GeneralizedRCNN": "ROI_HEADS", "RetinaNet": "RETINANET"}.get(cfg.MODEL.META_ARCHITECTURE)
    found = {name: classes(name) for name in dict.fromkeys(map(_base, names))} if key else {}
    for name, listed in found.items():
        if len(listed) != (wanted := cfg.MODEL[key].NUM_CLASSES):
            raise InputError(
                f"{name} has {len(listed)} classes ({', '.join(listed[:3])}, ...), but MODEL.{key}.NUM_CLASSES is {wanted}; "
                "correct the key, or the annotation file if it is of another dataset"
            )
        first, expected = next(iter(found.items()))
        if listed != expected:
            other = next(pair for pair in zip(expected, listed, strict=True) if pair[0] != pair[1])
            raise InputError(
                f"{first} and {name} have other classes ({other[0]} and {other[1]}); use sets that belong together"
            )


class NamedMapper:
    """Detectron2's mapper, which names the file that it cannot use."""

    def __init__(self, mapper: Any) -> None:
        self.mapper = mapper

    def __call__(self, record: dict[str, Any]) -> Any:
        """Load an image with its annotations."""
        with reading(record["file_name"]):
            return self.mapper(record)


def _mapper(cfg: CfgNode) -> DatasetMapper:
    """Return Detectron2's mapper for training; of ``INPUT.CROP.SHARE`` of the images it sees a random part of the scaled image.

    So DETR (arXiv 2005.12872, sec. 4) and ConvNeXt's release do: short side one of ``INPUT.CROP.MIN_SIZE``, a crop, and then
    the scaling of all images; boxes are those of the objects, cut at the crop's edge.
    """
    crop = cfg.INPUT.CROP
    if not crop.ENABLED or crop.SHARE == 1:
        return DatasetMapper(cfg, True)
    parts = DatasetMapper.from_config(cfg, True)
    scale = ResizeShortestEdge(crop.MIN_SIZE, cfg.INPUT.MAX_SIZE_TRAIN, "choice")
    _, *rest = parts["augmentations"]
    parts["augmentations"] = [
        RandomApply(AugmentationList([scale, RandomCrop(crop.TYPE, crop.SIZE)]), crop.SHARE),
        *rest,
    ]
    return DatasetMapper(**{**parts, "recompute_boxes": False})


class TrainLoader:
    """Detectron2's training images in batches, for ever; ``begin`` says with which seed, and after how many batches.

    The order is that of Detectron2's sampler and its grouping by aspect ratio, computed on the indices alone, so that a place in
    it is found without loading an image.
    """

    def __init__(self, cfg: CfgNode) -> None:
        parts = _train_loader_from_config(cfg, _mapper(cfg))
        records, mapper = parts["dataset"], NamedMapper(parts["mapper"])
        self.sampler, self.workers = parts["sampler"], parts["num_workers"]
        self.batch = parts["total_batch_size"] // comm.get_world_size()
        self.wide = [parts["aspect_ratio_grouping"] and record["width"] > record["height"] for record in records]
        self.dataset = MapDataset(DatasetFromList(records, copy=False), mapper)
        self.begin(0, 0)

    def begin(self, seed: int, batches: int) -> None:
        """Go to a place of the order of ``seed``."""
        self.seed, self.skipped = seed, batches

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        self.sampler._seed = derive(self.seed, "order") % 2**63
        loader = DataLoader(
            Seeded(self.dataset, self.seed, comm.get_rank()),
            batch_sampler=itertools.islice(self._batches(), self.skipped, None),
            num_workers=self.workers,
            collate_fn=trivial_batch_collator,
            worker_init_fn=worker_init_reset_seed,
            generator=torch.Generator(),  # else the first batch of a sitting would draw a number that the step would have drawn
        )
        yield from loader

    def _batches(self) -> Iterator[list[int]]:
        waiting: dict[bool, list[int]] = {
            False: [],
            True: [],
        }  # images of one orientation each, which need less padding
        for number, index in enumerate(self.sampler):
            group = waiting[self.wide[index]]
            group.append(Numbered(index, number))
            if len(group) == self.batch:
                yield group[:]
                group.clear()


def _few() -> list[dict[str, Any]]:
    source = MetadataCatalog.get("tiny_coco_train")
    records: list[dict[str, Any]] = load_coco_json(source.json_file, source.image_root, "tiny_coco_few")
    return records[:FEW]


def _base(name: str) -> str:
    while part := PART.fullmatch(name):
        name = part["base"]
    return name


def _part(name: str, base: str, kind: str, value: str) -> list[dict[str, Any]]:
    """Load a part of a dataset; the same images belong to it in every process and in every order."""
    records: list[dict[str, Any]] = DatasetCatalog.get(base)
    if kind == "first":
        records = records[: int(value)]
    else:
        records = [record for record in records if held(record["file_name"], float(value)) is (kind == "held")]
    _copy_metadata(base, name)  # COCO's classes are known now that its file was read
    MetadataCatalog.get(name).image_ids = [record["image_id"] for record in records]
    return records


def _copy_metadata(base: str, name: str) -> None:
    values = MetadataCatalog.get(base).as_dict()
    MetadataCatalog.get(name).set(**{key: value for key, value in values.items() if key not in ("name", "image_ids")})


def _voc_records(root: Path, split: str, names: list[str]) -> list[dict[str, Any]]:
    """Load VOC annotations as Detectron2 does; its own loader fails on a list of one image."""
    records = []
    for image in (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
        tree = _annotation(root / "Annotations" / f"{image}.xml")
        objects = []
        for item in tree.iter("object"):
            xmin, ymin, xmax, ymax = (float(item.findtext(f"bndbox/{corner}", "")) for corner in CORNERS)
            category, box = names.index(item.findtext("name", "")), [xmin - 1, ymin - 1, xmax, ymax]
            objects.append({"category_id": category, "bbox": box, "bbox_mode": BoxMode.XYXY_ABS})
        sides = {side: int(tree.findtext(f"size/{side}", "0")) for side in ("height", "width")}
        file = str(root / "JPEGImages" / f"{image}.jpg")
        records.append({"file_name": file, "image_id": image, **sides, "annotations": objects})
    return records


def _annotation(path: Path) -> ET.Element:
    return bounds.xml(bounds.regular(path, bounds.TEXT, "an annotation"), path)


def _classes(folder: Path) -> list[str]:
    """Return VOC's classes, or those of the folder's annotations where these are others."""
    found = {
        str(item.text) for file in (folder / "Annotations").glob("*.xml") for item in _annotation(file).iter("name")
    }
    return list(CLASS_NAMES) if found <= set(CLASS_NAMES) else sorted(found)


def _require_whole(name: str) -> None:
    """Raise InputError when a listed image or annotation is missing, as in a copy that was interrupted."""
    if (folder := FOLDER.fullmatch(name)) and (Path(folder["folder"]) / own.FACTS).is_file():
        return  # made and checked by transfer.datasets.own
    if folder:
        split = folder["split"] if folder["layout"] == "coco" else f"Main/{folder['split']}"
        checking.require(Path(folder["folder"]).absolute(), split)
    elif any(re.fullmatch(pattern, name) for pattern, _, _ in checking.NAMES):
        checking.require(name)


def _needed(name: str) -> list[Path]:
    metadata = MetadataCatalog.get(name)
    if hasattr(metadata, "json_file"):
        return [Path(metadata.json_file), Path(metadata.image_root)]
    if hasattr(metadata, "dirname"):
        folder = Path(metadata.dirname)
        return [folder / "ImageSets" / "Main" / f"{metadata.split}.txt", folder / "Annotations", folder / "JPEGImages"]
    return []


register(datasets_root())
