"""One MoCo v2 step of another package a line: the child process of ``pretrain_step.py``, run by the peers' interpreter.

Gets one JSON object as its argument; prints ``{"parameters": n}``, then a ``{"loss": x}`` for every line it reads.
lightly: its own head, loss with memory bank, momentum update and shuffling, put together as its MoCo tutorial does.
solo-learn: its own loss and momentum updater inside the arithmetic of its MoCo v2+ (symmetric, two queues); its training loop
needs Lightning 1.4 and torch 1.9, which do not exist for this Python, so no more of it can be run.
"""

import copy
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from compared_steps import DIM, KEY_MOMENTUM, LR, TEMPERATURE, Shape, random_views  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from core.backbones.resnet import ResNet  # noqa: E402

Step = Callable[[Tensor, Tensor], Tensor]


def _sgd(*modules: nn.Module) -> torch.optim.SGD:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return torch.optim.SGD(parameters, lr=LR, momentum=0.9, weight_decay=1e-4)


def lightly(backbone: nn.Module, features: int, queue: int) -> tuple[Step, list[nn.Module]]:
    """Return lightly's step and the modules it trains."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import batch_shuffle, batch_unshuffle, deactivate_requires_grad, update_momentum

    head = MoCoProjectionHead(features, features, DIM)
    slow_backbone, slow_head = copy.deepcopy(backbone), copy.deepcopy(head)
    deactivate_requires_grad(slow_backbone)
    deactivate_requires_grad(slow_head)
    criterion = NTXentLoss(temperature=TEMPERATURE, memory_bank_size=(queue, DIM))
    optimizer = _sgd(backbone, head)

    def step(view: Tensor, other: Tensor) -> Tensor:
        update_momentum(backbone, slow_backbone, m=KEY_MOMENTUM)
        update_momentum(head, slow_head, m=KEY_MOMENTUM)
        query = head(backbone(view).flatten(start_dim=1))
        with torch.no_grad():
            shuffled, order = batch_shuffle(other)
            key = batch_unshuffle(slow_head(slow_backbone(shuffled).flatten(start_dim=1)), order)
        loss = criterion(query, key)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step, [backbone, head]


def _solo(part: str) -> Any:
    """Load one file of solo-learn without its package, whose import needs Lightning."""
    package = importlib.util.find_spec("solo")
    assert package is not None
    assert package.submodule_search_locations
    spec = importlib.util.spec_from_file_location(
        Path(part).stem, Path(next(iter(package.submodule_search_locations)), part)
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def solo(backbone: nn.Module, features: int, queue: int) -> tuple[Step, list[nn.Module]]:
    """Return solo-learn's MoCo v2+ step, without its online classifier, and the modules it trains."""
    contrast, momentum = _solo("losses/moco.py").moco_loss_func, _solo("utils/momentum.py")
    head = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, DIM))
    slow_backbone, slow_head = copy.deepcopy(backbone), copy.deepcopy(head)
    for fast, slow in ((backbone, slow_backbone), (head, slow_head)):
        momentum.initialize_momentum_params(fast, slow)
    updater = momentum.MomentumUpdater(KEY_MOMENTUM, 1.0)
    negatives = F.normalize(torch.randn(2, DIM, queue), dim=1)
    pointer, optimizer = 0, _sgd(backbone, head)

    def step(view: Tensor, other: Tensor) -> Tensor:
        nonlocal pointer
        queries = [F.normalize(head(backbone(images)), dim=-1) for images in (view, other)]
        with torch.no_grad():
            keys = [F.normalize(slow_head(slow_backbone(images)), dim=-1) for images in (view, other)]
        seen = negatives.clone().detach()
        loss = (
            contrast(queries[0], keys[1], seen[1], TEMPERATURE) + contrast(queries[1], keys[0], seen[0], TEMPERATURE)
        ) / 2
        negatives[:, :, pointer : pointer + len(view)] = torch.stack(keys).permute(0, 2, 1)
        pointer = (pointer + len(view)) % queue
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for fast, slow in ((backbone, slow_backbone), (head, slow_head)):
            updater.update(fast, slow)
        return loss

    return step, [backbone, head]


def main() -> None:
    """Answer every line with one step."""
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    torch.manual_seed(0)
    backbone = ResNet(ResNet.Config(depth=asked["depth"], width=asked["width"])).train()
    make = {"lightly": lightly, "solo": solo}[asked["name"]]
    step, trained = make(backbone, backbone.feature_dim, asked["queue"])
    view, other = random_views(Shape(*(asked[name] for name in Shape._fields)))
    count = sum(parameter.numel() for module in trained for parameter in module.parameters())
    print(json.dumps({"parameters": count}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"loss": step(view, other).item()}), flush=True)


if __name__ == "__main__":
    main()
