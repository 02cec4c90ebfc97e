"""Checkpoints of all dialects are told apart by content, and their names are read."""

import argparse
import itertools
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor

from core.backbones import Backbone, families
from core.backbones.convnext import Convnext
from core.backbones.resnet import ResNet
from core.backbones.timm import Timm
from core.errors import InputError
from core.files import FileError
from transfer.convert.dialects import DIALECTS, Dialect, Mark
from transfer.convert.read import Contents, Recognised, detect, find, read, recognise, split

State = dict[str, Any]


def network(seed: int) -> dict[str, Tensor]:
    """A slim ResNet-18 under torchvision's names, other for every seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return dict(ResNet(ResNet.Config(depth=18, width=8)).state_dict())


QUERY, KEY = network(1), network(2)


def under(prefix: str, tensors: dict[str, Tensor] = QUERY) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def mlp(prefix: str, *layers: str, bias: bool = True) -> State:
    """A head's layers: a matrix, a bias and nothing that could be mistaken for a backbone."""
    found = {f"{prefix}{layer}.weight": torch.ones(4, 4) for layer in layers}
    return found | ({f"{prefix}{layer}.bias": torch.ones(4) for layer in layers} if bias else {})


def sequential(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name tensors as ``nn.Sequential(*list(resnet.children()))`` does."""
    places = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    parts = {name: name.split(".", 1) for name in tensors}
    return {f"{places[first]}.{rest}": tensors[name] for name, (first, rest) in parts.items()}


RUN = {"epoch": 100, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}}
LIGHTNING = {"epoch": 9, "global_step": 90, "pytorch-lightning_version": "1.6.4", "loops": {}, "callbacks": {}}
META = {"meta": {"epoch": 200, "iter": 1000, "mmengine_version": "0.8"}}
TWICE = under("backbone.") | under("encoder_q.0.") | under("encoder_k.0.", KEY) | mlp("encoder_q.1.mlp.", "0", "2")

# (dialect, variant): a file in its documented layout; the sources' docstrings say where each is documented.
FILES: dict[str, Callable[[], State]] = {
    "moco": lambda: {
        **RUN,
        "arch": "resnet18",
        "state_dict": under("module.encoder_q.")
        | mlp("module.encoder_q.", "fc.0", "fc.2")
        | under("module.encoder_k.", KEY)
        | {"module.queue": torch.ones(4, 8), "module.queue_ptr": torch.zeros(1)},
    },
    "moco, not data-parallel": lambda: {"state_dict": under("encoder_q.") | under("encoder_k.", KEY)},
    "moco_v3": lambda: {
        **RUN,
        "arch": "resnet50",
        "state_dict": under("module.base_encoder.")
        | mlp("module.base_encoder.", "fc.0", "fc.3", bias=False)
        | under("module.momentum_encoder.", KEY)
        | mlp("module.predictor.", "0", "3", bias=False),
    },
    "simsiam": lambda: {
        **RUN,
        "arch": "resnet50",
        "state_dict": under("module.encoder.")
        | mlp("module.encoder.fc.", "0", "3", "6")
        | mlp("module.predictor.", "0", "3"),
    },
    "byol, lucidrains": lambda: (
        under("online_encoder.net.")
        | mlp("online_encoder.projector.", "0", "3")
        | mlp("online_encoder.net.", "fc")
        | under("target_encoder.net.", KEY)
        | mlp("online_predictor.", "0", "3")
    ),
    "byol, lucidrains in Lightning": lambda: {
        **LIGHTNING,
        "state_dict": under("learner.online_encoder.net.") | under("learner.target_encoder.net.", KEY),
    },
    "byol, sthalles": lambda: {
        "online_network_state_dict": under("encoder.", sequential(QUERY)) | mlp("projetion.net.", "0", "3"),
        "target_network_state_dict": under("encoder.", sequential(KEY)) | mlp("projetion.net.", "0", "3"),
        "optimizer_state_dict": {},
    },
    "byol, yaox12": lambda: {
        **RUN,
        "model": under("module.online_network.encoder.", sequential(QUERY))
        | mlp("module.online_network.projetion.net.", "0", "3")
        | under("module.target_network.encoder.", sequential(KEY))
        | mlp("module.predictor.net.", "0", "3"),
    },
    "simclr, sthalles": lambda: {
        **RUN,
        "arch": "resnet18",
        "state_dict": under("backbone.") | mlp("backbone.", "fc.0", "fc.2"),
    },
    "simclr, Spijkervet": lambda: under("encoder.") | mlp("projector.", "0", "2", bias=False),
    "solo_learn": lambda: {
        **LIGHTNING,
        "hyper_parameters": {"method": "byol"},
        "state_dict": under("backbone.")
        | mlp("", "classifier")
        | mlp("projector.", "0", "3")
        | under("momentum_backbone.", KEY)
        | mlp("momentum_projector.", "0", "3"),
    },
    "solo_learn, older": lambda: {
        **LIGHTNING,
        "state_dict": under("encoder.") | mlp("", "classifier") | mlp("projector.", "0", "2"),
    },
    "lightly": lambda: {
        **LIGHTNING,
        "state_dict": under("backbone.", sequential(QUERY))
        | mlp("projection_head.layers.", "0", "2")
        | under("backbone_momentum.", sequential(KEY))
        | mlp("projection_head_momentum.layers.", "0", "2"),
    },
    "lightly, DINO": lambda: {
        **LIGHTNING,
        "state_dict": under("student_backbone.", sequential(KEY))
        | mlp("student_head.layers.", "0", "3")
        | under("teacher_backbone.", sequential(QUERY))
        | mlp("teacher_head.layers.", "0", "3"),
    },
    "solo_learn_dino": lambda: {
        **LIGHTNING,
        "state_dict": under("backbone.", KEY)
        | mlp("", "classifier")
        | mlp("head.mlp.", "0")
        | under("momentum_backbone.")
        | mlp("momentum_head.mlp.", "0"),
    },
    "dino, in Lightning": lambda: {
        **LIGHTNING,
        "state_dict": under("student.backbone.", KEY) | under("teacher.backbone.") | mlp("teacher.head.", "0"),
    },
    "moco, one level deeper": lambda: {"model": under("module.encoder_q.net.") | mlp("module.encoder_q.net.", "fc")},
    "solo_learn, one level deeper": lambda: {
        **LIGHTNING,
        "state_dict": under("backbone.model.") | mlp("projector.", "0") | mlp("", "classifier"),
    },
    "simsiam, one list": lambda: {
        "state_dict": under("encoder.", sequential(QUERY)) | mlp("encoder.9.layer1.", "0") | mlp("predictor.", "0")
    },
    "lightly, plain PyTorch": lambda: under("backbone.") | mlp("projection_head.layers.", "0", "2"),
    "mmselfsup": lambda: {
        **META,
        "state_dict": under("backbone.")
        | mlp("neck.", "fc0", "fc1")
        | under("target_net.module.0.", KEY)
        | mlp("head.predictor.", "fc0"),
    },
    "mmselfsup, extracted": lambda: {"state_dict": QUERY, "author": "MMSelfSup"},
    "mmselfsup, mmpretrain": lambda: {**META, "state_dict": under("backbone.") | mlp("head.", "fc")},
    "openselfsup": lambda: {**META, "state_dict": TWICE | {"queue": torch.ones(4, 8)}},
    "openselfsup, BYOL": lambda: {
        **META,
        "state_dict": under("backbone.")
        | under("online_net.0.")
        | mlp("online_net.1.", "fc0")
        | under("target_net.0.", KEY),
    },
    "openselfsup, extracted": lambda: {"state_dict": QUERY, "author": "OpenSelfSup"},
    "densecl": lambda: {
        **META,
        "state_dict": TWICE | {"queue": torch.ones(4, 8), "queue2": torch.ones(4, 8), "queue2_ptr": torch.zeros(1)},
    },
    "densecl, extracted": lambda: {"state_dict": QUERY, "author": "DenseCL"},
    "vissl": lambda: {
        "phase_idx": 100,
        "classy_state_dict": {
            "base_model": {"model": {"trunk": under("_feature_blocks."), "heads": mlp("0.clf.", "0")}, "meters": {}},
            "optimizer": {},
        },
    },
    "vissl, the trunk alone": lambda: {"model_state_dict": under("_feature_blocks.")},
    "pixpro": lambda: {
        **RUN,
        "opt": argparse.Namespace(arch="resnet50", epochs=400),
        "model": under("module.encoder.")
        | mlp("module.projector.", "linear1", "linear2")
        | under("module.encoder_k.", KEY)
        | mlp("module.projector_k.", "linear1", "linear2")
        | mlp("module.value_transform.", "linear1"),
    },
    "barlow_twins": lambda: {
        **RUN,
        "model": under("module.backbone.")
        | mlp("module.projector.", "0", "3", "6", bias=False)
        | {"module.bn.running_mean": torch.zeros(4), "module.bn.running_var": torch.ones(4)},
    },
    "vicreg": lambda: {**RUN, "model": under("module.backbone.") | mlp("module.projector.", "0", "3")},
    "swav": lambda: {
        **RUN,
        "amp": {},
        "state_dict": under("module.")
        | mlp("module.projection_head.", "0", "3")
        | mlp("module.", "prototypes", bias=False),
    },
    "swav, released": lambda: under("module.") | mlp("module.projection_head.", "0", "3"),
    "dino": lambda: {
        **RUN,
        "args": argparse.Namespace(arch="resnet50"),
        "student": under("module.backbone.", KEY) | mlp("module.head.mlp.", "0", "2"),
        "teacher": under("module.backbone.") | mlp("module.head.mlp.", "0", "2"),
        "dino_loss": {"center": torch.zeros(1, 4)},
    },
    "torchvision": lambda: QUERY | mlp("", "fc"),
    "torchvision, in a container": lambda: {**RUN, "state_dict": under("module.") | mlp("module.", "fc")},
    "mmseg": lambda: {
        **META,
        "state_dict": under("backbone.") | mlp("decode_head.", "conv_seg") | mlp("auxiliary_head.", "conv_seg"),
    },
    "mmseg, converted": lambda: {"state_dict": QUERY, "meta": {}, "recipe": {"pretrain": {"method": "moco"}}},
    "plain": lambda: {"net": under("model.student.encoder.") | mlp("model.student.", "head")},
}


@pytest.mark.parametrize("layout", FILES)
def test_a_dialect_is_detected_by_content_and_gives_the_query_backbone(layout: str, tmp_path: Any) -> None:
    torch.save(FILES[layout](), tmp_path / "checkpoint.pth")
    found = read(tmp_path / "checkpoint.pth")
    assert found.dialect == layout.partition(",")[0]
    expected = {name: tensor for name, tensor in QUERY.items() if not name.endswith("num_batches_tracked")}
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.items())
    assert found.arch == "resnet18-width8"
    assert all(found.dropped.values()), "every dropped tensor has a reason"
    assert read(tmp_path / "checkpoint.pth", found.dialect).dialect == found.dialect


def test_every_dialect_has_a_layout_here_or_in_the_tests_of_names() -> None:
    tested = {layout.partition(",")[0] for layout in FILES} | {"ours", "timm", "huggingface", "detectron2"}
    assert tested == set(DIALECTS)


@pytest.mark.parametrize(
    ("layout", "summary"),
    [
        ("moco", {"method": "moco", "epochs": 100, "arch": "resnet18"}),
        ("solo_learn", {"method": "byol", "epochs": 9, "steps": 90}),
        ("mmselfsup", {"method": "mmselfsup", "epochs": 200, "steps": 1000}),
        ("dino", {"method": "dino", "epochs": 100}),
    ],
)
def test_what_the_file_says_about_its_pre_training_is_kept(layout: str, summary: State, tmp_path: Any) -> None:
    torch.save(FILES[layout](), tmp_path / "file.pth")
    assert read(tmp_path / "file.pth").pretrain == summary


def dropped_from(layout: str) -> dict[str, str]:
    return split(Contents(FILES[layout](), "file"), find(layout.partition(",")[0]), layout.partition(",")[0])[1]


def test_reasons_tell_a_head_from_a_momentum_network() -> None:
    dropped = dropped_from("solo_learn")
    assert dropped["momentum_backbone.conv1.weight"] == "of the momentum networks"
    assert dropped["projector.0.weight"] == dropped["classifier.weight"] == "projector or classifier"
    dropped = dropped_from("openselfsup")
    assert dropped["encoder_q.0.conv1.weight"] == "the same tensors as backbone.*"
    assert dropped["queue"] == "not of the query backbone"


@pytest.mark.parametrize("layout", ["dino", "dino, in Lightning", "lightly, DINO"])
def test_dinos_teacher_is_taken_and_said_and_the_printed_step_takes_the_student(layout: str, tmp_path: Any) -> None:
    torch.save(FILES[layout](), tmp_path / "file.pth")
    [note] = read(tmp_path / "file.pth").notes
    step = re.fullmatch(r"the teacher is taken, as in DINO's evaluation; --source (\S+) takes the student", note)
    assert step is not None
    assert torch.equal(read(tmp_path / "file.pth", step[1]).tensors["conv1.weight"], KEY["conv1.weight"])


def test_a_file_that_two_dialects_claim_names_both_and_asks() -> None:
    both = {"state_dict": under("module.encoder_q.") | under("module.base_encoder.") | under("momentum_encoder.", KEY)}
    with pytest.raises(InputError, match=r"both\.pth could be of moco or moco_v3; choose with --source$"):
        detect(Contents(both, "both.pth"))


def test_a_dialect_of_ones_own_is_named_by_its_module(tmp_path: Any, monkeypatch: Any) -> None:
    module = types.ModuleType("my_dialects")
    module.MINE = Dialect("mine", "my code", (Mark((r"eyes\.",)),), (r"eyes\.",), method="looking")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_dialects", module)
    torch.save({"net": {"a": 1}} | under("eyes.") | under("ears.", KEY), tmp_path / "file.pth")
    found = read(tmp_path / "file.pth", "my_dialects:MINE")
    assert torch.equal(found.tensors["conv1.weight"], QUERY["conv1.weight"])
    assert (found.dialect, found.pretrain) == ("my_dialects:MINE", {"method": "looking"})
    for name, message in {
        "my_dialects:OTHER": "OTHER must be a Dialect",
        "no_such:X": "is its folder on PYTHONPATH",
        "mocco": r"no dialect 'mocco'; .*did you mean 'moco'",
        "mmsegmentation": "did you mean 'mmseg'",
    }.items():
        with pytest.raises(InputError, match=message):
            read(tmp_path / "file.pth", name)


SMALL = {
    "resnet18": ResNet(ResNet.Config(depth=18, width=8)),
    "resnet50": ResNet(ResNet.Config(depth=50, width=8)),
    "convnext": Convnext(Convnext.Config(blocks=(2, 1, 3, 1), width=8)),
}


def weights(network: Any) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}


def dialect_of(checkpoint: dict[str, Any]) -> str:
    return detect(Contents(checkpoint, "file"))


def found_in(checkpoint: dict[str, Any], dialect: str = "auto") -> Recognised:
    contents = Contents(checkpoint, "file")
    name = detect(contents) if dialect == "auto" else dialect
    return recognise(split(contents, find(name), name)[0], "file")


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("framework", ["detectron2", "mmseg", "timm", "torchvision"])
@pytest.mark.parametrize("network", SMALL.values(), ids=SMALL)
def test_a_family_reads_back_exactly_what_it_writes_for_each_framework(network: Backbone, framework: str) -> None:
    written = type(network).export(weights(network), framework)
    again = type(network).native(written)
    assert again is not None
    assert same(again[1], weights(network))
    others = [other for other in families().values() if other not in (type(network), Timm)]  # which reads any names
    assert [other.native(written) for other in others] == [None] * len(others)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_timms_resnets_have_torchvisions_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        ours = timm.create_model(name, pretrained=False).state_dict()
        theirs = getattr(torchvision.models, name)().state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}
    assert dialect_of(dict(ours)) == "torchvision"


@pytest.mark.parametrize(
    ("name", "alter", "reason"),
    [
        ("resnet18", lambda s: {"stem.0.weight": torch.ones(32, 3, 3, 3)} | without(s, "conv1."), "deep stem .*V1c .*V1d"),
        ("resnet18", lambda s: {k: v for k, v in s.items() if "running" not in k}, "no running statistics: GroupNorm"),
        ("resnet50", lambda s: s | {"attnpool.positional_embedding": torch.ones(2, 2)}, "CLIP's ResNet"),
        ("resnet50", lambda s: without(s, "layer3.5."), r"\(3, 4, 5, 3\) blocks a stage.*another depth"),
    ],
    ids=["deep stem", "GroupNorm", "CLIP", "depth"],
)  # fmt: skip
def test_a_resnet_of_another_kind_is_refused_with_the_reason(name: str, alter: Any, reason: str) -> None:
    with pytest.raises(FileError, match=reason):
        found_in(alter(dict(SMALL[name].state_dict())))


def without(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}


def test_timms_and_torchvisions_convnext_are_the_same_network_under_two_names() -> None:
    with torch.device("meta"):
        theirs = timm.create_model("convnext_tiny", pretrained=False).state_dict()
        ours = torchvision.models.convnext_tiny().state_dict()
    stages = {name: value for name, value in ours.items() if not name.startswith("classifier.")}
    exported = {name: value.shape for name, value in Convnext.export(stages, "timm").items()}
    assert exported == {name: value.shape for name, value in theirs.items() if not name.startswith("head.")}
    found = Convnext.native(dict(theirs))
    assert found is not None
    assert Convnext.recognise(found[1]) == Convnext.Config()


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_the_papers_sizes_of_a_convnext_are_known_by_name(size: str) -> None:
    with torch.device("meta"):
        found = Convnext.native(dict(timm.create_model(f"convnext_{size}", pretrained=False).state_dict()))
    assert found is not None
    assert Convnext.arch(Convnext.recognise(found[1])) == f"convnext-{size}"


def test_timms_convnext_is_carried_without_its_head() -> None:
    network = timm.create_model("convnext_tiny", pretrained=False, depths=(1, 1, 2, 1), dims=(8, 16, 32, 64))
    found = found_in(dict(network.state_dict()))
    assert (dialect_of(dict(network.state_dict())), found.naming) == ("timm", "timm")
    assert found.config == Convnext.Config(blocks=(1, 1, 2, 1), width=8)
    assert torch.equal(found.tensors["features.5.1.layer_scale"].flatten(), network.stages[2].blocks[1].gamma)


# Hugging Face's names, written out from modeling_resnet.py and modeling_convnext.py, part by part
def huggingface_resnet(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        if name.startswith("layer"):
            stage, block, inner = int(parts[0][5:]) - 1, parts[1], parts[2]
            if inner == "downsample":
                inner = "shortcut." + ("convolution" if parts[3] == "0" else "normalization")
            else:
                inner = f"layer.{int(inner[-1]) - 1}." + (
                    "convolution" if inner.startswith("conv") else "normalization"
                )
            name = f"encoder.stages.{stage}.layers.{block}.{inner}.{parts[-1]}"
        else:
            name = f"embedder.embedder.{'convolution' if parts[0] == 'conv1' else 'normalization'}.{parts[-1]}"
        found[name] = tensor
    return found


LISTED = {"0": "dwconv", "2": "layernorm", "3": "pwconv1", "5": "pwconv2"}


def huggingface_convnext(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        _, place, rest = name.split(".", 2)
        if place == "0":
            name = rest.replace("0.", "embeddings.patch_embeddings.").replace("1.", "embeddings.layernorm.")
        elif int(place) % 2 == 0:
            name = f"encoder.stages.{int(place) // 2}.downsampling_layer.{rest}"
        else:
            block, _, inner = rest.partition(".")
            stage = f"encoder.stages.{int(place) // 2}.layers.{block}."
            if inner == "layer_scale":
                name, tensor = f"{stage}layer_scale_parameter", tensor.flatten()
            else:
                name = f"{stage}{LISTED[inner.split('.')[1]]}.{inner.split('.')[2]}"
        found[name] = tensor
    return found


def original_convnext(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """facebookresearch/ConvNeXt's names."""
    found = {}
    for name, tensor in huggingface_convnext(tensors).items():
        name = name.replace("embeddings.patch_embeddings", "downsample_layers.0.0")
        name = name.replace("embeddings.layernorm", "downsample_layers.0.1").replace(".layernorm.", ".norm.")
        if "downsampling_layer" in name:
            name = f"downsample_layers.{name.split('.')[2]}.{'.'.join(name.split('.')[4:])}"
        name = name.replace("encoder.", "").replace(".layers.", ".").replace("layer_scale_parameter", "gamma")
        found[name] = tensor
    return found


@pytest.mark.parametrize("prefix", ["", "resnet."])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_hugging_faces_resnet_is_read(name: str, prefix: str) -> None:
    expected = weights(SMALL[name])
    state = {f"{prefix}{key}": tensor for key, tensor in huggingface_resnet(expected).items()}
    state |= {"classifier.1.weight": torch.ones(2, 2), "classifier.1.bias": torch.ones(2)}
    assert dialect_of(state) == "huggingface"
    found = found_in(state)
    assert (found.naming, same(found.tensors, expected)) == ("huggingface", True)


@pytest.mark.parametrize("prefix", ["", "convnext."])
def test_hugging_faces_convnext_is_read(prefix: str) -> None:
    expected = weights(SMALL["convnext"])
    state = {f"{prefix}{key}": tensor for key, tensor in huggingface_convnext(expected).items()}
    state |= {f"{prefix}layernorm.weight": torch.ones(64), "classifier.weight": torch.ones(2, 64)}
    assert dialect_of(state) == "huggingface"
    assert same(found_in(state).tensors, expected)


def test_the_papers_convnext_is_read_from_its_release() -> None:
    expected = weights(SMALL["convnext"])
    state = original_convnext(expected) | {"norm.weight": torch.ones(64), "head.weight": torch.ones(2, 64)}
    found = found_in({"model": state})
    assert (found.naming, same(found.tensors, expected)) == ("convnext", True)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_dinov3s_convnext_is_read_from_transformers_and_from_its_own_release(prefix: str) -> None:
    """transformers' modeling_dinov3_convnext.py keeps the downsampling inside its stages; the release norms the last stage."""
    expected, theirs = weights(SMALL["convnext"]), {}
    words = {
        "dwconv": "depthwise_conv", "norm": "layer_norm", "pwconv1": "pointwise_conv1", "pwconv2": "pointwise_conv2",
    }  # fmt: skip
    for name, tensor in original_convnext(expected).items():
        first, stage, *rest = name.split(".")
        inner = ["layers", *(words.get(part, part) for part in rest)] if first == "stages" else [first, *rest]
        theirs[f"{prefix}stages.{stage}.{'.'.join(inner)}"] = tensor
    assert same(found_in(theirs | {f"{prefix}layer_norm.weight": torch.ones(64)}).tensors, expected)
    release = original_convnext(expected) | {"norm.weight": torch.ones(64), "norms.3.weight": torch.ones(64)}
    found = found_in(release)
    assert same(found.tensors, expected)
    assert found.dropped["norms.3.weight"] == "norm of what a stage gives out, not of the stage"


@pytest.mark.parametrize("network", SMALL.values(), ids=SMALL)
def test_a_whole_segmentation_network_gives_its_backbone_back(network: Any) -> None:
    exported = type(network).export(weights(network), "mmseg")
    state = {f"backbone.{name}": tensor for name, tensor in exported.items()}
    state |= {"decode_head.conv_seg.weight": torch.ones(2, 2, 1, 1), "backbone.norm3.weight": torch.ones(2)}
    file = {"state_dict": state, "meta": {}}
    assert dialect_of(file) == "mmseg"
    assert same(found_in(file).tensors, weights(network))


@pytest.mark.parametrize("neck", ["c4", "fpn"])
@pytest.mark.parametrize("network", SMALL.values(), ids=SMALL)
def test_a_whole_detector_gives_its_backbone_back(network: Any, neck: str) -> None:
    exported = type(network).export(weights(network), "detectron2")
    prefixes = {True: "backbone.bottom_up.", False: "backbone.bottom_up."}
    if neck == "c4":
        prefixes = {True: "roi_heads.", False: "backbone."}
    model = {prefixes[name.startswith("res5")] + name: np.asarray(tensor) for name, tensor in exported.items()}
    model |= {
        "roi_heads.res5.norm.weight": np.ones(2),
        "proposal_generator.rpn_head.conv.weight": np.ones((2, 2, 3, 3)),
    }
    model |= {"backbone.bottom_up.out_norms.res2.weight": np.ones(2), "backbone.fpn_lateral2.weight": np.ones(2)}
    assert dialect_of({"model": model, "iteration": 9}) == "detectron2"
    assert same(found_in({"model": model, "iteration": 9}).tensors, weights(network))


def test_caffe2s_resnet_is_refused_with_the_reason() -> None:
    with pytest.raises(FileError, match=r"Caffe2 network \(MSRA's R-50\.pkl\): BGR, stride in the 1x1"):
        found_in({"conv1_w": np.ones((64, 3, 7, 7)), "res2_0_branch2a_w": np.ones((64, 64, 1, 1))})


@pytest.mark.parametrize("order", list(itertools.permutations(["module.", "_orig_mod.", "backbone.", "encoder."])))
def test_prefixes_are_taken_off_in_any_order(order: tuple[str, ...]) -> None:
    expected = weights(SMALL["resnet18"])
    found = found_in({"".join(order) + name: tensor for name, tensor in expected.items()})
    assert same(found.tensors, expected)


@pytest.mark.parametrize("container", [(), ("state_dict",), ("model",), ("a", "b")])
def test_containers_are_opened(container: tuple[str, ...]) -> None:
    checkpoint: dict[str, Any] = {f"model.{name}": tensor for name, tensor in weights(SMALL["convnext"]).items()}
    for name in reversed(container):
        checkpoint = {name: checkpoint, "epoch": 3}
    assert same(found_in(checkpoint).tensors, weights(SMALL["convnext"]))


def test_a_file_of_two_backbones_lists_them_and_takes_the_one_asked_for() -> None:
    first, second = weights(SMALL["resnet18"]), {name: 2 * t for name, t in weights(SMALL["resnet18"]).items()}
    file = {"student": {f"module.net.{k}": v for k, v in first.items()}, "ema": second}
    with pytest.raises(
        InputError, match=r"file holds 2 backbones; choose with --source plain:ema\. or plain:student\.net\."
    ):
        found_in(file)
    assert same(found_in(file, "plain:ema").tensors, second)
    assert same(found_in(file, "plain:student.module.net.").tensors, first)
    with pytest.raises(InputError, match=r"no backbone under teacher\.; there are: ema\., student\.net\."):
        found_in(file, "plain:teacher")
    with pytest.raises(InputError, match="only plain takes a prefix"):
        found_in({"conv1.weight": torch.ones(1), "layer1.0.conv1.weight": torch.ones(1)}, "torchvision:ema")


def test_every_dialect_says_where_its_layout_is_documented() -> None:
    assert [row.name for row in DIALECTS.values() if "/" not in row.layout] == ["plain"]
