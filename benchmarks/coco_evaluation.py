"""Time COCO's box and mask evaluation: the evaluator that the suite uses against pycocotools' own, on the same objects.

    python benchmarks/coco_evaluation.py [--images 5000] [--repeats 2] [--mask-repeats 2]

Ground truth and detections are generated: 640x480 images with about seven objects of 80 classes (polygons, and a crowd
now and then), and up to 100 detections an image, near the objects and elsewhere, with masks in COCO's run lengths. All 12
numbers must agree to 1e-9. What is timed is evaluate, accumulate and summarize; loading detections is the same code for
both and is shown beside it.
"""

import argparse
import contextlib
import io
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import figures

from transfer.frameworks.detectron2 import compat  # isort: skip - before Detectron2
import numpy as np
from detectron2.evaluation import coco_evaluation
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

WIDTH, HEIGHT, CLASSES, OBJECTS, MOST = 640, 480, 80, 7, 100
SAME = 1e-9
GOAL = 5.0
CORNERS = 16
TASKS = {"bbox": "boxes", "segm": "masks"}


def outlines(boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a wobbling outline in each box [n, 4] of x, y, width, height, as [n, 2 * CORNERS]."""
    angles = np.arange(CORNERS) * 2 * math.pi / CORNERS
    reach = rng.uniform(0.7, 1, (len(boxes), CORNERS)) / 2
    x = boxes[:, :1] + boxes[:, 2:3] * (0.5 + reach * np.cos(angles))
    y = boxes[:, 1:2] + boxes[:, 3:] * (0.5 + reach * np.sin(angles))
    return np.stack([x, y], axis=2).reshape(len(boxes), 2 * CORNERS).round(2)


def placed(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw boxes inside the image, most of them small, as COCO's are."""
    sizes = np.exp(rng.uniform(math.log(8), math.log(300), (count, 2)))
    corners = rng.random((count, 2)) * (np.array([WIDTH, HEIGHT]) - sizes)
    return np.concatenate([corners, sizes], axis=1)


def moved(boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift and scale boxes by up to a third of their size, and keep them inside the image."""
    scale = rng.uniform(0, 0.3, (len(boxes), 1))
    found = boxes + np.tile(boxes[:, 2:], 2) * rng.normal(size=boxes.shape) * scale / 2
    found[:, 2:] = np.clip(found[:, 2:], 4, np.array([WIDTH, HEIGHT]) - 8)
    found[:, :2] = np.clip(found[:, :2], 0, np.array([WIDTH, HEIGHT]) - found[:, 2:])
    return found


def truth_of(image: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Make one image's annotations; one in a hundred is a crowd."""
    boxes = placed(int(rng.poisson(OBJECTS)), rng)
    annotations = []
    for box, outline in zip(boxes.tolist(), outlines(boxes, rng).tolist(), strict=True):
        crowd = int(rng.random() < 0.01)
        runs = masks.frPyObjects([outline], HEIGHT, WIDTH)[0]
        shape = {"size": [HEIGHT, WIDTH], "counts": runs["counts"].decode()} if crowd else [outline]
        annotations.append(
            {
                "image_id": image, "category_id": int(rng.integers(1, CLASSES + 1)), "bbox": box, "iscrowd": crowd,
                "area": float(masks.area(runs)), "segmentation": shape,
            }
        )  # fmt: skip
    return annotations


def detections_of(image: int, truth: list[dict[str, Any]], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Make one image's detections: each object a few times, mostly of its class, and as many elsewhere of any class."""
    near = [row for row in truth for _ in range(int(rng.geometric(0.4)))]
    boxes = np.array([row["bbox"] for row in near]).reshape(-1, 4)
    elsewhere = placed(int(rng.integers(0, 50)), rng)
    boxes = np.concatenate([moved(boxes, rng), elsewhere])[:MOST]
    classes = [row["category_id"] if rng.random() < 0.8 else int(rng.integers(1, CLASSES + 1)) for row in near]
    classes += rng.integers(1, CLASSES + 1, len(elsewhere)).tolist()
    scores = np.concatenate([rng.beta(2, 1.5, len(near)), rng.beta(0.7, 4, len(elsewhere))])
    shapes = masks.frPyObjects(outlines(boxes, rng).tolist(), HEIGHT, WIDTH) if len(boxes) else []
    rows = zip(boxes.tolist(), classes, scores.tolist(), shapes, strict=False)
    return [
        {
            "image_id": image, "category_id": label, "score": score, "bbox": box,
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": shape["counts"].decode()},
        }
        for box, label, score, shape in rows
    ]  # fmt: skip


def generate(images: int) -> tuple[COCO, list[dict[str, Any]]]:
    """Return the ground truth and all detections, the same every time."""
    rng = np.random.default_rng(0)
    annotations, found = [], []
    for image in range(1, images + 1):
        truth = truth_of(image, rng)
        annotations += truth
        found += detections_of(image, truth, rng)
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    api = COCO()
    api.dataset = {
        "info": {}, "images": [{"id": i, "width": WIDTH, "height": HEIGHT} for i in range(1, images + 1)],
        "annotations": annotations, "categories": [{"id": i, "name": str(i)} for i in range(1, CLASSES + 1)],
    }  # fmt: skip
    api.createIndex()
    return api, found


def for_task(found: list[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    """Copy detections, without boxes for masks: Detectron2 leaves them out so that areas are those of the masks."""
    dropped = "bbox" if task == "segm" else "segmentation"
    return [{key: value for key, value in row.items() if key != dropped} for row in found]


def timed(evaluator: Callable[..., Any], truth: COCO, found: list[dict[str, Any]], task: str) -> Any:
    """Return seconds of loading and of evaluating, and the 12 numbers."""
    rows = for_task(found, task)
    began = time.perf_counter()
    loaded = truth.loadRes(rows)
    middle = time.perf_counter()
    evaluation = evaluator(truth, loaded, task)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return middle - began, time.perf_counter() - middle, np.array(evaluation.stats[:12])


def compare(task: str, truth: COCO, found: list[dict[str, Any]], repeats: int) -> list[figures.Figure]:
    """Evaluate in turn with both; raise AssertionError when a number differs."""
    seconds: dict[str, list[float]] = {"load": [], "ours": [], "theirs": []}
    for _ in range(repeats):
        with contextlib.redirect_stdout(io.StringIO()), compat.quiet():
            load, ours, mine = timed(coco_evaluation.COCOeval, truth, found, task)
            _, theirs, reference = timed(COCOeval, truth, found, task)
        assert np.abs(mine - reference).max() <= SAME, f"{task}: {mine} is not {reference}"
        assert 0.02 < reference[0] < 0.98, "detections that are all wrong or all right measure nothing"
        for name, value in (("load", load), ("ours", ours), ("theirs", theirs)):
            seconds[name].append(value)
    ratio = figures.ratios(seconds["theirs"], seconds["ours"])
    whole = figures.ratios(
        [a + b for a, b in zip(seconds["theirs"], seconds["load"], strict=True)],
        [a + b for a, b in zip(seconds["ours"], seconds["load"], strict=True)],
    )
    size = f"{len(truth.imgs):,} images, {len(truth.anns):,} objects, {len(found):,} detections"
    medians = {name: f"{np.median(values):.1f} s" for name, values in seconds.items()}
    detail = f"{size}; pycocotools {medians['theirs']}, ours {medians['ours']}; the 12 numbers agree to {SAME:g}"
    loading = f"loading the detections takes both {medians['load']}"
    name = f"COCO evaluation of {TASKS[task]}, against pycocotools"
    return [
        figures.of(name, ratio, goal=GOAL, detail=detail),
        figures.of(f"{name}, with loading", whole, detail=loading),
    ]


def main() -> int:
    """Generate, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=2, help="of the evaluation of boxes")
    parser.add_argument("--mask-repeats", type=int, default=2, help="of the evaluation of masks")
    given = parser.parse_args()
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = generate(given.images)
    found_figures = compare("bbox", truth, found, given.repeats) + compare("segm", truth, found, given.mask_repeats)
    return figures.finish("coco_evaluation", found_figures)


if __name__ == "__main__":
    sys.exit(main())
