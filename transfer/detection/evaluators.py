"""Score detections by the COCO and by the VOC rules, with every class's own AP, in percent."""

from transfer.detection import compat  # noqa: F401, I001 - first: it prepares Detectron2's import

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
from detectron2.evaluation.pascal_voc_evaluation import parse_rec, voc_eval
from detectron2.utils import comm

from core.errors import InputError

IOUS = range(50, 100, 5)  # percent; AP is the mean over them, as COCO has it


def build(cfg: Any, name: str) -> DatasetEvaluator:
    """Return the evaluator that the dataset's metadata asks for; raise InputError for any other kind."""
    kind = MetadataCatalog.get(name).get("evaluator_type")
    if kind == "coco":
        tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
        # use_fast_impl=False is compat's COCOeval; True would ask for the compiled one
        return QuietCOCOEvaluator(name, tasks, output_dir=str(Path(cfg.OUTPUT_DIR) / "inference"), use_fast_impl=False)
    if kind == "pascal_voc":
        return ClassVOCEvaluator(name)
    raise InputError(f"dataset {name} has evaluator_type {kind!r}; only 'coco' and 'pascal_voc' are scored here")


class QuietCOCOEvaluator(COCOEvaluator):
    """Detectron2's evaluator without what pycocotools prints; the numbers are in the log and in ``evaluation.json``."""

    def _eval_predictions(self, predictions: list[Any], img_ids: list[int] | None = None) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            super()._eval_predictions(predictions, img_ids)


class ClassVOCEvaluator(PascalVOCDetectionEvaluator):
    """Return AP, AP50, AP75 and each class's AP; a class without ground truth is NaN and left out of the means.

    Detectron2 counts such a class as 0. On VOC itself every class has objects, so both agree there.
    """

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Gather all processes' predictions and score them on the first; the others return None."""
        gathered = comm.gather(self._predictions, dst=0)
        if not comm.is_main_process():
            return None
        lines: dict[int, list[str]] = defaultdict(list)
        for predictions in gathered:
            for index, found in predictions.items():
                lines[index] += found
        present = self._annotated_classes()
        scores = {}
        with tempfile.TemporaryDirectory(prefix="voc-eval-") as folder:
            for index, name in enumerate(self._class_names):
                (Path(folder) / f"{name}.txt").write_text("\n".join(lines.get(index, [""])))
                values = [self._average_precision(folder, name, iou) if name in present else math.nan for iou in IOUS]
                scores[name] = np.array(values)
        mean = np.nanmean(np.array(list(scores.values())), axis=0) if present else np.full(len(IOUS), math.nan)
        box = {"AP": float(mean.mean()), "AP50": float(mean[0]), "AP75": float(mean[IOUS.index(75)])}
        return {"bbox": box | {f"AP-{name}": float(values.mean()) for name, values in scores.items()}}

    def _average_precision(self, folder: str, name: str, iou: int) -> float:
        template = str(Path(folder) / "{}.txt")
        arguments = (template, self._anno_file_template, self._image_set_path, name)
        _, _, precision = voc_eval(*arguments, ovthresh=iou / 100, use_07_metric=self._is_2007)
        return 100 * float(precision)

    def _annotated_classes(self) -> set[str]:
        """Return the classes with at least one object that is not marked difficult."""
        images = Path(self._image_set_path).read_text().split()
        objects = (item for image in images for item in parse_rec(self._anno_file_template.format(image)))
        return {item["name"] for item in objects if not item["difficult"]}


def for_json(results: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, float | None]:
    """Return ``bbox/AP`` and so on in percent, None for NaN; with several test sets their names come first."""
    parts = {f"{name}/": results[name] for name in names} if len(names) > 1 else {"": results}
    return {
        f"{prefix}{task}/{metric}": None if math.isnan(value) else float(value)
        for prefix, tasks in parts.items()
        for task, metrics in tasks.items()
        for metric, value in metrics.items()
    }
