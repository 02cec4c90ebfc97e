"""Round trips are exact, and each library's own network takes what was written for it."""

import pytest
import timm
import torch
import torchvision
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from core.backbones.convnext import Convnext
from core.backbones.resnet import ResNet
from core.checkpoint import save_backbone
from core.files import FileError
from core.weights_file import read_weights_file
from transfer.convert.convert import convert
from transfer.convert.recipe import read


def randomised(network):
    """Give every tensor values of its own, so that a wrong name or shape shows in the features."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in network.state_dict().items():
        if name.endswith(("running_var", "layer_scale")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.05, generator=generator)
    return network


SLIM = {
    "resnet18": ({"name": "resnet", "depth": 18, "width": 8}, ResNet(ResNet.Config(depth=18, width=8))),
    "resnet101": ({"name": "resnet", "depth": 101, "width": 8}, ResNet(ResNet.Config(depth=101, width=8))),
    "convnext": (
        {"name": "convnext", "blocks": (1, 2, 1, 1), "width": 8},
        Convnext(Convnext.Config(blocks=(1, 2, 1, 1), width=8)),
    ),
}


@pytest.mark.parametrize("family", SLIM)
@pytest.mark.parametrize(
    ("target", "name"),
    [("detectron2", "x.pkl"), ("detectron2", "x.pth"), ("mmseg", "x.pth"), ("safetensors", "x.safetensors")],
)
def test_there_and_back_is_exact(tmp_path, family, target, name):
    config, network = SLIM[family]
    save_backbone(
        tmp_path / "a.pth", randomised(network).state_dict(), {"backbone": config, "method": {"name": "moco"}}
    )
    there = convert(tmp_path / "a.pth", tmp_path / name, target=target)
    back = convert(tmp_path / name, tmp_path / "back.safetensors", target="safetensors")
    file = read_weights_file(tmp_path / "back.safetensors")
    expected = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert file["state_dict"].keys() == expected.keys()
    assert all(torch.equal(file["state_dict"][key], expected[key]) for key in expected)
    assert there.tensors_sha256 == back.tensors_sha256
    assert max(there.max_abs_feature_difference.values()) <= 1e-5
    assert read(tmp_path / "back.safetensors").pretrain == read(tmp_path / name).pretrain
    assert read(tmp_path / name).pretrain["method"] == "moco"


def theirs(library, name):
    """Build a library's own ResNet-18 or slim ConvNeXt, randomly initialised."""
    if library == "torchvision" and name == "convnext":
        settings = [
            CNBlockConfig(8, 16, 1),
            CNBlockConfig(16, 32, 2),
            CNBlockConfig(32, 64, 1),
            CNBlockConfig(64, None, 1),
        ]
        return ConvNeXt(settings)
    if library == "torchvision":
        return torchvision.models.resnet18()
    sizes = {"depths": (1, 2, 1, 1), "dims": (8, 16, 32, 64)} if name == "convnext" else {}
    return timm.create_model("convnext_tiny" if sizes else "resnet18", pretrained=False, **sizes)


def last_stage(network, images):
    """Return what the fourth stage gives, of either library."""
    found = []
    parts = [part for name in ("layer4", "features", "stages") if (part := getattr(network, name, None)) is not None]
    parts[0].register_forward_hook(lambda _, __, output: found.append(output))
    with torch.no_grad():
        network.eval()(images)
    return found[0]


@pytest.mark.parametrize("name", ["resnet18", "convnext"])
def test_torchvision_takes_a_file_that_came_back_from_each_framework(tmp_path, name):
    model = randomised(theirs("torchvision", name))
    torch.save(model.state_dict(), tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "d2.pkl", target="detectron2")
    convert(tmp_path / "d2.pkl", tmp_path / "mm.pth", target="mmseg")
    proof = convert(tmp_path / "mm.pth", tmp_path / "tv.pth", target="torchvision")
    state = torch.load(tmp_path / "tv.pth", weights_only=True)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())
    missing, unexpected = theirs("torchvision", name).load_state_dict(state, strict=False)
    assert unexpected == []
    assert {key.split(".")[0] for key in missing if "num_batches" not in key} <= {"fc", "classifier"}
    assert [proof.source, proof.target] == ["mmseg", "torchvision"]


@pytest.mark.parametrize(("name", "file"), [("resnet18", "x.pth"), ("convnext", "x.safetensors")])
def test_timm_loads_a_converted_file_with_its_own_loader(tmp_path, name, file):
    from timm.models import load_checkpoint

    model = randomised(theirs("torchvision", name))
    torch.save(model.state_dict(), tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / file, target="timm")
    network = theirs("timm", name)
    load_checkpoint(network, str(tmp_path / file), strict=False)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = last_stage(model, images)
    assert (last_stage(network, images) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"features.0.0.weight": torch.ones(8, 1, 4, 4)}, r"its stem has shape \(8, 1, 4, 4\)"),
        ({"features.1.0.grn.gamma": torch.ones(1)}, "is a ConvNeXt V2"),
        (
            {"features.7.0.block.0.bias": torch.full((64,), float("inf"))},
            r"features\.7\.0\.block\.0\.bias holds NaN or inf",
        ),
        ({"features.3.1.layer_scale": torch.ones(5)}, r"features\.3\.1\.layer_scale has shape \(5, 1, 1\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_convnext_that_is_not_whole_is_refused(tmp_path, network, message):
    torch.save(SLIM["convnext"][1].state_dict() | network, tmp_path / "bad.pth")
    with pytest.raises(FileError, match=message):
        convert(tmp_path / "bad.pth", tmp_path / "x.pkl", target="detectron2")
    part = {key: value for key, value in SLIM["convnext"][1].state_dict().items() if "features.5" not in key}
    torch.save(part, tmp_path / "part.pth")
    with pytest.raises(FileError, match="lacks stage 3; save the whole backbone"):
        convert(tmp_path / "part.pth", tmp_path / "x.pkl", target="detectron2")
