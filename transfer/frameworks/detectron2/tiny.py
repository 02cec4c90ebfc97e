"""Shorten any detection protocol to a smoke run: same network, a few small images, few regions and iterations."""

from transfer.frameworks.detectron2 import compat  # noqa: F401, I001 - first: it prepares Detectron2's import

from pathlib import Path

from detectron2.config import CfgNode

from core.errors import InputError
from transfer.frameworks.detectron2 import datasets

ITERATIONS = 4
TRAIN_IMAGES, TEST_IMAGES = 40, 6
EMBEDDED = "shapes"


def shorten(cfg: CfgNode, data: str) -> None:
    """Change ``cfg``, already fitted to the devices, in place; ``data`` is ``shapes`` or a folder in COCO or VOC layout."""
    train, test = sources(cfg, data)
    for name in (train, test):
        datasets.check([name])
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (f"{train}+first{TRAIN_IMAGES}",), (f"{test}+first{TEST_IMAGES}",)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(datasets.classes(train))
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (128,), 192
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 128, 192
    # each region passes through res5 in C4: 8 of them take a second or two on a core, 512 most of a minute
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 32
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = 100
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 50, 10
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 8
    cfg.TEST.DETECTIONS_PER_IMAGE = 5
    cfg.TEST.PRECISE_BN.NUM_ITER = 2
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS = ITERATIONS, (ITERATIONS - 1,), 1
    cfg.SOLVER.CHECKPOINT_PERIOD = ITERATIONS // 2  # so that a killed run has something to go on from
    cfg.TEST.EVAL_PERIOD = 0


def sources(cfg: CfgNode, data: str) -> tuple[str, str]:
    """Return the names of the training and the test set."""
    if data == EMBEDDED:
        layout = "shapes_voc" if cfg.DATASETS.TRAIN[0].startswith("voc_") else "shapes"
        return f"{layout}_train", f"{layout}_val"
    root = Path(data)
    if (root / "annotations").is_dir():
        found = sorted(path.stem.removeprefix("instances_") for path in (root / "annotations").glob("instances_*.json"))
        pair = [next((name for name in found if name.startswith(split)), "") for split in ("train", "val")]
        if not all(pair):
            raise InputError(f"--tiny {data}: needs annotations/instances_train*.json and instances_val*.json")
        return f"coco:{data}:{pair[0]}", f"coco:{data}:{pair[1]}"
    if (root / "ImageSets" / "Main").is_dir():
        if cfg.MODEL.MASK_ON:
            raise InputError(f"--tiny {data}: VOC annotations have no instance masks; give a COCO folder, or 'shapes'")
        return f"voc:{data}:train", f"voc:{data}:val"
    raise InputError(
        f"--tiny {data}: no folder in COCO or VOC layout (annotations/ or ImageSets/Main/); 'shapes' is embedded"
    )
