"""Conversion: what is carried over, proven and refused, and back again; what silently did not load is found."""

import dataclasses
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from made_results import result as measured
from made_results import write
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

import masktransfer
from core.backbones.convnext import Convnext
from core.backbones.resnet import ResNet
from core.checkpoint import RUN, save_backbone
from core.errors import InputError
from core.files import FileError
from core.weights_file import read_weights_file
from transfer.convert import write as writing
from transfer.convert.convert import convert, table
from transfer.convert.load_check import LoadError, compare, inside
from transfer.convert.read import read as read_checkpoint
from transfer.convert.recipe import Recipe, read
from transfer.convert.targets import MMDET, TARGETS


def moco_release(depth: int) -> dict:
    """Lay tensors out as MoCo's and MixMask's releases do."""
    network = getattr(torchvision.models, f"resnet{depth}")(num_classes=128)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # fresh statistics are all zeros and ones and would prove nothing
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    state = network.state_dict()
    both = {f"module.encoder_{side}.{key}": value for side in "qk" for key, value in state.items()}
    both |= {"module.queue": torch.randn(128, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    return {"epoch": 200, "arch": f"resnet{depth}", "state_dict": both, "optimizer": {}}


def usual_name(key: str) -> str:
    """The field's usual renaming, written as MoCo's detection script describes it: one replacement after another."""
    if "layer" not in key:
        key = "stem." + key
    for number in (1, 2, 3, 4):
        key = key.replace(f"layer{number}", f"res{number + 1}")
    for number in (1, 2, 3):
        key = key.replace(f"bn{number}", f"conv{number}.norm")
    return key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


@pytest.mark.parametrize(
    "said",
    [
        {"branches": {"a": 1.0}},
        {"branches": {"a": {"name": 3}}},
        {"method": {"name": ["moco"]}},
        {"method": None},
        {"data": {"name": float("nan")}},
        {"train": {"batch_size": "8" * 2**21}},
    ],
)
def test_what_a_run_says_of_itself_in_odd_values_is_left_out_and_its_backbone_is_carried(tmp_path, said):
    shape = {"name": "resnet", "depth": 18, "width": 4, "stem": "imagenet"}
    method = {f"query_encoder.backbone.{k}": v for k, v in ResNet(ResNet.Config(**shape)).state_dict().items()}
    state = {"format": RUN, "version": 1, "config": {"backbone": shape, **said}, "progress": {}, "method": method}
    torch.save(state, tmp_path / "run.pth")
    assert convert(tmp_path / "run.pth", tmp_path / "out.pth", target="classification").recipe["pretrain"] == {}


@pytest.mark.parametrize(("depth", "count"), [(18, 100), (34, 180), (50, 265)])
def test_a_moco_release_becomes_the_usual_detectron2_tensors_with_equal_features(tmp_path, depth, count):
    checkpoint = moco_release(depth)
    torch.save(checkpoint, tmp_path / "moco.pth")
    proof = convert(tmp_path / "moco.pth", tmp_path / "out.pkl", target="detectron2")
    file = read_weights_file(tmp_path / "out.pkl")
    expected = {
        usual_name(key.removeprefix("module.encoder_q.")): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith("module.encoder_q.") and ".fc." not in key and "num_batches" not in key
    }
    assert file["model"].keys() == expected.keys()
    assert all(torch.equal(torch.as_tensor(file["model"][key]), expected[key]) for key in expected)
    assert (proof.tensors_mapped, proof.tensors_expected, proof.source, proof.arch) == (
        count, count, "moco", f"resnet{depth}",
    )  # fmt: skip
    assert max(proof.max_abs_feature_difference.values()) < 1e-5
    assert list(proof.max_abs_feature_difference) == ["layer1", "layer2", "layer3", "layer4"]
    assert (file["__author__"], file["matching_heuristics"]) == ("masktransfer", True)
    assert proof.dropped["module.queue"] == "not of the query backbone"
    assert proof.dropped["module.encoder_q.fc.weight"] == "projector or classifier"
    again = convert(tmp_path / "moco.pth", tmp_path / "out.pth", target="mmseg")  # which has torchvision's names
    held = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    assert all(torch.equal(t, checkpoint["state_dict"][f"module.encoder_q.{key}"]) for key, t in held.items())
    assert (len(held), max(again.max_abs_feature_difference.values()) < 1e-5) == (count, True)


def test_the_recipe_inside_the_file_tells_how_to_use_it(tmp_path):
    network = ResNet(ResNet.Config(depth=18, width=8))
    save_backbone(tmp_path / "a.pth", network.state_dict(), {"backbone": {"name": "resnet", "depth": 18, "width": 8}})
    for name, target in (("a.pkl", "detectron2"), ("b.pth", "detectron2"), ("c.pth", "mmseg")):
        proof = convert(tmp_path / "a.pth", tmp_path / name, target=target)
        recipe = read(tmp_path / name)
        assert recipe == Recipe(
            depth=18, width=8, source="ours", source_sha256=proof.source_sha256,
            pretrain=dict.fromkeys(("dataset", "batch_size", "forwards_per_step"))
            | {"method": "random", "branches": [], "epochs": 0, "steps": 0},
        )  # fmt: skip


def backbone(**changes) -> dict:
    state = dict(ResNet(ResNet.Config(depth=18, width=8)).state_dict())
    for key, value in changes.items():
        key = key.replace("__", ".")
        if value is None:
            state = {name: tensor for name, tensor in state.items() if not name.startswith(key)}
        else:
            state[key] = value
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (backbone(layer4=None), "lacks layer4; save the whole backbone"),
        (backbone(layer3__0__bn1__weight=None), r"lacks 1 of 100 backbone tensors, first layer3\.0\.bn1\.weight"),
        (backbone(layer1__0__conv1__weight=torch.ones(8, 8, 3, 3).mT[:, :, :2]), r"layer1\.0\.conv1\.weight has shape"),
        (backbone(layer2__0__bn1__bias=torch.full((16,), float("nan"))), r"layer2\.0\.bn1\.bias holds NaN"),
        (backbone(conv1__weight=torch.ones(8, 1, 7, 7)), r"takes 1 channel\(s\), not 3"),
        (backbone(conv1__weight=torch.ones(8, 3, 3, 3)), "has the 3x3 CIFAR stem"),
        (backbone(conv1=None), r"has no ResNet stem \(conv1\.weight\)"),
        (backbone(layer1__7__conv1__weight=torch.ones(1)), "is no ResNet-18/34/50/101"),
        (backbone(conv1__weight=torch.ones(7, 7, 3, 8)), r"shape \(7, 7, 3, 8\), transposed as in TensorFlow and JAX"),
        (
            backbone(layer3__0__conv1__weight=torch.ones(16, 32, 3, 3)),
            r"layer3\.0\.conv1\.weight has shape \(16, 32, 3, 3\), expected \(32, 16, 3, 3\) \(transposed\?\)",
        ),
        (
            backbone(conv1__weight=torch.ones(8, 3, 7, 7, dtype=torch.int8)),
            r"conv1\.weight is torch\.int8, not floating",
        ),
        (
            backbone(layer2__0__bn1__bias=None, layer2__0__norm1__bias=torch.zeros(16)),
            r"first layer2\.0\.bn1\.bias, and has 1 unknown, first layer2\.0\.norm1\.bias: are they renamed\?",
        ),
        (backbone(layer1=None), r"lacks the first block of a ResNet \(layer1\.0\.conv1\.weight\)"),
        (
            {"projector.0.weight": torch.ones(2, 2)},
            r"no backbone in a known layout \(no convolution, only a projector or classifier, first keys: projector",
        ),
        (
            {"state_dict": {"module.encoder_q.fc.0.weight": torch.ones(2, 2)}},
            "holds no backbone, only a projector or classifier",
        ),
        (
            {"cls_token": torch.ones(1), "blocks.0.attn.qkv.weight": torch.ones(1)},
            "known layout .a transformer, first keys: cls_token, .*; only ConvNets are carried",
        ),
        (
            {
                "state_dict": {
                    "module.base_encoder.blocks.0.attn.qkv.weight": torch.ones(1),
                    "momentum_encoder.x": torch.ones(1),
                }
            },
            r"no network of a known family \(a transformer, .*known: convnext, resnet",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_checkpoint_that_is_not_whole_is_refused_and_nothing_is_written(tmp_path, state, message):
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(FileError if "known" not in message and "CIFAR" not in message else ValueError, match=message):
        convert(tmp_path / "bad.pth", tmp_path / "out" / "x.pkl", target="detectron2")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_half_precision_is_widened_and_said(tmp_path):
    torch.save(
        {key: value.half() if value.is_floating_point() else value for key, value in backbone().items()},
        tmp_path / "h.pth",
    )
    proof = convert(tmp_path / "h.pth", tmp_path / "h.pkl", target="detectron2")
    assert proof.notes[0] == "float16 tensors widened to float32"
    assert proof.notes[1].startswith("the file does not name its architecture: resnet18-width8 is assumed")
    torch.save({key: value.double() for key, value in backbone().items()}, tmp_path / "d.pth")
    proof = convert(tmp_path / "d.pth", tmp_path / "d.pkl", target="detectron2")
    assert proof.notes[0] == "float64 tensors narrowed (values are rounded) to float32"


def test_another_architecture_than_asked_for_is_refused(tmp_path):
    torch.save(backbone(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds a resnet18-width8, not a resnet50"):
        convert(tmp_path / "a.pth", tmp_path / "a.pkl", target="detectron2", arch="resnet50")


def test_a_wrong_dialect_or_suffix_is_refused(tmp_path):
    torch.save(backbone(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="is not in the layout of moco"):
        convert(tmp_path / "a.pth", tmp_path / "a.pkl", target="detectron2", dialect="moco")
    with pytest.raises(ValueError, match=r"no target 'mmsegmentation'.*did you mean 'mmseg'"):
        convert(tmp_path / "a.pth", tmp_path / "a.pkl", target="mmsegmentation")
    with pytest.raises(ValueError, match=r"must end in \.pth for mmseg"):
        convert(tmp_path / "a.pth", tmp_path / "a.pkl", target="mmseg")


@pytest.mark.parametrize("target", ["torchvision", "timm"])
def test_a_slim_resnet_has_no_place_in_torchvision_and_timm(tmp_path, target):
    torch.save(backbone(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=rf"is of width 8, {target}'s ResNets of 64; use --target safetensors"):
        convert(tmp_path / "a.pth", tmp_path / "x.pth", target=target)


def test_safetensors_holds_the_stems_that_no_framework_has(tmp_path):
    config = {"name": "resnet", "depth": 18, "width": 8, "stem": "cifar"}
    network = ResNet(ResNet.Config.model_validate(config))
    save_backbone(tmp_path / "a.pth", network.state_dict(), {"backbone": config})
    convert(tmp_path / "a.pth", tmp_path / "a.safetensors", target="safetensors")
    assert read(tmp_path / "a.safetensors").stem == "cifar"


def test_the_proof_has_a_line_a_stage_and_hashes_that_can_be_checked(tmp_path):
    network = ResNet(ResNet.Config(depth=18, width=8))
    torch.save(network.state_dict(), tmp_path / "a.pth")
    proof = convert(tmp_path / "a.pth", tmp_path / "a.pkl", target="detectron2").to_dict()
    assert json.loads(json.dumps(proof)) == proof
    assert [row["stage"] for row in proof["stages"]] == ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert [row["tensors"] for row in proof["stages"]] == [5, 20, 25, 25, 25]
    weights = sum(v.numel() for k, v in network.state_dict().items() if "num_batches" not in k)
    assert sum(row["parameters"] for row in proof["stages"]) == weights
    assert proof["stages"][0]["max_abs_feature_difference"] is None
    assert proof["stages"][4]["max_abs_feature_difference"] == proof["max_abs_feature_difference"]["layer4"]
    for key, file in (("sha256", "a.pkl"), ("source_sha256", "a.pth")):
        assert proof[key] == hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
    assert proof["dropped"]["bn1.num_batches_tracked"] == "a counter, not a weight"


def test_the_table_shows_every_stage_what_was_dropped_and_the_hashes(tmp_path):
    state = backbone() | {"fc.weight": torch.ones(2, 64), "fc.bias": torch.ones(2)}
    torch.save(state, tmp_path / "a.pth")
    proof = convert(tmp_path / "a.pth", tmp_path / "a.safetensors", target="safetensors")
    lines = table(proof).splitlines()
    assert [line.split()[0] for line in lines[:7]] == ["stage", "stem", "stage1", "stage2", "stage3", "stage4", "all"]
    assert lines[2].split()[1:3] == ["20", "2,432"]  # two blocks of 2 convolutions 8x8x3x3 and 2 norms of 4x8
    assert lines[2].split()[4] == "0.0e+00"
    assert "  dropped 2: projector or classifier" in lines
    assert "  dropped 20: a counter, not a weight" in lines
    assert lines[-1] == f"  sha256 of the output: {proof.sha256}"


def test_a_network_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    torch.save(backbone(), tmp_path / "a.pth")
    honest = TARGETS["detectron2"].stages
    altered = dataclasses.replace(
        TARGETS["detectron2"], stages=lambda *args: [features * 1.001 for features in honest(*args)]
    )
    monkeypatch.setitem(TARGETS, "detectron2", altered)
    with pytest.raises(FileError, match=r"features of layer1 differ by .*; nothing was written"):
        convert(tmp_path / "a.pth", tmp_path / "out" / "a.pkl", target="detectron2")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_is_written_wrongly_is_not_kept(tmp_path, monkeypatch):
    torch.save(backbone(), tmp_path / "a.pth")
    monkeypatch.setattr(writing, "unpack", lambda _, file: file["state_dict"] | {"layer4.1.bn2.bias": torch.ones(64)})
    with pytest.raises(FileError, match=r"layer4\.1\.bn2\.bias is not the same when read back"):
        convert(tmp_path / "a.pth", tmp_path / "out" / "a.safetensors", target="safetensors")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_output_that_cannot_be_written_is_one_line(tmp_path):
    torch.save(backbone(), tmp_path / "a.pth")
    (tmp_path / "file").write_text("")
    (tmp_path / "taken.pkl").mkdir()
    for output in (tmp_path / "file" / "x.pkl", tmp_path / "taken.pkl"):
        with pytest.raises(FileError, match=r"cannot write .*choose another output"):
            convert(tmp_path / "a.pth", output, target="detectron2")
    with pytest.raises(ValueError, match="is the input itself"):
        convert(tmp_path / "a.pth", tmp_path / "a.pth", target="mmseg")
    assert {path.name for path in tmp_path.iterdir()} == {"a.pth", "file", "taken.pkl"}


def test_the_load_check_names_the_first_tensor_that_differs():
    expected = {"a": torch.ones(2), "b": torch.zeros(3)}
    assert compare({"a": torch.ones(2), "b": torch.zeros(3), "c": torch.ones(1)}, expected) == 2
    with pytest.raises(LoadError, match="b differs"):
        compare({"a": torch.ones(2), "b": torch.full((3,), 1e-7)}, expected)
    with pytest.raises(LoadError, match="b of my file is not in the network"):
        compare({"a": torch.ones(2)}, expected, "my file")
    with pytest.raises(LoadError, match=r"a has shape \(3,\) in the network and \(2,\)"):
        compare({"a": torch.ones(3)}, expected)
    with pytest.raises(LoadError, match="holds no backbone tensor"):
        compare({"a": torch.ones(2)}, {})


def test_the_tool_writes_a_proof_and_exits_2_on_a_bad_file(tmp_path, run_tool):
    torch.save(backbone(), tmp_path / "a.pth")
    run_tool("tools/convert_to_d2.py", "a.pth", "a.pkl", "--json", "proof.json")
    assert json.loads((tmp_path / "proof.json").read_text())["tensors_mapped"] == 100
    torch.save({"projector.weight": torch.ones(2)}, tmp_path / "bad.pth")
    done = run_tool("tools/convert_to_d2.py", "bad.pth", "bad.pkl", check=2)
    assert done.stderr.strip().splitlines()[-1].startswith("error: bad.pth holds no backbone")
    assert not (tmp_path / "bad.pkl").exists()


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
            CNBlockConfig(8, 16, 1), CNBlockConfig(16, 32, 2), CNBlockConfig(32, 64, 1), CNBlockConfig(64, None, 1),
        ]  # fmt: skip
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


ATTACK = "<script>|`x`\n# y"
NETWORKS = {
    "mobilenetv2_050": lambda: timm.create_model("mobilenetv2_050", pretrained=False),
    "convnext": lambda: theirs("timm", "convnext"),
    "resnet18": lambda: theirs("torchvision", "resnet18"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_for_the_hub_is_built_and_loaded_by_timm_and_read_back_here(tmp_path, name):
    network = randomised(NETWORKS[name]())
    torch.save(
        {"epoch": 3, "arch": ATTACK, "state_dict": {f"encoder_q.{k}": v for k, v in network.state_dict().items()}},
        tmp_path / "a.pth",
    )
    source, folder = tmp_path / "a.pth", tmp_path / f"{name}.mine"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    for trial, value in enumerate((10.0, 12.0)):
        write(
            tmp_path / "results" / str(trial),
            measured(
                name="mine", trial=trial, metrics={"bbox/AP": value}, checkpoint={"name": "mine", "sha256": digest}
            ),
        )
    write(tmp_path / "results" / "other", measured(name="other", metrics={"bbox/AP": 99.0}))
    proof = masktransfer.convert(source, folder, target="hf", results=[tmp_path / "results"], license="mit")
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = read_checkpoint(source).tensors
    found = read_checkpoint(folder)
    assert (found.arch, found.pretrain["method"]) == (proof.arch, "moco")
    assert all(torch.equal(found.tensors[key], tensor) for key, tensor in expected.items())
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True).eval()
    with torch.no_grad():
        theirs_, ours = loaded(images)[-1], found.family(found.config)
        ours.load_state_dict(found.tensors, strict=False)
        assert (theirs_ - ours.eval().stages(images)[-1]).abs().max() <= 1e-5 * theirs_.abs().max()
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    [evaluation] = card.data.eval_results
    assert (evaluation.task_type, evaluation.metric_type, evaluation.metric_value) == (
        "object-detection",
        "bbox/AP",
        11.0,
    )
    assert (card.data.license, card.data.library_name, card.data.model_name) == ("mit", "timm", f"{name}.mine")
    assert f"{proof.tensors_mapped} of {proof.tensors_expected} tensors" in card.text
    assert "| bbox/AP | 11.00 ± 1.41 | 2 |" in card.text
    assert "<script>" not in card.text
    assert "# y" not in card.text.splitlines()
    again = masktransfer.convert(folder, tmp_path / "back.safetensors", target="safetensors")
    assert again.tensors_sha256 == proof.tensors_sha256


def test_a_card_takes_results_of_its_own_checkpoint_alone(tmp_path):
    torch.save(NETWORKS["mobilenetv2_050"]().state_dict(), tmp_path / "a.pth")
    write(tmp_path / "results" / "other", measured(name="other", metrics={"bbox/AP": 99.0}))
    reason = r"results: no result of this checkpoint \(sha256 \w+\) but of other; give the file that was measured"
    with pytest.raises(InputError, match=reason):
        masktransfer.convert(tmp_path / "a.pth", tmp_path / "out", target="hf", results=[tmp_path / "results"])
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="are for the model card of target hf; leave them out"):
        masktransfer.convert(tmp_path / "a.pth", tmp_path / "a.pkl", target="detectron2", license="mit")
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken is a file, and hf writes a folder"):
        convert(tmp_path / "a.pth", tmp_path / "taken", target="hf")


@pytest.mark.parametrize("caffe", [False, True])
def test_mmdetections_own_resnet_loads_the_file_with_the_config_that_the_note_gives(tmp_path, caffe):
    pytest.importorskip("mmdet", reason="MMDetection is not installed (pip install -e .[mmdet])")
    network = randomised(ResNet(ResNet.Config(depth=50, width=8, stride_in_1x1=caffe)))
    meta = "backbone=dict(style='caffe'), bgr_to_rgb=False, mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0]"
    state = {f"backbone.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state, "meta": {"cfg": meta if caffe else ""}}, tmp_path / "a.pth")
    proof = convert(tmp_path / "a.pth", tmp_path / "mm.pth", target="mmdet")
    assert (proof.tensors_mapped, max(proof.max_abs_feature_difference.values())) == (265, 0.0)
    told = re.search(r"backbone=(dict\(.*\)) and data_preprocessor=(dict\(.*\))$", proof.notes[-1])
    config, pixels = (eval(text) for text in told.groups())  # noqa: S307 - our own note, as a config would have it
    assert (pixels["bgr_to_rgb"], pixels["std"] == [1.0, 1.0, 1.0]) == (not caffe, caffe)
    assert config.pop("type") == "ResNet"
    built = sys.modules[MMDET].ResNet(**config, init_cfg={"type": "Pretrained", "checkpoint": str(tmp_path / "mm.pth")})
    built.init_weights()
    built.norm_eval = False
    built.eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pairs = zip(built(images), network.eval().stages(images), strict=True)
        assert [float((a - b).abs().max()) for a, b in pairs] == [0.0] * 4
    again = convert(tmp_path / "mm.pth", tmp_path / "back.safetensors", target="safetensors")
    assert (again.tensors_sha256, again.recipe["stride_in_1x1"]) == (proof.tensors_sha256, caffe)


def test_without_mmdetection_its_proof_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mmdet", None)
    monkeypatch.delitem(sys.modules, MMDET, raising=False)
    torch.save(backbone(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"proof for mmdet needs MMDetection .*pip install -e \.\[mmdet\]"):
        convert(tmp_path / "a.pth", tmp_path / "x.pth", target="mmdet")


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


NETWORK = ResNet(ResNet.Config(depth=18, width=8))


class Detector(nn.Module):
    """Somebody's model with a backbone inside."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.trunk = nn.ModuleDict({"body": backbone})
        self.head = nn.Linear(4, 4)


def weights(tmp_path: Path) -> Path:
    torch.save({f"backbone.{name}": tensor for name, tensor in NETWORK.state_dict().items()}, tmp_path / "a.pth")
    return tmp_path / "a.pth"


def loaded(network: Any, **changes: torch.Tensor) -> Detector:
    network.load_state_dict(NETWORK.state_dict() | {k.replace("__", "."): v for k, v in changes.items()}, strict=False)
    return Detector(network)


def test_a_model_that_loaded_all_of_it_is_told_from_one_that_did_not(tmp_path: Path) -> None:
    file = weights(tmp_path)
    lines, whole = inside(loaded(ResNet(ResNet.Config(depth=18, width=8))), file)
    assert (whole, lines[0]) == (True, f"100 of 100 tensors of {file} are in the model")
    assert [line.split()[-1] for line in lines[1:]] == ["0.0e+00"] * 4
    lines, whole = inside(loaded(ResNet(ResNet.Config(depth=18, width=8)), layer4__1__bn2__bias=torch.ones(64)), file)
    assert (whole, lines[0].split()[0], lines[1]) == (
        False,
        "99",
        "not loaded, or changed afterwards: layer4.1.bn2.bias",
    )
    lines, whole = inside(Detector(torchvision.models.resnet18()), file)
    assert (whole, lines) == (False, [f"the model is a resnet18, {file} holds a resnet18-width8"])


def test_a_model_that_holds_every_tensor_and_computes_something_else_is_found(tmp_path: Path) -> None:
    other = ResNet(ResNet.Config(depth=18, width=8))
    other.layer3[0].conv1.padding = (0, 0)
    other.layer3[0].conv1.stride = (1, 1)
    other.layer3[0].downsample[0].stride = (1, 1)
    other.layer3[0].conv2.padding = (2, 2)
    lines, whole = inside(loaded(other), weights(tmp_path))
    assert (whole, lines[0].split()[0], lines[1].split()[-1], lines[3]) == (
        False, "100", "0.0e+00", "  stage 3: no such features",
    )  # fmt: skip


def test_the_tool_ends_with_1_when_something_was_not_loaded(tmp_path: Path, run_tool: Any) -> None:
    weights(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom core.backbones.resnet import ResNet\n\n\ndef build():\n"
        "    torch.manual_seed(5)\n    return ResNet(ResNet.Config(depth=18, width=8))\n"
    )
    done = run_tool("tools/check_loading.py", "mine:build", "a.pth", check=1)
    assert "of 100 tensors of a.pth are in the model" in done.stdout
    done = run_tool("tools/check_loading.py", "mine:nothing", "a.pth", check=2)
    assert "mine:nothing names no function" in done.stderr
