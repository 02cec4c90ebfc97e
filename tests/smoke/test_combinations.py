"""Every method with every branch trains, goes on after a stop as if there had been none, and exports its backbone."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, multiprocessing, nn

from core import distributed
from core.backbones import build
from core.backbones.resnet import ResNet
from core.checkpoint import load, query_backbone
from core.plugins import names
from pretrain.losses import nt_xent
from pretrain.setup import make_trainer
from pretrain.trainer import Trainer

METHODS: dict[str, dict[str, Any]] = {
    "moco": {"queue": 16, "dim": 8}, "simclr": {"dim": 8}, "byol": {"dim": 8, "hidden": 16},
    "simsiam": {"dim": 16, "hidden": 16, "bottleneck": 8}, "supervised": {"classes": 8},
}  # fmt: skip
BRANCHES: dict[str, dict[str, Any]] = {
    "mixmask": {"mask": {"name": "balanced", "cells": 4, "ratio": 0.5, "saliency": {"stage": 2}}},
    "unmix": {},
    "mscn": {"cell": 8, "ratio": [0.0625, 0.25]},
    "saliency": {"cells": 4, "ratio": [0.0625, 0.25], "saliency": {"stage": 2}},
    "mixsiam": {},
    "masked": {"mask": {"name": "channelwise", "cells": 4, "ratio": 0.25}, "fill": {"name": "blur"}, "sides": "both"},
}
PAIRS = [pair for pair in itertools.product(METHODS, BRANCHES) if pair != ("supervised", "mixsiam")]  # it is refused
STEPS = 3


def settings(method: str, branch: str) -> dict[str, Any]:
    """Return a run of three steps; a few runs have the other batch norm policies."""
    extra = {"hard_negatives": False} if branch == "saliency" and method not in ("moco", "simclr") else {}
    extra |= {"sides": "query"} if branch in ("mscn", "masked") and method == "supervised" else {}
    norms = {"unmix": "joint", "saliency": "auxiliary"}
    return {
        "backbone": {"name": "resnet", "depth": 18, "width": 4, "stem": "small"},
        "data": {"name": "shapes", "count": 24, "size": 32}, "views": {"size": 32},
        "method": {"name": method} | METHODS[method], "branches": {"b": {"name": branch} | BRANCHES[branch] | extra},
        "mixed_norm": norms.get(branch, "separate"),
        "train": {"epochs": 1, "batch_size": 8, "workers": 0, "log_every": 1}, "optimizer": {"lr": 0.05},
    }  # fmt: skip


def start(config: Path, folder: Path) -> Trainer:
    """Return a trainer of this run folder."""
    return make_trainer(config, [f"run.folder={folder}"])


def stop_after(trainer: Trainer, steps: int) -> None:
    """Make the trainer stop as by a signal."""
    whole = trainer._step

    def step(batch: Any) -> Any:
        if trainer.step + 1 == steps:
            trainer.asked_by = 15
        return whole(batch)

    trainer._step = step  # type: ignore[method-assign]


def test_the_tables_name_every_method_and_branch() -> None:
    assert (sorted(METHODS), sorted(BRANCHES)) == (names("pretrain.methods"), names("pretrain.branches"))


@pytest.mark.parametrize(("method", "branch"), PAIRS)
def test_a_pair_trains_resumes_and_exports(method: str, branch: str, tmp_path: Path) -> None:
    config = tmp_path / "pair.yaml"
    config.write_text(yaml.safe_dump(settings(method, branch)))
    whole = start(config, tmp_path / "whole")
    before = {name: value.clone() for name, value in whole.objective.method.query_encoder.state_dict().items()}
    whole.run()
    assert whole.step == STEPS

    stopped = start(config, tmp_path / "parts")
    stop_after(stopped, 2)
    stopped.run()
    assert stopped.step == 2
    rest = start(config, tmp_path / "parts")
    assert rest.step == 2
    rest.run()

    one, two = (load(tmp_path / folder / "checkpoints" / "last.pth") for folder in ("whole", "parts"))
    assert one["progress"] == two["progress"]
    assert one["method"].keys() == two["method"].keys()
    assert [name for name, value in one["method"].items() if not torch.equal(value, two["method"][name])] == []
    same = [name for name, value in before.items() if torch.equal(value, one["method"][f"query_encoder.{name}"])]
    assert same == []  # every tensor was trained or tracked
    assert set(one["progress"]["values"]) >= {"loss", "loss/plain", "loss/b", "lam/b"}

    backbone = build(ResNet.Config.model_validate(settings(method, branch)["backbone"]))
    backbone.load_state_dict(query_backbone(one))
    trained = one["method"]["query_encoder.backbone.layer4.1.bn2.running_var"]
    assert torch.equal(backbone.state_dict()["layer4.1.bn2.running_var"], trained)


ROWS, DIM = 8, 5


def batch() -> tuple[Tensor, Tensor]:
    """Return what two views of all images enter a small encoder as."""
    both = torch.randn(2, ROWS, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return both[0], both[1]


def encoder() -> nn.Module:
    """Return an encoder without batch norm, which would see other rows on two processes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, DIM)).double()


def loss_of(network: nn.Module, first: Tensor, second: Tensor) -> Tensor:
    """Return this process's mean NT-Xent of both directions, and of a mixed view against a partner's key."""
    one, two = (F.normalize(network(view), dim=1) for view in (first, second))
    total = torch.zeros((), dtype=torch.float64)
    for query, key in ((one, two), (two, one), (one, two.flip(0))):
        queries, keys = (distributed.gather_with_gradient(rows) for rows in (query, key))
        total = total + nt_xent(query, key, queries, keys, distributed.local_rows(len(queries)).start, 0.3).mean()
    return total / 3


def work(rank: int, folder: str) -> None:
    """Be one of two processes: score one's own rows, and average gradients as DDP does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    network = encoder()
    mine = distributed.local_rows(ROWS)
    loss = loss_of(network, *(view[mine] for view in batch()))
    loss.backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    distributed.average([loss.data, *gradients])
    torch.save({"loss": loss.detach(), "gradients": gradients}, f"{folder}/{rank}.pt")
    distributed.stop()


def test_simclr_on_two_processes_has_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    network = encoder()
    first, second = batch()
    # a partner is of the same process: the rows of each half are turned round
    one, two = (F.normalize(network(view), dim=1) for view in (first, second))
    turned = torch.cat([part.flip(0) for part in two.chunk(2)])
    loss = sum(nt_xent(q, k, q, k, 0, 0.3).mean() for q, k in ((one, two), (two, one), (one, turned))) / 3
    loss.backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found["loss"], loss.detach(), rtol=1e-12, atol=1e-12)
        for gradient, parameter in zip(found["gradients"], network.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-9, atol=1e-12)
            assert gradient.abs().max() > 1e-4
