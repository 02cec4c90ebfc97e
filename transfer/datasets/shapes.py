"""Write the embedded set as files: unlabelled images, a COCO-layout and a VOC-layout set of the same scenes.

Under ``ROOT/shapes``: ``unlabelled/*.jpg``, ``coco/{annotations/instances_{train,val}.json,train,val}`` and ``VOC`` with
JPEGImages, Annotations, SegmentationClass and ImageSets. Its bytes are the same on every machine with the pinned Pillow:
scenes are integer arithmetic (``core.shapes``), JPEG settings are fixed, PNGs are stored uncompressed.
"""

import io
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from core.meter import track
from core.shapes import CLASSES, Scene, render
from transfer.datasets import Counts, coco, files, voc

VERSION = 3  # raise it with every change of what is rendered or how it is written
DIGEST = "4087695b03875b66b235a0788783acc509c335eb87da3f646025dd93d20c3e62"  # of all files of PLAN


@dataclass(frozen=True)
class Plan:
    """How many images of which side in pixels; ``seeds`` are those of unlabelled, train and val."""

    unlabelled: int = 2000
    unlabelled_size: int = 96
    train: int = 300
    val: int = 80
    size: int = 128
    seeds: tuple[int, int, int] = (1000, 1, 2)


PLAN = Plan()


def ensure(root: Path, plan: Plan = PLAN) -> Path:
    """Render the set on first use, or again when it is stale or files are missing; return ``root/shapes``."""
    folder = Path(root) / "shapes"
    made = files.make_once(folder, {"version": VERSION, "plan": asdict(plan)}, lambda path: _write(path, plan))
    if made and plan == PLAN and files.read_manifest(folder)["sha256"] != DIGEST:
        warnings.warn(
            f"{folder} differs from the set rendered elsewhere; results may not compare. Is Pillow the pinned wheel?",
            stacklevel=2,
        )
    return folder


def check(folder: Path) -> Counts:
    """Check every file of a rendered set against its sha256, then both layouts."""
    files.verify(folder)
    counts = {"unlabelled": {"images": sum(1 for _ in (folder / "unlabelled").glob("*.jpg"))}}
    for split, values in coco.check(folder / "coco").items():
        counts[f"coco/{split}"] = values
    for split, values in voc.check(folder / "VOC", CLASSES).items():
        counts[f"VOC/{split}"] = values
    return counts


def jpeg(image: np.ndarray) -> bytes:
    """Encode uint8 [H, W, 3] with fixed settings; full colour resolution, as the objects are small."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90, subsampling=0, optimize=False, progressive=False)
    return file.getvalue()


def _write(folder: Path, plan: Plan) -> None:
    unlabelled = folder / "unlabelled"
    unlabelled.mkdir()
    for index in track(range(plan.unlabelled), "rendering unlabelled shapes", plan.unlabelled):
        scene = render(plan.seeds[0], index, plan.unlabelled_size, centred=True)
        (unlabelled / f"{index:06d}.jpg").write_bytes(jpeg(scene.image))
    voc.make_folders(folder / "VOC")
    train = _write_split(folder, "train", plan.seeds[1], range(1, 1 + plan.train), plan.size)
    val = _write_split(folder, "val", plan.seeds[2], range(1 + plan.train, 1 + plan.train + plan.val), plan.size)
    voc.write_lists(folder / "VOC", train, val)


def _write_split(folder: Path, split: str, seed: int, ids: range, size: int) -> list[str]:
    """Render one split into both layouts, under the same names; return the names."""
    (folder / "coco" / split).mkdir(parents=True)
    (folder / "coco" / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    names = [f"{number:06d}" for number in ids]
    for index, number in enumerate(track(ids, f"rendering {split} shapes", len(ids))):
        scene, name = render(seed, index, size), names[index]
        data = jpeg(scene.image)
        (folder / "coco" / split / f"{name}.jpg").write_bytes(data)
        (folder / "VOC" / "JPEGImages" / f"{name}.jpg").write_bytes(data)
        _write_voc(folder / "VOC", name, scene)
        images.append({"id": number, "file_name": f"{name}.jpg", "height": size, "width": size})
        annotations += _coco_records(scene, number, len(annotations) + 1)
    content = {
        "info": {"description": f"shapes, version {VERSION}, {split}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)],
    }
    path = folder / "coco" / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    return names


def _coco_records(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    records = []
    for number, item in enumerate(scene.objects, start=first_id):
        left, top, right, bottom = item.box
        records.append({
            "id": number, "image_id": image_id, "category_id": item.label + 1, "iscrowd": 0,
            "bbox": [left, top, right - left, bottom - top], "area": int(item.mask.sum()),
            "segmentation": coco.polygons(item.mask),
        })  # fmt: skip
    return records


def _write_voc(folder: Path, name: str, scene: Scene) -> None:
    height, width, _ = scene.image.shape
    labels = np.zeros((height, width), dtype=np.uint8)
    instances = np.zeros((height, width), dtype=np.uint16)
    for number, item in enumerate(scene.objects, start=1):
        labels[item.mask] = item.label + 1
        instances[item.mask] = number
    labels[voc.borders(instances)] = voc.VOID
    # Level 0 stores: no version of the compressor and no processor can change the bytes.
    voc.write_labels(folder / "SegmentationClass" / f"{name}.png", labels, compress_level=0)
    boxes = [voc.Box(CLASSES[item.label], *item.box) for item in scene.objects]
    voc.write_boxes(folder / "Annotations" / f"{name}.xml", f"{name}.jpg", height, width, boxes)
