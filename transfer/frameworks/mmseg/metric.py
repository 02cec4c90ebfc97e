"""MMSegmentation's IoU metric, with the classes' own scores."""

import math
from typing import Any

import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS


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
