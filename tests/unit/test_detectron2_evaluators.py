"""Detections are scored as COCO and VOC do, and what has no ground truth is null, not zero."""

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import InputError
from core.files import FileError
from transfer.frameworks.detectron2 import compat, datasets, evaluators

XML = """<annotation><object><name>disc</name><pose></pose><truncated>0</truncated><difficult>0</difficult>
<bndbox><xmin>11</xmin><ymin>11</ymin><xmax>50</xmax><ymax>50</ymax></bndbox></object></annotation>"""


@pytest.fixture
def voc(tmp_path: Path) -> Any:
    """Register a VOC set of one image with one disc, and no object of the other class."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_pascal_voc

    for name, text in {"ImageSets/Main/val.txt": "one\n", "Annotations/one.xml": XML}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    register_pascal_voc("test_voc", str(tmp_path), "val", 2012, ["disc", "star"])
    yield "test_voc"
    DatasetCatalog.remove("test_voc")
    MetadataCatalog.remove("test_voc")


def predict(box: list[float]) -> dict[str, Any]:
    from detectron2.structures import Boxes, Instances

    boxes, scores, classes = Boxes(torch.tensor([box])), torch.tensor([0.9]), torch.tensor([0])
    return {"instances": Instances((64, 64), pred_boxes=boxes, scores=scores, pred_classes=classes)}


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (
            [10.0, 10.0, 50.0, 50.0],
            (100.0, 100.0, 100.0),
        ),  # the annotated box; Detectron2 counts from 0, its end is exclusive
        ([10.0, 10.0, 50.0, 37.0], (40.0, 100.0, 0.0)),  # IoU 27 / 40: found at 0.50, 0.55, 0.60, 0.65 of ten
    ],
)
def test_voc_scores_a_detection_by_its_overlap(voc: str, box: list[float], expected: tuple[float, ...]) -> None:
    evaluator = evaluators.ClassVOCEvaluator(voc)
    evaluator.reset()
    evaluator.process([{"image_id": "one"}], [predict(box)])
    scores = evaluator.evaluate()["bbox"]  # type: ignore[index]
    assert (scores["AP"], scores["AP50"], scores["AP75"]) == pytest.approx(expected)
    assert scores["AP-disc"] == pytest.approx(expected[0])
    assert math.isnan(scores["AP-star"])  # not 0: it has no ground truth, and the means leave it out


def test_equal_scores_are_taken_by_image_and_box_in_whatever_order_they_come(voc: str, tmp_path: Path) -> None:
    """The right box's line sorts after 20 wrong ones and before 20: precision 1/21 where it is recalled, by hand."""
    evaluator = evaluators.ClassVOCEvaluator(voc)
    right = "one 0.900 11.0 11.0 50.0 50.0"
    wrong = [f"one 0.900 {10 if first else 12}.0 11.0 {12 + step}.0 12.0" for first in (1, 0) for step in range(20)]
    for lines in ([right, *wrong], [*wrong, right], [*wrong[:30], right, *wrong[:29:-1]]):
        recall, precision = evaluator._curves_of(tmp_path, "disc", lines)[0]
        assert [int(value) for value in recall] == [0] * 20 + [1] * 21
        assert precision[20] == pytest.approx(1 / 21)


def test_nan_is_null_and_names_are_task_and_metric() -> None:
    results = {"bbox": {"AP": 12.5, "APl": math.nan}, "segm": {"AP": 3.0}}
    assert evaluators.for_json(results, ("shapes_val",)) == {"bbox/AP": 12.5, "bbox/APl": None, "segm/AP": 3.0}
    two = evaluators.for_json({"a": results, "b": {"bbox": {"AP": 1.0}}}, ("a", "b"))
    assert (two["a/bbox/APl"], two["b/bbox/AP"]) == (None, 1.0)


def devkit_curve(
    found: list[tuple[float, list[float]]], truth: list[list[float]], iou: float
) -> list[tuple[float, float]]:
    """Match detections of one class in one image as the VOC devkit does; return (recall, precision) after each."""
    taken, right, curve = set(), 0, []
    for count, (_, box) in enumerate(sorted(found, reverse=True), 1):
        best, best_overlap = -1, -1.0
        for index, other in enumerate(truth):
            width = min(box[2], other[2]) - max(box[0], other[0]) + 1
            height = min(box[3], other[3]) - max(box[1], other[1]) + 1
            if width > 0 and height > 0:
                areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, other)]
                overlap = width * height / (sum(areas) - width * height)
                if overlap > best_overlap:
                    best, best_overlap = index, overlap
        if best_overlap > iou and best not in taken:
            taken.add(best)
            right += 1
        curve.append((right / len(truth), right / count))
    return curve


def devkit_ap(curve: list[tuple[float, float]], eleven: bool) -> float:
    """Average precision: at 11 recalls (devkit of VOC2007), or the area under the envelope (from VOC2010 on)."""
    if eleven:
        return sum(max((p for r, p in curve if r >= step / 10 - 1e-12), default=0.0) for step in range(11)) / 11
    area, before = 0.0, 0.0
    for recall in sorted({r for r, _ in curve}):
        area += (recall - before) * max(p for r, p in curve if r >= recall)
        before = recall
    return area


@pytest.mark.parametrize("year", [2007, 2012])
def test_voc_scores_by_both_rules_of_the_devkit_and_bbox_by_that_of_its_year(tmp_path: Path, year: int) -> None:
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_pascal_voc
    from detectron2.structures import Boxes, Instances

    rng = np.random.default_rng(5)
    truth = [[10 + 60 * i, 20, 10 + 60 * i + int(rng.integers(20, 50)), 70] for i in range(7)]
    objects = "".join(
        f"<object><name>disc</name><pose/><truncated>0</truncated><difficult>0</difficult><bndbox><xmin>{a}</xmin>"
        f"<ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in truth
    )
    for file, text in {
        "ImageSets/Main/val.txt": "one\n",
        "Annotations/one.xml": f"<annotation>{objects}</annotation>",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    boxes = [[x + float(s) for x, s in zip(box, rng.integers(-9, 9, 4), strict=True)] for box in truth * 2]
    scores = np.linspace(0.9, 0.1, len(boxes))
    register_pascal_voc("test_rules", str(tmp_path), "val", year, ["disc"])
    try:
        evaluator = evaluators.ClassVOCEvaluator("test_rules", tmp_path / "curves.json")
        evaluator.reset()
        # Detectron2 counts from 0 with exclusive ends and adds 1 to the first corner only
        tensor = torch.tensor([[a - 1, b - 1, c, d] for a, b, c, d in boxes])
        found = {
            "pred_boxes": Boxes(tensor),
            "scores": torch.tensor(scores),
            "pred_classes": torch.zeros(len(boxes), dtype=torch.long),
        }
        evaluator.process([{"image_id": "one"}], [{"instances": Instances((200, 600), **found)}])
        results = evaluator.evaluate()
    finally:
        DatasetCatalog.remove("test_rules")
        MetadataCatalog.remove("test_rules")
    assert results is not None
    curves = [devkit_curve(list(zip(scores, boxes, strict=True)), truth, iou / 100) for iou in evaluators.IOUS]
    for rule, eleven in (("bbox_11point", True), ("bbox_area", False)):
        expected = [100 * devkit_ap(curve, eleven) for curve in curves]
        assert results[rule]["AP50"] == pytest.approx(expected[0], abs=1e-9)
        assert results[rule]["AP75"] == pytest.approx(expected[5], abs=1e-9)
        assert results[rule]["AP"] == results[rule]["AP-disc"] == pytest.approx(sum(expected) / 10, abs=1e-9)
        assert results[rule]["AP50-disc"] == results[rule]["AP50"]
    assert results["bbox"] == results["bbox_11point" if year == 2007 else "bbox_area"]
    assert abs(results["bbox_11point"]["AP50"] - results["bbox_area"]["AP50"]) > 0.1  # the rules do differ
    kept = json.loads((tmp_path / "curves.json").read_text())
    assert len(kept["recall"]) == len(kept["bbox"]["50"]) == 101
    at = [max((p for r, p in curves[0] if r >= step / 100 - 1e-12), default=0.0) for step in range(101)]
    assert kept["bbox"]["50"] == pytest.approx(at, abs=2e-6)


def boxes_and_masks() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Draw 12 images of rectangles in three classes with crowds, several sizes and misses, and what a detector found."""
    rng = np.random.default_rng(0)
    truth, found = [], []
    for index in range(120):
        x, y = (rng.random(2) * 100).tolist()
        w, h = (rng.random(2) * rng.choice([20, 60, 150]) + 5).tolist()
        shared = {"image_id": index % 12, "category_id": 1 + index % 3}
        outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        crowd = int(index % 17 == 0)
        truth.append(
            {"id": index + 1, "bbox": [x, y, w, h], "area": w * h, "iscrowd": crowd, "segmentation": outline, **shared}
        )
        for _ in range(int(rng.integers(0, 4))):
            dx, dy = (rng.normal(size=2) * 5).tolist()
            moved = [[x + dx, y + dy, x + dx + w, y + dy, x + dx + w, y + dy + h, x + dx, y + dy + h]]
            score = float(rng.random())
            found.append({"bbox": [x + dx, y + dy, w, h], "segmentation": moved, "score": score, **shared})
    images = [{"id": index, "width": 300, "height": 300, "file_name": "-"} for index in range(12)]
    categories = [{"id": index, "name": str(index)} for index in (1, 2, 3, 4)]  # the fourth has no object
    return {"info": {}, "images": images, "annotations": truth, "categories": categories}, found


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_fast_coco_evaluation_agrees_with_pycocotools_to_1e_9(tmp_path: Path, kind: str) -> None:
    from detectron2.evaluation import coco_evaluation
    from pycocotools import mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = boxes_and_masks()
    for annotation in truth["annotations"]:
        if annotation["iscrowd"]:
            annotation["segmentation"] = mask.frPyObjects(annotation["segmentation"], 300, 300)[0]
            annotation["segmentation"]["counts"] = annotation["segmentation"]["counts"].decode()
    for record in found:
        record["segmentation"] = mask.frPyObjects(record["segmentation"], 300, 300)[0]
        del record["bbox" if kind == "segm" else "segmentation"]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    runs = []
    with contextlib.redirect_stdout(io.StringIO()), compat.quiet():
        for evaluate in (COCOeval, coco_evaluation.COCOeval):
            api = COCO(str(path))
            evaluation = evaluate(api, api.loadRes([dict(record) for record in found]), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            runs.append(evaluation)
    assert coco_evaluation.COCOeval is not COCOeval
    assert 0.05 < runs[0].stats[0] < 0.9
    np.testing.assert_allclose(np.array(runs[1].stats[:12]), np.array(runs[0].stats), rtol=0, atol=1e-9)
    for name in ("precision", "recall"):  # every threshold, recall, class, size and number of detections
        np.testing.assert_allclose(runs[1].eval[name], runs[0].eval[name], rtol=0, atol=1e-9)


def test_a_detector_that_finds_nothing_has_an_ap_of_zero(tmp_path: Path) -> None:
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.structures import Boxes, Instances

    (tmp_path / "truth.json").write_text(json.dumps(boxes_and_masks()[0]))
    datasets.register_coco_instances("test_nothing", {}, str(tmp_path / "truth.json"), str(tmp_path))
    nothing = {"pred_boxes": Boxes(torch.zeros(0, 4)), "scores": torch.zeros(0), "pred_classes": torch.zeros(0)}
    try:
        with contextlib.redirect_stdout(io.StringIO()), compat.quiet():
            evaluator = evaluators.CurveCOCOEvaluator(
                "test_nothing", ("bbox",), output_dir=str(tmp_path), use_fast_impl=False
            )
            evaluator.reset()
            evaluator.process([{"image_id": 0}], [{"instances": Instances((300, 300), **nothing)}])
            assert evaluator.evaluate()["bbox"] == dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), 0.0)
    finally:
        DatasetCatalog.remove("test_nothing")
        MetadataCatalog.remove("test_nothing")


def test_an_unknown_dataset_is_named_with_its_neighbours() -> None:
    with pytest.raises(InputError, match="no dataset 'shapes_trian' in DATASETS; did you mean shapes_train"):
        datasets.check(["shapes_trian"])


def test_a_dataset_that_is_not_there_is_named_with_its_first_missing_file() -> None:
    with pytest.raises(FileError, match=r"dataset voc_2007_test is not there: no .*VOC2007/ImageSets/Main/test\.txt"):
        datasets.check(["voc_2007_test"])
