"""Draw a few validation images: ground truth on the left, predictions on the right."""

from transfer.frameworks.detectron2 import compat  # noqa: F401, I001 - first: it prepares Detectron2's import

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.detection_utils import annotations_to_instances, read_image
from PIL import Image
from torch import Tensor, nn
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from core.files import write_atomic

CONFIDENT = 0.3  # predictions below are not drawn,
AT_LEAST = 2  # except an image's best (Detectron2 sorts by score): a short training is not confident
AT_MOST = 12  # predictions of one image
PALETTE = ["#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000", "#e0a800", "#f032e6"]


def draw(cfg: Any, model: nn.Module, name: str, folder: Path, count: int = 4) -> list[Path]:
    """Write PNGs of the first ``count`` images of dataset ``name`` to ``folder`` and return their paths."""
    classes = MetadataCatalog.get(name).thing_classes
    mapper, written = DatasetMapper(cfg, is_train=False), []
    model.eval()
    for record in DatasetCatalog.get(name)[:count]:
        image = torch.as_tensor(read_image(record["file_name"], "RGB").copy()).permute(2, 0, 1)
        truth = annotations_to_instances(record["annotations"], image.shape[1:], "bitmask")
        with torch.no_grad():
            found = model([mapper(record)])[0]["instances"].to("cpu")
        found = found[(found.scores > CONFIDENT) | (torch.arange(len(found)) < AT_LEAST)][:AT_MOST]
        masks = found.pred_masks if found.has("pred_masks") else None
        labels = [f"{classes[c]} {s:.2f}" for c, s in zip(found.pred_classes, found.scores, strict=True)]
        right = _overlay(image, found.pred_boxes.tensor, masks, found.pred_classes.tolist(), labels)
        masks = truth.gt_masks.tensor if truth.has("gt_masks") and masks is not None else None
        labels = [classes[c] for c in truth.gt_classes]
        left = _overlay(image, truth.gt_boxes.tensor, masks, truth.gt_classes.tolist(), labels)
        path = Path(folder) / f"{Path(record['file_name']).stem}.png"
        write_atomic(path, _png(torch.cat([left, right], dim=2)))
        written.append(path)
    return written


def _overlay(image: Tensor, boxes: Tensor, masks: Tensor | None, indices: Sequence[int], labels: list[str]) -> Tensor:
    """Return ``image`` (uint8 [3, H, W]) enlarged to at least 256 pixels, with coloured boxes, masks and labels."""
    factor = max(1, -(-256 // max(image.shape[1:])))
    image = image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    if not labels:
        return image
    colours: list[Any] = [PALETTE[index % len(PALETTE)] for index in indices]
    if masks is not None:
        large = masks.bool().repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        image = draw_segmentation_masks(image, large, alpha=0.4, colors=colours)
    return draw_bounding_boxes(image, boxes * factor, labels, colours, width=2)


def _png(image: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return buffer.getvalue()
