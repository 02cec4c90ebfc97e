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
from transfer.detection import compat, datasets, evaluators

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


def test_nan_is_null_and_names_are_task_and_metric() -> None:
    results = {"bbox": {"AP": 12.5, "APl": math.nan}, "segm": {"AP": 3.0}}
    assert evaluators.for_json(results, ("shapes_val",)) == {"bbox/AP": 12.5, "bbox/APl": None, "segm/AP": 3.0}
    two = evaluators.for_json({"a": results, "b": {"bbox": {"AP": 1.0}}}, ("a", "b"))
    assert (two["a/bbox/APl"], two["b/bbox/AP"]) == (None, 1.0)


def test_the_fast_coco_evaluation_gives_pycocotools_numbers(tmp_path: Path) -> None:
    from detectron2.evaluation import coco_evaluation
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    truth, found = [], []
    for index in range(60):
        x, y, w, h = (rng.random(4) * 40 + 10).tolist()
        shared = {"image_id": index % 10, "category_id": 1 + index % 3}
        truth.append({"id": index + 1, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, **shared})
        dx, dy = (rng.random(2) * 12).tolist()
        found.append({"bbox": [x + dx, y + dy, w, h], "score": float(rng.random()), **shared})
    images = [{"id": index, "width": 100, "height": 100, "file_name": "-"} for index in range(10)]
    categories = [{"id": index, "name": str(index)} for index in (1, 2, 3)]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": truth, "categories": categories}))
    stats = []
    with contextlib.redirect_stdout(io.StringIO()), compat.quiet():
        for evaluate in (COCOeval, coco_evaluation.COCOeval):
            api = COCO(str(path))
            evaluation = evaluate(api, api.loadRes(found), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            stats.append(np.array(evaluation.stats[:6]))
    assert coco_evaluation.COCOeval is not COCOeval
    assert 0.05 < stats[0][0] < 0.9
    np.testing.assert_allclose(stats[1], stats[0], atol=1e-12)


def test_an_unknown_dataset_is_named_with_its_neighbours() -> None:
    with pytest.raises(InputError, match="no dataset 'shapes_trian' in DATASETS; did you mean shapes_train"):
        datasets.check(["shapes_trian"])


def test_a_dataset_that_is_not_there_is_named_with_its_first_missing_file() -> None:
    with pytest.raises(FileError, match=r"dataset voc_2007_test is not there: no .*VOC2007/ImageSets/Main/test\.txt"):
        datasets.check(["voc_2007_test"])
