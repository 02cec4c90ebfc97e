"""Every dialect's layout, built from its documentation, is recognised by its content and gives back its query backbone."""

import argparse
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from core.backbones.resnet import ResNet
from core.errors import InputError
from transfer.convert.dialects import DIALECTS, Dialect, Mark
from transfer.convert.read import Contents, detect, find, read, split

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
        "state_dict": under("encoder.", sequential(QUERY)) | mlp("encoder.9.layer1.", "0") | mlp("predictor.", "0"),
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
            "base_model": {
                "model": {"trunk": under("_feature_blocks."), "heads": mlp("0.clf.", "0")},
                "meters": {},
            },
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
