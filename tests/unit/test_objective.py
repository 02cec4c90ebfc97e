"""The objective: its formula over batches, and norms of mixed views."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_objective import CLEAN, GRID, KEYS, LABELS, SMALL, Tiny, branch, method, objective, pair
from torch import Tensor, nn

from core import checkpoint
from core.backbones.resnet import ResNet
from core.checkpoint import RUN, VERSION, query_backbone
from core.errors import InputError
from core.plugins import names
from pretrain.batchnorm import Auxiliary, add_auxiliary, split, through_auxiliary
from pretrain.branches import Branch
from pretrain.encoding import Encoding
from pretrain.methods import MomentumMethod
from pretrain.objective import Objective
from pretrain.saliency import foreground
from pretrain.upload import can_compile
from transfer.convert import read

COSTS: list[tuple[str, bool, dict[str, dict[str, Any]], int, int, int]] = [  # ..., query and key forwards
        ("moco", False, {}, 1, 1, 1),
        ("moco", True, {}, 1, 2, 2),
        ("moco", False, {"mixmask": {}}, 1, 2, 1),  # the paper's cost: one forward more
        ("moco", True, {"mixmask": {}}, 1, 4, 2),
        ("moco", False, {"unmix": {}}, 1, 2, 1),
        ("moco", False, {"mixmask": {}, "unmix": {}}, 1, 3, 1),
        ("moco", False, {"mscn": {}}, 0, 1, 1),
        ("moco", True, {"mscn": {}}, 0, 2, 2),  # both views are masked once and read both ways
        ("moco", False, {"mscn": {"sides": "query"}}, 1, 2, 1),
        ("moco", False, {"saliency": {}}, 0, 1, 4),  # key, hard negative, and two looks for saliency
        ("moco", False, {"saliency": CLEAN}, 0, 1, 2),
        ("moco", False, {"mixsiam": {}}, 1, 2, 2),
        ("moco", True, {"mixsiam": {}}, 1, 3, 2),
        ("moco", False, {"masked": {}}, 1, 2, 1),
        ("moco", False, {"masked": {"sides": "key"}}, 1, 1, 2),
        ("moco", False, {"masked": KEYS}, 1, 2, 2),
        ("moco", False, {"mixmask": {"mask": {"name": "balanced", "cells": 4, "saliency": {"stage": 1}}}}, 1, 2, 2),
        ("byol", True, {}, 1, 2, 2),
        ("byol", True, {"mixmask": {}}, 1, 4, 2),
        ("byol", True, {"mixsiam": {}}, 1, 3, 2),
        ("byol", False, {"mscn": {}}, 1, 2, 2),
        ("simsiam", True, {}, 1, 2, 0),
        ("simsiam", False, {}, 1, 1, 1),
        ("simsiam", True, {"mixsiam": {}}, 1, 3, 0),
        ("simsiam", True, {"mixmask": {}}, 1, 4, 0),
        ("simsiam", True, {"mscn": {}}, 0, 2, 0),
        ("simsiam", True, {"masked": {"sides": "key"}}, 1, 2, 2),
        ("simsiam", True, {"mscn": {"sides": "query"}}, 0, 2, 2),
        ("simsiam", True, {"saliency": CLEAN}, 1, 4, 2),
        ("simclr", True, {}, 1, 2, 0),
        ("simclr", True, {"mixmask": {}}, 1, 4, 0),
        ("simclr", True, {"mixmask": {}, "unmix": {}}, 1, 6, 0),
        ("simclr", False, {"saliency": {}}, 0, 3, 2),
]  # fmt: skip


def _trains_auxiliary(makers: dict[str, dict[str, Any]], weight: int) -> bool:
    """Tell whether auxiliary norms make sense; where they do not they are refused, below."""
    return bool(weight) and any(given.get("sides") != "key" for given in makers.values())


@pytest.mark.parametrize(
    ("name", "symmetric", "makers", "weight", "query", "key", "norm"),
    [
        (*cost, norm)
        for cost in COSTS
        for norm in ("separate", "joint", "auxiliary")
        if norm != "auxiliary" or _trains_auxiliary(*cost[2:4])
    ],
)
def test_forwards_a_step(
    name: str, symmetric: bool, makers: dict, weight: int, query: int, key: int, norm: str
) -> None:
    made = objective(
        name, {label: branch(label, **given) for label, given in makers.items()}, weight, norm, symmetric=symmetric
    )
    ran = {"query": 0, "key": 0}
    sides = {"query": made.method.query_encoder, "key": getattr(made.method, "key_encoder", None)}
    for side, encoder in sides.items():
        if encoder is not None:
            encoder.backbone.conv1.register_forward_pre_hook(
                lambda module, inputs, side=side: ran.update({side: ran[side] + len(inputs[0]) // 8})
            )
    scored = made(*pair(), 3)
    assert made.forwards == {"query": query, "key": key}
    assert ran == ({"query": query + key, "key": 0} if sides["key"] is None else made.forwards)
    assert torch.isfinite(scored.loss)
    labels = ([] if not weight else ["plain"]) + list(makers)
    assert {part for part in scored.parts if part.startswith("loss/")} == {f"loss/{label}" for label in labels}


def test_weights_multiply_parts_and_parts_are_logged_bare() -> None:
    makers = {"one": branch("mixmask", weight=0.25), "two": branch("unmix", weight=3.0)}
    scored = objective("moco", makers, 2.0)(*pair(), 3)
    parts = scored.parts
    wanted = 2 * parts["loss/plain"] + 0.25 * parts["loss/one"] + 3 * parts["loss/two"]
    torch.testing.assert_close(scored.loss.detach(), wanted)
    assert not any(value.requires_grad for value in parts.values())


@pytest.mark.parametrize("name", ["moco", "byol"])
def test_the_keys_to_remember_are_those_of_the_clean_view_where_there_is_one(name: str) -> None:
    first, second = pair()
    for makers, clean in (
        ({"b": branch("mixmask")}, True), ({"b": branch("mscn", sides="query")}, True), ({"b": branch("mscn")}, False),
        ({"b": branch("saliency", **({} if name == "moco" else CLEAN))}, True), ({"b": branch("mixsiam")}, True),
    ):  # fmt: skip
        made = objective(name, makers, 0.0, symmetric=False)
        scored = made(first, second, 3)
        assert isinstance(made.method, MomentumMethod)
        wanted = made.method.key_encoder(second)
        assert len(scored.keys) == 1
        assert torch.allclose(scored.keys[0], wanted) == clean
        assert not scored.keys[0].requires_grad


REFUSALS = [
    ("hard negatives need a method with negatives", lambda: objective("byol", {"b": branch("saliency")})),
    (r"branches\.b\.hard_negatives=false", lambda: objective("simsiam", {"b": branch("saliency")})),
    ("auxiliary with plain_weight=0", lambda: objective("moco", {"b": branch("mixmask")}, 0.0, "auxiliary")),
    ("a key of two images is no target", lambda: branch("masked", fill={"name": "partner"}, sides="key")),
    ("set sides=query", lambda: branch("masked", fill={"name": "partner"}, sides="both")),
    ("MSCN erases", lambda: branch("mscn", fill={"name": "partner"})),
    (r"take mixmask\b.*mask\.name=balanced", lambda: branch("saliency", fill={"name": "partner"})),
    ("set scope=image", lambda: branch("mixmask", mask={"name": "balanced", "cells": 4}, scope="batch")),
    ("^partner=reverse: the middle of 5 images would mix with itself", lambda: branch("mixmask").check(16, 5)),
    ("the middle of 5 images", lambda: branch("unmix").check(16, 5)),
    (r"fill\.order=reverse: the middle .* fill\.order=shuffle", lambda: branch("masked", fill={"name": "partner"}).check(16, 5)),
    ("mixing needs a partner", lambda: branch("unmix", partner="shuffle").check(16, 1)),
    ("high_pass_kernel=33 is too large for 16 px", lambda: branch("mscn", high_pass_kernel=33).check(16, 4)),
    (r"fill\.kernel=33 is too large for 16 px", lambda: branch("saliency", fill={"name": "blur", "kernel": 33}).check(16, 4)),
    (r"fill\.kernel=33 is too large", lambda: branch("masked", fill={"name": "highpass", "kernel": 33}).check(16, 4)),
    ("a grid of 4 cells does not fit 18 px", lambda: branch("mixmask").check(18, 4)),
    ("a grid of 4 cells does not fit 18 px", lambda: branch("saliency").check(18, 4)),
    ("a grid of 4 cells does not fit 18 px", lambda: branch("masked").check(18, 4)),
    ("a grid of 4 px cells does not fit 18 px", lambda: branch("mscn").check(18, 4)),
    ("a 2x2 grid cannot hide exactly 0.05 to 0.2", lambda: branch("mscn", ratio=[0.05, 0.2]).check(8, 4)),
    ("a 4x4 grid cannot hide exactly 0.3", lambda: branch("mixmask", mask=GRID | {"ratio": 0.3})),
    ("a 4x4 grid cannot hide exactly 0.01 to 0.02", lambda: branch("saliency", ratio=[0.01, 0.02])),
    *(("leave fewer than 2 to normalise", lambda name=name: method(name).check(1)) for name in SMALL),
]  # fmt: skip


@pytest.mark.parametrize(("message", "mistake"), REFUSALS)
def test_what_makes_no_sense_is_refused_with_the_reason(message: str, mistake: Any) -> None:
    with pytest.raises(InputError, match=message):
        mistake()


def test_what_the_refusals_advise_is_accepted() -> None:
    objective("byol", {"b": branch("saliency", hard_negatives=False)})
    branch("masked", fill={"name": "partner"}).check(16, 4)
    branch("masked", fill={"name": "partner", "order": "shuffle"}).check(16, 5)
    branch("mixmask", partner="shuffle").check(16, 5)
    branch("mscn", high_pass_kernel=31).check(16, 4)
    branch("mscn", cell=8, ratio=[0.05, 0.2], focal_share=1.0).check(16, 4)  # no grid is drawn
    for name in SMALL:
        method(name).check(2)


def test_a_given_network_finds_the_objects_is_counted_and_learns_nothing(tmp_path: Path) -> None:
    network = ResNet(ResNet.Config(depth=18, width=4))
    weights = {f"query_encoder.backbone.{name}": value for name, value in network.state_dict().items()}
    config = {"backbone": {"name": "resnet", "depth": 18, "width": 4}}
    state = {"format": checkpoint.RUN, "version": checkpoint.VERSION, "config": config, "method": weights}
    checkpoint.save(tmp_path / "last.pth", state)
    looks = {"network": tmp_path / "last.pth", "stage": 2}
    made = objective("moco", {"b": branch("saliency", saliency=looks)}, 0).float()
    query, key = (view.float() for view in pair())
    scored = made(query, key, 3)
    assert made.forwards == {"query": 1, "key": 4}  # key, hard negative, and two looks through the network
    attention = made.branches["b"].attention
    maps = network.eval().stages(query)[1].sum(dim=1, keepdim=True)
    maps = torch.nn.functional.interpolate(maps, (4, 4), mode="bilinear", antialias=True)
    assert torch.equal(attention.foreground(query, made.features, 4), foreground(maps[:, 0], 0.6))
    scored.loss.backward()
    assert all(parameter.grad is None for parameter in attention._network.parameters())


def test_a_map_of_one_cell_is_refused() -> None:
    made = objective("moco", {"b": branch("saliency")}, 0)
    made.features = lambda images, stage, network: torch.zeros(len(images), 4, 1, 1)
    with pytest.raises(InputError, match=r"saliency\.stage=1: the feature map of 16 px images is a single cell"):
        made(*pair(), 3)


def statistics(network: nn.Module) -> dict[str, Tensor]:
    """Return copies of the running statistics, without the auxiliary ones."""
    found = network.state_dict()
    return {name: value.clone() for name, value in found.items() if "running" in name and ".auxiliary." not in name}


def other_views(norms: str, name: str, makers: dict[str, Branch], symmetric: bool) -> dict[str, Tensor]:
    """Return the query side's running statistics after one step."""
    made = objective(name, makers, 1.0, norms, **({} if name == "supervised" else {"symmetric": symmetric}))
    made(*pair(), 3, labels=LABELS)
    return {k: v for k, v in statistics(made.method).items() if not k.startswith("key_encoder")}


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("label", names("pretrain.branches"))
@pytest.mark.parametrize("name", names("pretrain.methods"))
def test_auxiliary_norms_keep_mixed_views_out_of_the_clean_statistics(name: str, label: str, symmetric: bool) -> None:
    given = CLEAN if label == "saliency" and name not in ("moco", "simclr") else KEYS if label == "masked" else {}
    makers = {"b": branch(label, **given)}
    if name == "supervised" and makers["b"].needs_keys:
        with pytest.raises(
            InputError, match=rf"branches\.b: {label} compares .* the key of supervised is a label; use mixmask"
        ):
            objective(name, makers)
        return
    plain = other_views("separate", name, {}, symmetric)
    apart, together = (other_views(norms, name, makers, symmetric) for norms in ("auxiliary", "separate"))
    assert plain.keys() == apart.keys() == together.keys()
    assert all(torch.equal(plain[k], apart[k]) for k in plain)
    assert not all(torch.equal(plain[k], together[k]) for k in plain)


def test_auxiliary_norms_have_scales_and_statistics_of_their_own_that_learn() -> None:
    made = objective("byol", {"b": branch("mixmask")}, 1.0, "auxiliary")
    norms = {k: m for k, m in made.method.named_modules() if isinstance(m, Auxiliary)}
    assert {name for name in norms if not name.startswith("key")} == {
        "query_encoder.backbone.bn1", "query_encoder.projector.1", "predictor.1",
    }  # fmt: skip
    made(*pair(), 3).loss.backward()
    for name, norm in norms.items():
        extra = norm.auxiliary
        assert isinstance(extra, nn.modules.batchnorm._BatchNorm)
        if not name.startswith("key"):
            assert extra.weight is not norm.weight
            assert extra.weight.grad.abs().sum() > 0
            assert norm.weight.grad.abs().sum() > 0
            assert not torch.equal(extra.running_mean, norm.running_mean)
            assert extra.num_batches_tracked == norm.num_batches_tracked == 2
    made.method.begin_step(0.5)  # encoder and momentum encoder still match tensor by tensor


def test_auxiliary_queries_are_normalised_by_the_auxiliary_scales() -> None:
    made = objective("moco", {"b": branch("mixmask")}, 1.0, "auxiliary")
    with torch.no_grad():
        made.method.query_encoder.backbone.bn1.auxiliary.weight.mul_(3)
    bare = objective("moco", {"b": branch("mixmask")}, 1.0, "separate")
    parts, plain = made(*pair(), 3).parts, bare(*pair(), 3).parts
    assert parts["loss/plain"] == plain["loss/plain"]
    assert abs(parts["loss/b"] - plain["loss/b"]) > 1e-3
    with torch.no_grad():
        bare.method.query_encoder.backbone.bn1.weight.mul_(3)
    assert bare(*pair(), 3).parts["loss/b"] == parts["loss/b"]


def test_auxiliary_norms_split_like_the_ones_they_stand_beside() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3)).double()
    split(network, 4)
    add_auxiliary(network)
    images = pair()[0] + torch.arange(8).view(8, 1, 1, 1)
    with through_auxiliary(network):
        found = network(images)
    bare = nn.BatchNorm2d(3).double()
    torch.testing.assert_close(found, torch.cat([bare(part) for part in images.chunk(4)]))
    assert network[0].running_mean.abs().max() == 0
    assert network[0].auxiliary.running_mean.abs().min() > 0
    assert torch.equal(copy.deepcopy(network).state_dict()["0.auxiliary.running_var"], network[0].auxiliary.running_var)


def test_auxiliary_norms_are_left_also_after_an_error() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3))
    add_auxiliary(network)
    with pytest.raises(ValueError, match="stop"), through_auxiliary(network):
        raise ValueError("stop")
    assert not network[0].through_auxiliary


@pytest.mark.parametrize("makers", [{}, {"b": branch("masked", sides="key")}])
def test_auxiliary_norms_that_no_query_would_train_are_refused(makers: dict[str, Branch]) -> None:
    with pytest.raises(InputError, match=r"without a branch that changes the query view: .* set mixed_norm=separate"):
        objective("moco", makers, 1.0, "auxiliary")


def saved(made: Objective) -> dict[str, Any]:
    """Return what a run's checkpoint holds of its networks."""
    return {"format": RUN, "version": VERSION, "config": {}, "method": made.method.state_dict()}


@pytest.mark.parametrize("norm", ["separate", "joint", "auxiliary"])
def test_an_exported_backbone_has_the_plain_names_and_the_clean_statistics(norm: str) -> None:
    made = objective("moco", {"b": branch("mixmask")}, 1.0, norm)
    made(*pair(), 3)
    state = saved(made)
    assert any(".auxiliary." in name for name in state["method"]) == (norm == "auxiliary")
    taken = query_backbone(state)
    Tiny().load_state_dict(taken)
    backbone, dropped = read.split(read.Contents(state, "run.pth"), read.find("ours"), "ours")
    assert backbone.keys() == taken.keys()
    assert backbone.keys() | dropped.keys() == taken.keys() | {
        name for name in state["method"] if name.removeprefix("query_encoder.backbone.") not in taken
    }
    images = made.method.query_encoder.backbone.conv1(pair()[0]).detach()
    clean = images.mean(dim=(0, 2, 3)) / 10  # momentum 0.1 from zero
    assert torch.allclose(taken["bn1.running_mean"], clean) == (norm == "auxiliary")


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("views", [1, 2, 3])
def test_joint_norms_see_the_rows_of_all_views_of_a_group_together(groups: int, views: int) -> None:
    made = method("moco", split_bn=groups)
    batches = [number + factor * pair()[0] for number, factor in enumerate((1.0, 2.0, 3.0))][:views]
    encoding = Encoding(made, "joint", {"query": 0, "key": 0}, {})
    encoding.encode_queries(batches)
    bare = copy.deepcopy(made.query_encoder)
    split_off = [module for module in bare.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in split_off:
        module.parts = 1  # type: ignore[assignment]
    share = 8 // groups
    for group in range(groups):
        mine = slice(group * share, (group + 1) * share)
        wanted = bare(torch.cat([batch[mine] for batch in batches])).chunk(views)
        for batch, expected in zip(batches, wanted, strict=True):
            torch.testing.assert_close(encoding.query(batch)[mine], expected)
    assert encoding.forwards["query"] == views


def test_joint_norms_update_running_statistics_once_by_all_rows() -> None:
    made = objective("moco", {"b": branch("unmix", mixup_probability=1.0)}, 1.0, "joint")
    made(*pair(), 3)
    norm = made.method.query_encoder.backbone.bn1
    assert norm.num_batches_tracked == 1
    alone = objective("moco", {"b": branch("unmix", mixup_probability=1.0)})
    alone(*pair(), 3)
    assert alone.method.query_encoder.backbone.bn1.num_batches_tracked == 2


def test_joint_and_separate_differ_and_joint_takes_channels_last_views() -> None:
    losses = {}
    for norm in ("separate", "joint"):
        for form in (torch.contiguous_format, torch.channels_last):
            made = objective("simclr", {"b": branch("mixmask")}, 1.0, norm)
            views = [view.contiguous(memory_format=form) for view in pair()]
            losses[norm, form] = made(*views, 3).loss.item()
    assert losses["joint", torch.contiguous_format] == pytest.approx(losses["joint", torch.channels_last], rel=1e-9)
    assert abs(losses["joint", torch.contiguous_format] - losses["separate", torch.contiguous_format]) > 1e-3


def test_saliency_looks_without_touching_statistics_or_mode() -> None:
    made = objective("simsiam", {})
    before, backbone = statistics(made.method), made.method.query_encoder.backbone
    maps = made.features(pair()[0], 1)
    assert not maps.requires_grad
    assert backbone.training
    assert all(torch.equal(value, statistics(made.method)[name]) for name, value in before.items())
    with torch.no_grad():
        torch.testing.assert_close(maps, backbone.eval().stages(pair()[0])[0])


def test_without_a_compiler_or_triton_nothing_is_compiled(monkeypatch):
    for missing in ("which", "find_spec"):
        with monkeypatch.context() as without:
            place = "shutil.which" if missing == "which" else "importlib.util.find_spec"
            without.setattr(place, lambda name: None)
            assert not can_compile.__wrapped__()
