"""No step of any method and branch reads a number from the device, or waits for a copy to it; what is compiled is one graph.

The device here is ``meta``, whose tensors hold no numbers: a read of one (``item``, ``tolist``, ``cpu``, ``nonzero``, a boolean
index, ``if tensor``) is an error there, so a step that ends has made none.
"""

import contextlib
import math
import operator
from collections import Counter
from functools import partial
from typing import Any

import pytest
import tiny_objective
import torch
from one_view import draw_colours
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core import config
from core.plugins import names
from pretrain import optimizers
from pretrain.batchnorm import split
from pretrain.branches import Branch, Draws
from pretrain.config import PretrainSettings
from pretrain.loader import Batch
from pretrain.losses import against, nt_xent
from pretrain.objective import mixed_loss
from pretrain.preview import mixtures
from pretrain.trainer import Given, Outcome, Trainer
from pretrain.upload import Inputs, upload
from pretrain.views import ViewSettings

CONFIG = """
backbone: {name: resnet, depth: 18, width: 4}
data: {name: shapes, count: 64, size: 32}
views: {size: 16}
method: {name: moco, queue: 16}
train: {epochs: 1, batch_size: 8, workers: 0}
optimizer: {lr: 0.01, clip_norm: 1}
"""
META = torch.device("meta")
BALANCED = {"name": "balanced", "cells": 4, "ratio": 0.5, "saliency": {"stage": 1}}
FOCAL = {"name": "focal", "ratio": [0.2, 0.8]}
CHANNELS = {"name": "channelwise", "cells": 4, "ratio": 0.5}
DISCRETE = {"name": "discrete", "cells": 4, "ratio": 0.5}
HIGH = {"name": "highpass", "kernel": 3}
MAKERS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixmask": ("mixmask", {}),
    "mixmask, one mask a batch, shuffled": ("mixmask", {"scope": "batch", "partner": "shuffle"}),
    "mixmask, balanced": ("mixmask", {"mask": BALANCED}), "unmix": ("unmix", {}), "mscn": ("mscn", {}),
    "saliency": ("saliency", {"hard_negatives": False, "fill": HIGH}), "saliency, hard": ("saliency", {}),
    "mixsiam": ("mixsiam", {}), "mixsiam, boxes": ("mixsiam", {"mix": "cutmix"}),
    "masked, both sides": ("masked", {"sides": "both", "mask": FOCAL, "fill": {"name": "noise"}}),
    "masked, partner": ("masked", {"mask": CHANNELS, "fill": {"name": "partner"}}),
    "masked, blur": ("masked", {"mask": DISCRETE, "fill": {"name": "blur", "kernel": 3}}),
}  # fmt: skip


class Crossings(TorchDispatchMode):
    """Counts copies from the host that are waited for, and operations that take tensors of both."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: Counter[str] = Counter()
        self.uploads = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = {tensor.device.type for tensor in tensors if tensor.ndim or tensor.device.type == "meta"}
        out = function(*args, **kwargs)
        name = function.overloadpacket.__name__.split(".")[-1]
        crossed = isinstance(out, Tensor) and out.device.type == "meta" and here == {"cpu"}
        if (crossed and kwargs.get("non_blocking")) or (name == "copy_" and len(here) > 1 and args[2:] == (True,)):
            self.uploads += 1
        elif crossed or len(here) > 1:
            self.waited[name] += 1
        return out


@pytest.fixture
def settings(tmp_path) -> PretrainSettings:
    """Return settings of a small run."""
    (tmp_path / "small.yaml").write_text(CONFIG)
    return config.parse(PretrainSettings, config.load(tmp_path / "small.yaml"), tmp_path / "small.yaml")


@pytest.fixture
def on_meta(settings, tmp_path, monkeypatch):
    """Make a trainer on the meta device; autocast and fused optimizers do not know it."""
    monkeypatch.setattr(torch, "autocast", lambda *given, **more: contextlib.nullcontext())
    plain = optimizers.make
    monkeypatch.setattr(optimizers, "make", lambda *given, fused: plain(*given, fused=False))

    def make(method: str, branches: dict[str, Branch], norm: str = "separate") -> Trainer:
        objective = tiny_objective.objective(method, branches, norm=norm).float()
        made = Trainer(settings, objective, range(64), tmp_path, META)
        made._prepare()
        return made

    return make


def batch(seed: int = 2) -> Batch:
    """Return eight pairs of crops with drawn colour changes, blur and solarisation among them."""
    generator = torch.Generator().manual_seed(seed)
    crops = torch.randint(0, 256, (2, 8, 3, 16, 16), generator=generator, dtype=torch.uint8)
    views = ViewSettings(size=16, solarize_probability=0.5)
    return Batch(crops, draw_colours(views, generator, 16).view(2, 8, 8), [], labels=tiny_objective.LABELS)


def test_the_table_names_every_branch_and_mask() -> None:
    assert {name for name, _ in MAKERS.values()} <= set(names("pretrain.branches"))
    masks = {given["mask"]["name"] for _, given in MAKERS.values() if "mask" in given} | {tiny_objective.GRID["name"]}
    assert masks <= set(names("pretrain.masks"))


@pytest.mark.parametrize("method", names("pretrain.methods"))
@pytest.mark.parametrize("label", MAKERS)
def test_no_step_reads_from_the_device_or_waits_for_a_copy_to_it(on_meta, method, label) -> None:
    name, given = MAKERS[label]
    if label == "saliency, hard" and method not in ("moco", "simclr"):
        given = {"hard_negatives": False}
    if method == "supervised" and tiny_objective.branch(name, **given).needs_keys:
        pytest.skip("labels are no keys of changed views: such a pair is refused")
    made = on_meta(method, {"b": tiny_objective.branch(name, **given)}, "auxiliary" if label == "unmix" else "separate")
    with Crossings() as seen:
        outcome = made._step(batch())
    assert outcome.values["loss"].device == META
    assert dict(seen.waited) == {}
    assert seen.uploads > 0  # masks and partners did come from the host


@pytest.mark.parametrize("label", MAKERS)
def test_the_picture_of_the_branches_is_mixed_where_the_networks_are(label, monkeypatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *given, **more: contextlib.nullcontext())
    name, given = MAKERS[label]
    made = tiny_objective.objective("moco", {"b": tiny_objective.branch(name, **given)}).float().to(META)
    mixed = mixtures(made, *(view.float() for view in tiny_objective.pair()))["b"]
    assert {part.device for part in mixed if isinstance(part, Tensor)} == {META}


def test_a_read_and_a_copy_that_is_waited_for_would_be_noticed() -> None:
    numbers = torch.ones(3, device=META)
    for read in (numbers.sum().item, numbers.tolist, numbers.cpu, numbers.nonzero, lambda: bool(numbers.sum())):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read()
    with pytest.raises((RuntimeError, NotImplementedError)):
        numbers[numbers > 0]
    with Crossings() as seen:
        torch.ones(3).to(META)
        numbers[torch.tensor([0, 1])]
        assert (dict(seen.waited), seen.uploads) == ({"_to_copy": 1, "index": 1}, 0)
        upload(torch.ones(3), META)
    assert seen.uploads == 1


def test_a_mixture_is_multiplied_with_the_queue_once_for_both_keys() -> None:
    method = tiny_objective.method("moco")
    query, key = torch.randn(2, 8, 4, dtype=torch.float64)
    partner, lam = torch.arange(8).flip(0), torch.rand(8, dtype=torch.float64)
    products = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            name = function.overloadpacket.__name__
            products.extend([name] * (name == "mm"))
            sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
            assert name not in ("clone", "_to_copy", "copy_") or method.queue.numel() not in sizes
            return out

    with Products():
        mixed_loss(method, query, key, partner, lam)
    assert products == ["mm"]
    torch.testing.assert_close(
        mixed_loss(method, query, key, partner, lam),
        lam * method.loss(query, key) + (1 - lam) * method.loss(query, key[partner]),
    )


def test_what_all_negatives_add_has_the_gradient_of_logsumexp() -> None:
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    negatives = torch.randn(4, 11, generator=generator, dtype=torch.float64)
    weights = torch.randn(5, generator=generator, dtype=torch.float64)
    plain = torch.logsumexp(query @ negatives / 0.1, dim=1)
    found = against(query, negatives, 0.1)
    torch.testing.assert_close(found, plain)
    (wanted,) = torch.autograd.grad((plain * weights).sum(), query)
    (gradient,) = torch.autograd.grad((found * weights).sum(), query)
    torch.testing.assert_close(gradient, wanted)
    assert against(1e4 * query, negatives, 0.1).isfinite().all()


def test_under_autocast_the_queue_is_neither_rounded_nor_copied() -> None:
    generator = torch.Generator().manual_seed(3)
    query, negatives = torch.randn(5, 4, generator=generator), torch.randn(4, 11, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        found = against(query, negatives, 0.2)
    assert found.dtype == torch.float32
    assert torch.equal(found, against(query, negatives, 0.2))


def test_under_autocast_simclrs_logits_are_not_rounded() -> None:
    rows = torch.nn.functional.normalize(torch.randn(4, 6, 16, generator=torch.Generator().manual_seed(4)), dim=2)
    with torch.autocast("cpu", torch.bfloat16):
        found = nt_xent(rows[0], rows[1], rows[0], rows[1], 0, 0.1, rows[2], 2.0)
    assert torch.equal(found, nt_xent(rows[0], rows[1], rows[0], rows[1], 0, 0.1, rows[2], 2.0))


# ---- what a captured step reads ----

PAIRS: dict[
    str, tuple[str, dict[str, Any], dict[str, Any]]
] = {  # a queue and shuffles, a momentum that grows, two rates, labels
    "moco": ("mixmask", {"partner": "shuffle", "mask": BALANCED}, {"split_bn": 2}),
    "byol": ("unmix", {}, {}),
    "simsiam": ("mixsiam", {"mix": "cutmix"}, {}),
    "simclr": ("saliency", {}, {}),
    "supervised": ("masked", {"mask": FOCAL}, {}),
}


@pytest.mark.parametrize("method", PAIRS)
def test_all_that_changes_from_step_to_step_is_found_in_the_same_memory(settings, tmp_path, method) -> None:
    """A graph repeats what the host did once: here the host's step and rates are stuck, and the weights are equal bit for bit."""
    name, given, config_ = PAIRS[method]
    train = settings.train.model_copy(update={"accumulate": 2, "epochs": 1})
    kind = "adamw" if method == "byol" else "sgd"
    optimizer = config.parse(
        PretrainSettings, {**settings.model_dump(), "optimizer": {"name": kind, "lr": 0.05}}, tmp_path
    ).optimizer

    def trainer(folder: str) -> Trainer:
        objective = tiny_objective.objective(method, {"b": tiny_objective.branch(name, **given)}, **config_).float()
        (tmp_path / folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        changed = settings.model_copy(update={"train": train, "optimizer": optimizer})
        made = Trainer(changed, objective, range(64), tmp_path / folder, torch.device("cpu"))
        made._prepare()
        return made

    def stuck(made: Trainer) -> Trainer:
        inputs, first = Inputs(made.device), list[Tensor]()

        def take(given: Given) -> Outcome:
            drawn = [
                {f"{number} {key}": part for key, part in kept.items()}
                for number, kept in enumerate(made._draw_ahead(made.step))
            ]
            rates = torch.tensor([group["lr"] for group in made.optimizer.param_groups], dtype=torch.float64)
            told = {"colours": given.colours, "number": given.number, "rates": rates, "labels": tiny_objective.LABELS}
            crops, places = inputs(given.crops, told | drawn[0] | drawn[1])
            first.extend([crops, *places.values()] if not first else [])
            assert all(map(operator.is_, first, [crops, *places.values()]))
            parts = [{key[2:]: places[key] for key in kept} for kept in drawn]
            labels = places["labels"] if method == "supervised" else None
            step, made.step = made.step, 0
            for group in made.optimizer.param_groups:
                group["lr"] = 1e6
            outcome = made._take(Given(crops, places["colours"], places["number"], parts, labels, places["rates"]))
            made.step = step
            return outcome

        made._taking = take
        return made

    plain, other = trainer("plain"), stuck(trainer("stuck"))
    for step in range(6):
        if step == 4:
            other.save()
            other.writer.join()
            other = stuck(trainer("stuck"))
            other.restore(tmp_path / "stuck/checkpoints/last.pth")
        for made in (plain, other):
            outcome = made._step(batch(step))
            made.step += 1
        assert outcome.lr == pytest.approx(0.05 * (1 + math.cos(math.pi * step / 8)) / 2)
        found = other.objective.state_dict()
        assert [key for key, part in plain.objective.state_dict().items() if not torch.equal(part, found[key])] == []


def test_inputs_keep_their_place_and_kind_until_a_shape_changes() -> None:
    inputs, told = Inputs(torch.device("cpu")), {"a": torch.tensor(True), "b": torch.arange(3.0, dtype=torch.float64)}
    pixels, places = inputs(torch.ones(2, 2), told | {"c": torch.empty(0, 4)})
    again, other = inputs(
        torch.zeros(2, 2), {"a": torch.tensor(False), "b": torch.ones(3).double(), "c": torch.empty(0, 4)}
    )
    assert again is pixels
    assert other is places
    assert (places["a"].item(), places["b"].tolist(), places["c"].shape) == (False, [1.0, 1.0, 1.0], (0, 4))
    assert inputs(torch.zeros(2, 3), told)[0] is not pixels


# ---- compiling ----


@pytest.fixture
def graphs(monkeypatch):
    """Compile without breaks, and count the graphs."""
    torch._dynamo.reset()
    made: list[torch.fx.GraphModule] = []

    def backend(graph, inputs):
        made.append(graph)
        return graph

    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_(self, backend=backend, fullgraph=True))
    return made


@pytest.mark.parametrize("method", names("pretrain.methods"))
def test_compiled_encoders_are_whole_graphs_that_know_no_step(settings, tmp_path, graphs, method) -> None:
    """Learning rate, schedules, queue pointer and masks move; the graphs of the first step serve the later ones."""
    run = settings.run.model_copy(update={"compile": True})
    label = "saliency" if method in ("moco", "simclr") else "mixmask"
    objective = tiny_objective.objective(method, {"b": tiny_objective.branch(label)}).float()
    made = Trainer(settings.model_copy(update={"run": run}), objective, range(64), tmp_path, torch.device("cpu"))
    made._prepare()
    counts = []
    for _ in range(4):
        made._step(batch())
        made.step += 1
        counts.append(len(graphs))
    assert counts[0] >= sum(name.endswith("_encoder") for name, _ in objective.method.named_children())
    assert set(counts[1:]) == {counts[1]} == {counts[0]}


@pytest.mark.parametrize("norm", ["separate", "auxiliary"])
def test_split_and_auxiliary_norms_compile_whole(norm) -> None:
    torch._dynamo.reset()
    objective = tiny_objective.objective("moco", {"b": tiny_objective.branch("mixmask")}, norm=norm).float()
    split(objective.method.query_encoder, 2)
    found = torch._dynamo.explain(objective.method.query_encoder)(torch.randn(8, 3, 16, 16))
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


@pytest.mark.parametrize("method", names("pretrain.methods"))
def test_the_losses_compile_whole_too(method) -> None:
    torch._dynamo.reset()
    made = tiny_objective.method(method)
    dim = 6 if method == "simsiam" else 4
    query, key = torch.randn(2, 8, dim, dtype=torch.float64)
    query.requires_grad_()
    partner, lam = torch.arange(8).flip(0), torch.rand(8, dtype=torch.float64)
    compiled = torch.compile(partial(mixed_loss, made), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(query, key, partner, lam), mixed_loss(made, query, key, partner, lam))


@pytest.mark.parametrize("label", MAKERS)
def test_a_worker_draws_ahead_all_that_a_branch_draws_and_the_same(label, monkeypatch) -> None:
    name, given = MAKERS[label]
    made = tiny_objective.objective("moco", {"b": tiny_objective.branch(name, **given)}, split_bn=2).float()
    views = [tuple(view.float() for view in tiny_objective.pair())]
    plain = made._terms(views, 5, 8, None, made.features)[0][-1].mixed
    kept = made.draw_ahead(8, 16, 5, 8)
    made_anew, generator = [], Draws._generator
    monkeypatch.setattr(Draws, "_generator", lambda self, *what: made_anew.append(what) or generator(self, *what))
    found = made._terms(views, 5, 8, kept, made.features)[0][-1].mixed
    noisy = name == "mscn" or given.get("fill") in (HIGH, {"name": "noise"})  # a CPU draws noise itself
    assert bool(made_anew) == noisy
    for field in ("partner", "lam", "mask") if noisy else plain._fields:
        one, other = getattr(plain, field), getattr(found, field)
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other
