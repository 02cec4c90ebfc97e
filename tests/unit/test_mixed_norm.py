"""Which statistics mixed views touch under each policy of batch norm, and which ones are exported."""

import copy
from typing import Any

import pytest
import torch
from tiny_objective import CLEAN, KEYS, Tiny, branch, method, objective, pair
from torch import Tensor, nn

from core.checkpoint import RUN, VERSION, query_backbone
from core.errors import InputError
from core.plugins import names
from pretrain.batchnorm import Auxiliary, add_auxiliary, split, through_auxiliary
from pretrain.branches import Branch
from pretrain.encoding import Encoding
from pretrain.objective import Objective
from transfer.convert import read


def statistics(network: nn.Module) -> dict[str, Tensor]:
    """Return copies of the running statistics, without the auxiliary ones."""
    found = network.state_dict()
    return {name: value.clone() for name, value in found.items() if "running" in name and ".auxiliary." not in name}


def other_views(norms: str, name: str, makers: dict[str, Branch], symmetric: bool) -> dict[str, Tensor]:
    """Return the query side's running statistics after one step."""
    made = objective(name, makers, 1.0, norms, symmetric=symmetric)
    made(*pair(), 3)
    return {k: v for k, v in statistics(made.method).items() if not k.startswith("key_encoder")}


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("label", names("pretrain.branches"))
@pytest.mark.parametrize("name", names("pretrain.methods"))
def test_auxiliary_norms_keep_mixed_views_out_of_the_clean_statistics(name: str, label: str, symmetric: bool) -> None:
    given = CLEAN if label == "saliency" and name in ("byol", "simsiam") else KEYS if label == "masked" else {}
    makers = {"b": branch(label, **given)}
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
