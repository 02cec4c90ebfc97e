"""Score detections by the COCO and by the VOC rules, with every class's own AP, in percent."""

from transfer.frameworks.detectron2 import compat  # noqa: F401, I001 - first: it prepares Detectron2's import

import contextlib
import io
import math
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, PascalVOCDetectionEvaluator
from detectron2.evaluation.pascal_voc_evaluation import parse_rec, voc_ap, voc_eval
from detectron2.utils import comm

from core.errors import InputError
from core.files import write_json
from transfer.frameworks._protocol import harmless

IOUS = range(50, 100, 5)  # percent; AP is the mean over them, as COCO has it
RECALLS = np.linspace(0, 1, 101)  # where a precision-recall curve is kept; COCO's own
CURVES = "curves.json"  # {"recall": [101 numbers], "bbox": {"50": [101 precisions], "75": ...}, "segm": ...}


def build(cfg: Any, name: str) -> DatasetEvaluator:
    """Return the evaluator that the dataset's metadata asks for; raise InputError for any other kind.

    It writes the precision-recall curves to ``curves.json`` in the run's folder (with several test sets, of the last).
    """
    kind, curves = MetadataCatalog.get(name).get("evaluator_type"), Path(cfg.OUTPUT_DIR) / CURVES
    if kind == "coco":
        tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
        # use_fast_impl=False is compat's COCOeval; True would ask for the compiled one
        inference = str(Path(cfg.OUTPUT_DIR) / "inference")
        return CurveCOCOEvaluator(name, tasks, output_dir=inference, use_fast_impl=False, curves=curves)
    if kind == "pascal_voc":
        return ClassVOCEvaluator(name, curves)
    raise InputError(f"dataset {name} has evaluator_type {kind!r}; only 'coco' and 'pascal_voc' are scored here")


class CurveCOCOEvaluator(COCOEvaluator):
    """Detectron2's evaluator, which keeps the curves and does not print what pycocotools prints."""

    def __init__(self, name: str, *arguments: Any, curves: Path | None = None, **options: Any) -> None:
        super().__init__(name, *arguments, **options)
        self._curves_file, self._curves = curves, dict[str, dict[str, list[float]]]()

    def evaluate(self, img_ids: list[int] | None = None) -> dict[str, Any]:
        """Score the images of the dataset, which may be a part of its file (``image_ids`` in the metadata)."""
        results: dict[str, Any] = super().evaluate(
            self._metadata.get("image_ids", None) if img_ids is None else img_ids
        )
        _write_curves(self._curves_file, self._curves)
        return results

    def _eval_predictions(self, predictions: list[Any], img_ids: list[int] | None = None) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            super()._eval_predictions(predictions, img_ids)

    def _derive_coco_results(self, coco_eval: Any, iou_type: str, class_names: Any = None) -> dict[str, float]:
        if coco_eval is not None:
            precision = coco_eval.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, class], all areas, all detections
            self._curves[iou_type] = {str(iou): _mean_curve(precision[IOUS.index(iou)].T) for iou in (50, 75)}
        results: dict[str, float] = super()._derive_coco_results(coco_eval, iou_type, class_names)
        if coco_eval is None:  # nothing was detected: no object is recalled, so AP is 0, where Detectron2 says NaN
            return dict.fromkeys(results, 0.0)
        return results


class ClassVOCEvaluator(PascalVOCDetectionEvaluator):
    """Return AP, AP50 and AP75, also per class, by the devkit's rule of the set's year and by either rule.

    ``bbox`` follows the year: 11 points for VOC2007 (``bbox_11point``), the area under the curve from 2010 on
    (``bbox_area``). A class without ground truth is NaN and left out of the means; Detectron2 counts it as 0. On VOC itself
    every class has objects, so both agree there.
    """

    def __init__(self, name: str, curves: Path | None = None) -> None:
        super().__init__(name)
        self._metadata, self._curves_file = MetadataCatalog.get(name), curves

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Gather all processes' predictions and score them on the first; the others return None."""
        gathered = comm.gather(self._predictions, dst=0)
        if not comm.is_main_process():
            return None
        lines: dict[int, list[str]] = defaultdict(list)
        for predictions in gathered:
            for index, found in predictions.items():
                lines[index] += found
        with tempfile.TemporaryDirectory(prefix="voc-eval-") as folder:
            self._restrict(Path(folder))
            present = self._annotated_classes()
            measured = {
                name: self._curves_of(Path(folder), name, lines.get(index, [""]))
                for index, name in enumerate(self._class_names)
                if name in present
            }
        kept = [{iou: _sampled(*curves[IOUS.index(iou)]) for iou in (50, 75)} for curves in measured.values()]
        if kept:
            mean = {str(iou): _mean_curve(np.array([curve[iou] for curve in kept])) for iou in (50, 75)}
            _write_curves(self._curves_file, {"bbox": mean})
        rules = {"bbox_11point": True, "bbox_area": False}
        scores = {task: self._scores(measured, eleven) for task, eleven in rules.items()}
        return {"bbox": scores["bbox_11point" if self._is_2007 else "bbox_area"], **scores}

    def _scores(self, measured: Mapping[str, Any], eleven: bool) -> dict[str, float]:
        """Return the means and each class's scores in percent; ``measured`` is (recall, precision) by class and IoU."""
        nothing = np.full(len(IOUS), math.nan)
        values = dict.fromkeys(self._class_names, nothing)
        for name, curves in measured.items():
            values[name] = np.array([100 * voc_ap(recall, precision, eleven) for recall, precision in curves])
        mean = np.mean([values[name] for name in measured], axis=0) if measured else nothing
        box = {"AP": float(mean.mean()), "AP50": float(mean[0]), "AP75": float(mean[IOUS.index(75)])}
        for name, of_class in values.items():
            box |= {f"AP-{name}": float(of_class.mean()), f"AP50-{name}": float(of_class[0])}
        return box

    def _curves_of(self, folder: Path, name: str, lines: list[str]) -> list[tuple[Any, Any]]:
        """Return recall and precision of a class after each of its detections, for every IoU.

        Scores have three digits, so many are equal, and Detectron2 sorts them as NumPy's unstable sort has it. Here equal ones
        are taken in the order of image name and box, on any machine: the file holds places in that order as scores.
        """
        found = sorted((line.split() for line in lines if line), key=lambda parts: (-float(parts[1]), parts))
        ranked = (" ".join((image, str(-place), *box)) for place, (image, _, *box) in enumerate(found))
        (folder / f"{name}.txt").write_text("\n".join(ranked))
        arguments = (str(folder / "{}.txt"), self._anno_file_template, self._image_set_path, name)
        return [voc_eval(*arguments, ovthresh=iou / 100)[:2] for iou in IOUS]

    def _restrict(self, folder: Path) -> None:
        """Let the list of images hold only those of the dataset's part, where it is one."""
        if (images := self._metadata.get("image_ids", None)) is not None:
            self._image_set_path = str(folder / "images of the part.txt")
            Path(self._image_set_path).write_text("\n".join(images))

    def _annotated_classes(self) -> set[str]:
        """Return the classes with at least one object that is not marked difficult."""
        images = Path(self._image_set_path).read_text().split()
        objects = (item for image in images for item in parse_rec(self._anno_file_template.format(image)))
        return {item["name"] for item in objects if not item["difficult"]}


def _sampled(recall: Any, precision: Any) -> Any:
    """Return the best precision at or beyond each recall of `RECALLS`, 0 where none is reached."""
    return np.array([precision[recall >= point].max(initial=0.0) for point in RECALLS])


def _mean_curve(curves: Any) -> list[float]:
    """Average curves [class, recall] over the classes with ground truth (COCO writes -1 for the others)."""
    present = curves[(curves > -1).all(axis=1)]
    return [round(float(value), 6) for value in present.mean(axis=0)] if len(present) else []


def _write_curves(file: Path | None, curves: Mapping[str, Any]) -> None:
    if file is not None and curves and comm.is_main_process():
        with harmless("writing the precision-recall curves"):
            write_json(file, {"recall": [round(float(point), 2) for point in RECALLS], **curves})


def for_json(results: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, float | None]:
    """Return ``bbox/AP`` and so on in percent, None for NaN; with several test sets their names come first."""
    parts = {f"{name}/": results[name] for name in names} if len(names) > 1 else {"": results}
    return {
        f"{prefix}{task}/{metric}": None if math.isnan(value) else float(value)
        for prefix, tasks in parts.items()
        for task, metrics in tasks.items()
        for metric, value in metrics.items()
    }
