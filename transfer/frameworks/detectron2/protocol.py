"""Depart from a published protocol as asked: short, at another rate, on a part."""

from transfer.frameworks.detectron2 import compat  # noqa: F401, I001 - first: it prepares Detectron2's import


from detectron2.config import CfgNode

from transfer.datasets import own
from transfer.frameworks._protocol import departures
from transfer.frameworks.detectron2 import datasets


ITERATIONS = 4
TRAIN_IMAGES, TEST_IMAGES = 40, 6
TRAIN_BATCH = 2  # on each device
EMBEDDED = "shapes"


def use_own(cfg: CfgNode, data: str, skip_bad: bool = False) -> list[str]:
    """Change ``cfg`` in place to a user's folder: its sets, its classes and the form of its masks; return what to say."""
    found = own.prepare(data, "boxes", skip_bad=skip_bad, outlines=cfg.MODEL.MASK_ON)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (
        (f"{found.layout}:{found.folder}:train",),
        (f"{found.layout}:{found.folder}:val",),
    )
    cfg.DATASETS.PROPOSAL_FILES_TRAIN = cfg.DATASETS.PROPOSAL_FILES_TEST = ()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = len(found.classes)
    if found.runs:
        cfg.INPUT.MASK_FORMAT = "bitmask"  # Detectron2 reads run lengths, and polygons among them, in this form only
    return [f"data: {found.name}, {len(found.classes)} classes ({', '.join(found.classes[:3])}, ...)", *found.notes]


def vary(
    cfg: CfgNode, shortened: str, lr_factor: float, hold_out: float, owned: bool = False, devices: int = 1
) -> list[str]:
    """Change ``cfg`` in place from the published protocol as was asked; return what was changed, as text.

    ``owned``: its data is the user's already, and stays.
    """
    said = [] if owned or shortened in ("", EMBEDDED) else use_own(cfg, shortened)
    if shortened:
        shorten(cfg, "" if owned or said else shortened)
        parts = cfg.SOLVER.ACCUMULATE
        cfg.SOLVER.IMS_PER_BATCH = min(cfg.SOLVER.IMS_PER_BATCH, devices * (parts if parts > 1 else TRAIN_BATCH))
    cfg.SOLVER.BASE_LR *= lr_factor
    if hold_out:
        names = cfg.DATASETS.TRAIN
        cfg.DATASETS.TEST = tuple(f"{name}+held{hold_out:g}" for name in names)
        cfg.DATASETS.TRAIN = tuple(f"{name}+kept{hold_out:g}" for name in names)
    return [*said, *departures(shortened, cfg.SOLVER.MAX_ITER, lr_factor, hold_out)]


def shorten(cfg: CfgNode, data: str) -> None:
    """Change ``cfg``, already fitted to the devices, in place; ``data`` is ``shapes``, or empty to keep what it has."""
    layout = "shapes_voc" if cfg.DATASETS.TRAIN[0].startswith("voc_") else EMBEDDED
    train, test = (f"{layout}_train", f"{layout}_val") if data else (cfg.DATASETS.TRAIN[0], cfg.DATASETS.TEST[0])
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
