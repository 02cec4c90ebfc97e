"""A trained detector as a function from an image to a picture of what it finds."""

from transfer.frameworks.detectron2 import compat  # noqa: I001 - first: it prepares Detectron2's import

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model
from PIL import Image

from core import bounds
from core.files import FileError
from transfer.frameworks.detectron2 import run, trainer, weights


def network(content: dict[str, Any], file: Path, score: float) -> Callable[[np.ndarray], Image.Image]:
    """Build the detector of a checkpoint with the config beside it; raise FileError when they do not fit."""
    with compat.quiet():
        cfg = _config(file.with_name("config.yaml"), file)
        model = build_model(cfg).eval()
    try:
        model.load_state_dict(content["model"])
    except (RuntimeError, TypeError, AttributeError) as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise FileError(f"{file} does not fit {file.with_name('config.yaml')}: {first[0].strip()}") from error
    classes = _classes(content, cfg)
    shorter = ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
    order = slice(None, None, -1 if cfg.INPUT.FORMAT == "BGR" else 1)

    @torch.no_grad()
    def find(image: np.ndarray) -> Image.Image:
        height, width = image.shape[:2]
        pixels = shorter.get_transform(image).apply_image(image)[:, :, order].transpose(2, 0, 1)
        given = {"image": torch.from_numpy(np.ascontiguousarray(pixels)), "height": height, "width": width}
        with compat.quiet():
            found = model([given])[0]["instances"].to("cpu")
        return trainer.picture(torch.from_numpy(image.transpose(2, 0, 1).copy()), found[found.scores > score], classes)

    return find


def _config(path: Path, file: Path) -> CfgNode:
    if not path.is_file():
        raise FileError(f"no {path}, the config that {file} was trained with; give the run folder whole")
    try:
        values = yaml.safe_load(bounds.yaml_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FileError(f"{path} is not plain YAML; give the run folder as training left it") from error
    if not isinstance(values, dict) or "_BASE_" in values:
        raise FileError(f"{path} is not a whole config; give the run folder as training left it")
    cfg, _ = run.read_config(str(path), [])
    weights.refuse_impossible(cfg)
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    return cfg


def _classes(content: dict[str, Any], cfg: CfgNode) -> list[str]:
    """Return the names that the checkpoint holds, else those Detectron2 knows of the test set, else numbers."""
    head = cfg.MODEL.RETINANET if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else cfg.MODEL.ROI_HEADS
    known = MetadataCatalog.get(cfg.DATASETS.TEST[0]).get("thing_classes") if cfg.DATASETS.TEST else None
    names = content.get("classes") or known
    if isinstance(names, list) and len(names) == head.NUM_CLASSES:
        return [str(name) for name in names]
    return [f"class {index}" for index in range(head.NUM_CLASSES)]
