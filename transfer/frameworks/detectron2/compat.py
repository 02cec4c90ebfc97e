"""Every place where Detectron2 needs help on this stack, each with its reason.

Import this module before any part of ``detectron2``. Measured with upstream a59f0563, torch 2.14, NumPy 2.4.
Handled elsewhere, where it belongs: SyncBN without CUDA (`protocol`), defaults that fight the weights (`weights`),
R18/R34 through C4 (`weights`), slim basic-block networks (`backbones`), pickles (`weights`), NaN (`evaluators`),
``trainer.train()`` returning None (`trainer`).
"""

import contextlib
import functools
import logging
import warnings
from collections.abc import Iterator
from typing import Any

# Message (a regular expression) -> why it may be ignored.
IGNORED = {
    r"`?torch\.jit\.script": "torch 2.14 deprecates what torchvision and Detectron2 still decorate with",
    r"torch\.meshgrid: in an upcoming release": "Detectron2's anchors rely on the present default",
    r"__array__ implementation doesn't accept a copy keyword": "pycocotools and COCOEvaluator on NumPy 2",
    r"unclosed file": "fvcore leaves config files to the garbage collector",
    r"The [`']?warn[`']? (method|function) is deprecated": "Detectron2 calls Logger.warn",
    r"You are using `torch\.load` with": "fvcore's loader; replaced by ours, which reads tensors only",
    r"pkg_resources is deprecated": "an upstream build of Detectron2 still imports it",
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the warnings in `IGNORED`, and no others."""
    with warnings.catch_warnings():
        for message in IGNORED:
            warnings.filterwarnings("ignore", message=message)
        yield


# torch 2.14 says through its logger, once a process, that is_fx_tracing (Detectron2 asks it) changed its meaning.
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)

with quiet():
    from detectron2.engine import defaults
    from detectron2.evaluation import coco_evaluation
    from detectron2.utils import comm
    from faster_coco_eval import COCOeval_faster
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

# Detectron2's own fast evaluation is in its compiled part, which the pure-Python package lacks. faster-coco-eval gives
# equal numbers (to 6e-17) five times faster than pycocotools. Its init_as_pycocotools() does nothing after the import
# and breaks it before, so the name itself is replaced. Its threads for the overlaps of masks cost a quarter more than they save.
coco_evaluation.COCOeval = functools.partial(COCOeval_faster, rle_iou_max_workers=1)


def create_ddp_model(model: nn.Module, *, fp16_compression: bool = False, **options: Any) -> nn.Module:
    """Wrap ``model`` for several processes; on the CPU without Detectron2's ``device_ids``, which gloo refuses."""
    if comm.get_world_size() == 1:
        return model
    if next(model.parameters()).is_cuda:
        options.setdefault("device_ids", [comm.get_local_rank()])
    wrapped = DistributedDataParallel(model, **options)
    if fp16_compression:
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        wrapped.register_comm_hook(state=None, hook=default_hooks.fp16_compress_hook)
    return wrapped


defaults.create_ddp_model = create_ddp_model
