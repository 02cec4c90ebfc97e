"""What a file and its neighbours say beyond the tensors is carried into the recipe, honoured by both frameworks, and said."""

import json
import pickle
import subprocess
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from core.backbones.resnet import ResNet
from core.errors import InputError
from core.files import FileError
from core.weights_file import LEGACY, read_weights_file
from transfer.convert.convert import convert
from transfer.convert.read import read
from transfer.convert.recipe import Recipe

CAFFE = {"channel_order": "BGR", "mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0], "stride_in_1x1": True}
CONFIG = "model=dict(data_preprocessor=dict(mean=[103.53,116.28,123.675],std=[1.0,1.0,1.0],bgr_to_rgb=False),backbone=dict({}))"
OLD = "img_norm_cfg = dict(\n    mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)\nmodel = {'style': 'caffe'}"


def weights(depth: int = 50, folded: bool = False) -> dict[str, Tensor]:
    """A slim ResNet with values of its own everywhere; ``folded``: as MSRA's, with means of 0 and variances of 1."""
    network = ResNet(ResNet.Config(depth=depth, width=8))
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator) if not folded else tensor.fill_(1)
        elif tensor.is_floating_point() and not (folded and name.endswith("running_mean")):
            tensor.normal_(0, 0.1, generator=generator)
    return {name: t for name, t in network.state_dict().items() if "num_batches" not in name}


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def openmmlab(text: str) -> dict[str, Any]:
    return {
        "meta": {"cfg": text},
        "state_dict": under("backbone.", weights()) | {"rpn_head.conv.weight": torch.ones(1)},
    }


def zoo() -> dict[str, Any]:
    model = under("backbone.bottom_up.", ResNet.export(weights(), "detectron2"))
    pixels = {"pixel_mean": torch.tensor(CAFFE["mean"]).view(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}
    return {"model": model | pixels, "__author__": "Detectron2 Model Zoo"}


FILES: dict[str, Any] = {
    "mmdet 3": lambda: openmmlab(CONFIG.format("type='ResNet',style='caffe'")),
    "mmdet 2": lambda: openmmlab(OLD),
    "zoo": zoo,
    "MSRA": lambda: {"state_dict": weights(folded=True)},
    "maskrcnn-benchmark": lambda: {
        "model": under("backbone.body.stem.", {k: v for k, v in weights(folded=True).items() if "layer" not in k})
        | under("backbone.body.", {k: v for k, v in weights(folded=True).items() if "layer" in k})
    },
}


@pytest.mark.parametrize("layout", FILES)
def test_caffe_style_weights_keep_their_recipe_and_both_frameworks_compute_with_it(tmp_path: Path, layout: str) -> None:
    torch.save(FILES[layout](), tmp_path / "a.pth")
    target, name = ("mmseg", "mm.pth") if "mm" in layout else ("detectron2", "d2.pkl")
    proof = convert(tmp_path / "a.pth", tmp_path / name, target=target)
    assert {key: proof.recipe[key] for key in CAFFE} == CAFFE
    assert max(proof.max_abs_feature_difference.values()) < 1e-5  # of networks with the stride in the 1x1
    assert any("channel_order BGR" in note and "stride_in_1x1 True" in note for note in proof.notes)
    again = convert(tmp_path / name, tmp_path / f"again{name}", target=target)  # the recipe stays inside the file
    assert again.recipe | {"source": "", "source_sha256": ""} == proof.recipe | {"source": "", "source_sha256": ""}


def test_bgr_weights_are_turned_where_the_target_reads_rgb_and_refused_where_no_such_network_is(tmp_path: Path) -> None:
    state = weights(18, folded=True)
    torch.save(state, tmp_path / "a.pth")
    proof = convert(tmp_path / "a.pth", tmp_path / "c.pth", target="classification")
    turned = torch.load(tmp_path / "c.pth", weights_only=True)["backbone"]["conv1.weight"]
    assert torch.equal(turned, state["conv1.weight"][:, [2, 1, 0]])
    assert (proof.recipe["channel_order"], proof.recipe["mean"]) == ("RGB", [123.675, 116.28, 103.53])
    assert any("in the order RGB now" in note for note in proof.notes)
    torch.save(weights(folded=True), tmp_path / "b.pth")
    with pytest.raises(
        InputError, match="Caffe-style ResNet, whose stride is in the 1x1 convolution; timm's has it in the 3x3"
    ):
        convert(tmp_path / "b.pth", tmp_path / "t.pth", target="timm")


def test_both_frameworks_take_the_recipes_pixels_and_stride_into_their_configs(tmp_path: Path) -> None:
    from mmengine.config import Config

    from transfer.frameworks.detectron2 import run
    from transfer.frameworks.detectron2.weights import inject
    from transfer.frameworks.mmseg import run as settings
    from transfer.frameworks.mmseg import weights as segmentation

    recipe = Recipe(**{key: tuple(v) if isinstance(v, list) else v for key, v in CAFFE.items()})
    cfg, explicit = run.read_config("configs/transfer/detection/mask-rcnn_r50-c4_8xb2-90k_coco.yaml", [])
    inject(cfg, recipe, explicit, "a.pkl")
    assert (cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_STD, cfg.MODEL.RESNETS.STRIDE_IN_1X1) == ("BGR", [1.0, 1.0, 1.0], True)
    model = Config({"model": {"backbone": {"type": "ResNet"}, "decode_head": {}}})
    segmentation.inject(model, segmentation.Weights(Path("a.pth"), {}, recipe), Path("c.py"))
    assert (model.model.backbone.style, model.model.data_preprocessor.bgr_to_rgb) == ("caffe", False)
    assert model.model.data_preprocessor.std == [1.0, 1.0, 1.0]
    shipped = settings.read_config(Path("configs/transfer/segmentation/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py"), [])
    segmentation.inject(shipped, segmentation.Weights(Path("a.pth"), {}, recipe), Path("c.py"))
    assert (shipped.model.backbone.style, shipped.model.data_preprocessor.mean) == ("caffe", CAFFE["mean"])
    contrary = Config({"model": {"backbone": {"type": "ResNet", "style": "caffe"}, "decode_head": {}}})
    with pytest.raises(
        InputError, match=r"backbone\.style is 'caffe', but it must be 'pytorch'.*computes something else"
    ):
        segmentation.inject(contrary, segmentation.Weights(Path("a.pth"), {}, Recipe()), Path("c.py"))


def test_what_stands_beside_the_file_is_read_and_a_fresh_network_is_not_taken_for_caffes(tmp_path: Path) -> None:
    torch.save({"state_dict": weights()}, tmp_path / "a.pth")
    assert read(tmp_path / "a.pth").facts == {}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet", "downsample_in_bottleneck": True}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    found = read(tmp_path / "a.pth")
    assert (found.config.stride_in_1x1, found.facts["mean"], found.facts["std"]) == (True, (127.5,) * 3, (63.75,) * 3)
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text("{")  # damaged: nothing is known
    (tmp_path / "config.yaml").write_text(
        "INPUT: {FORMAT: BGR}\nMODEL: {PIXEL_MEAN: [1, 2, 3], PIXEL_STD: [4, 5, 6], RESNETS: {STRIDE_IN_1X1: false}}"
    )
    assert read(tmp_path / "a.pth").facts == {"channel_order": "BGR", "mean": (1, 2, 3), "std": (4, 5, 6)}
    (tmp_path / "fresh").mkdir()
    torch.save(ResNet(ResNet.Config(depth=18, width=8)).state_dict(), tmp_path / "fresh" / "f.pth")
    assert read(tmp_path / "fresh" / "f.pth").facts == {}


@pytest.mark.parametrize("name", ["resnetaa50", "resnetblur50"])
def test_networks_of_the_same_names_and_shapes_are_told_apart_by_their_name_or_said_to_be_assumed(
    tmp_path: Path, name: str
) -> None:
    state = timm.create_model(name, pretrained=False).state_dict()
    torch.save({"arch": name, "state_dict": state}, tmp_path / "named.pth")
    torch.save(state, tmp_path / "bare.pth")
    assert read(tmp_path / "named.pth").arch == read(tmp_path / "bare.pth", arch=name).arch == name
    assumed = read(tmp_path / "bare.pth")
    assert (assumed.arch, "resnet50 is assumed (--arch says another)" in assumed.notes[0]) == ("resnet50", True)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": name}))
    assert read(tmp_path / "bare.pth").arch == name


WRAPPED = {
    "FSDP": lambda s: {n.replace("layer1.", "layer1._fsdp_wrapped_module."): t for n, t in s.items()},
    "activation checkpointing": lambda s: {
        n.replace("layer2.", "layer2._checkpoint_wrapped_module."): t for n, t in s.items()
    },
    "averaged": lambda s: {"n_averaged": torch.tensor(3)} | under("module.", s),
    "temporary buffers": lambda s: s | {"bn1._tmp_running_mean": torch.ones(8)},
    "SupContrast": lambda s: {"model": {f"encoder.{n.replace('downsample', 'shortcut')}": t for n, t in s.items()}},
    "a norm in its convolution": lambda s: {
        n.replace("conv1.", "conv1.conv.", 1).replace("bn1.", "conv1.bn.", 1) if "layer" not in n else n: t
        for n, t in s.items()
    },
    "arrays": lambda s: {n: t.numpy() for n, t in s.items()},
    "a wrapper inside": lambda s: {"state_dict": under("backbone.resnet.", s)},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrappers_counters_and_other_words_are_read(tmp_path: Path, kind: str) -> None:
    torch.save(WRAPPED[kind](weights(18)), tmp_path / "a.pth")
    found = read(tmp_path / "a.pth")
    assert found.tensors.keys() == weights(18).keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in weights(18).items())


def test_the_form_of_a_file_is_told_by_its_first_bytes_whatever_it_is_called(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = {name: t.contiguous() for name, t in weights(18).items()}
    save_file(state, tmp_path / "a.pth")
    torch.save(state, tmp_path / "b.pkl", _use_new_zipfile_serialization=False)
    torch.save(state, tmp_path / "c.model", _use_new_zipfile_serialization=False)
    assert LEGACY in (tmp_path / "b.pkl").read_bytes()[:32]
    for name in ("a.pth", "b.pkl", "c.model"):
        assert read_weights_file(tmp_path / name).keys() == state.keys()


def test_a_file_of_python_2_whose_text_is_bytes_is_read(tmp_path: Path) -> None:
    best = np.float64(54.7)
    torch.save({"best": "NUMBERSS", "w": torch.ones(1)}, tmp_path / "a.tar", _use_new_zipfile_serialization=False)
    data = (tmp_path / "a.tar").read_bytes()
    text = (
        b"X\x08\x00\x00\x00NUMBERSS"  # text as Python 3 writes it; Python 2 wrote U, a length, and the bytes themselves
    )
    assert data.count(text) == 1
    kind = b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    scalar = b"cnumpy.core.multiarray\nscalar\n" + kind + b"U\x08" + best.tobytes() + b"\x86R"
    (tmp_path / "a.tar").write_bytes(data.replace(text, scalar))
    assert b"\x9a" in best.tobytes()  # which is no text in UTF-8
    assert read_weights_file(tmp_path / "a.tar")["best"] == best


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.pth", b"x")


def tarred(path: Path) -> None:
    path.with_name("inside").write_bytes(b"x")
    with tarfile.open(path, "w") as archive:
        archive.add(path.with_name("inside"), "inside")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "is a Git LFS pointer.*`git lfs pull`"),
        (b"<!DOCTYPE html><html></html>", "is a web page, not weights; download the file itself"),
        (b"\x1f\x8b\x08\x00", "is an archive; unpack it and give the checkpoint inside"),
        (zipped, "is an archive; unpack it"),
        (tarred, "is an archive; unpack it"),
        (b"\x08\x08\x12\x07pytorch\x1a\x05", "is an ONNX graph"),
        (b"\x89HDF\r\n", "is an HDF5 file of Keras"),
        (b'{"weight_map": {"a": "model-00001-of-00002.bin"}}', "names 1 shards, of which model-00001-of-00002.bin is not there"),
        (b'{"a": 1}', "is no index of a sharded checkpoint"),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path: Path, content: Any, reason: str) -> None:
    file = tmp_path / "x.pth"
    file.write_bytes(content) if isinstance(content, bytes) else content(file)
    with pytest.raises(FileError, match=rf"x\.pth {reason}"):
        read_weights_file(file)


def test_shards_are_read_through_their_index_or_folder_and_alone_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state, files = weights(18), ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    parts = [{n: t for i, (n, t) in enumerate(state.items()) if i % 2 == half} for half in (0, 1)]
    for part, file in zip(parts, files, strict=True):
        save_file(part, tmp_path / file)
    index = {"weight_map": {name: file for part, file in zip(parts, files, strict=True) for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_weights_file(tmp_path / "model.safetensors.index.json").keys() == state.keys()
    assert read(tmp_path).arch == "resnet18-width8"
    with pytest.raises(FileError, match=r"is one shard of a checkpoint; give the index beside it"):
        read_weights_file(tmp_path / files[0])
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps(1))
    with pytest.raises(FileError, match=r"format_utils dcp_to_torch"):
        read_weights_file(tmp_path / "dcp")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.ones(8, 3, 7, 7).to(torch.float8_e4m3fn), r"conv1\.weight is torch\.float8_e4m3fn, quantised"),
        (torch.ones(8, 3, 7, 7, device="meta"), r"conv1\.weight has no values \(meta device\)"),
        (torch.ones(8, 3, 7, 7).to_sparse(), r"conv1\.weight is sparse"),
    ],
    ids=["float8", "meta", "sparse"],
)
def test_tensors_without_plain_values_are_one_line(tmp_path: Path, value: Tensor, reason: str) -> None:
    torch.save(weights(18) | {"conv1.weight": value}, tmp_path / "a.pth")
    with pytest.raises(FileError, match=reason):
        convert(tmp_path / "a.pth", tmp_path / "a.pkl", target="detectron2")


def timms(name: str) -> dict[str, Tensor]:
    return timm.create_model(name, pretrained=False).state_dict()


def scripted(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.script(torch.nn.Conv2d(3, 8, 7)).save(path)


def spread(path: Path) -> None:
    """Save a distributed tensor, as FSDP2 leaves them in a state dict."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        from torch.distributed.tensor import distribute_tensor, init_device_mesh

        mesh = init_device_mesh("cpu", (1,))
        torch.save({name: distribute_tensor(tensor, mesh) for name, tensor in weights(18).items()}, path)
    finally:
        torch.distributed.destroy_process_group()


def gathered(path: Path) -> None:
    """Do the same through what the message names."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    network = ResNet(ResNet.Config(depth=18, width=8))
    torch.save(get_model_state_dict(network, options=StateDictOptions(full_state_dict=True)), path)


def in_parts(path: Path) -> None:
    from torch.distributed import checkpoint

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one process that saves without others
        checkpoint.save(weights(18), checkpoint_id=path)


def joined(path: Path) -> None:
    source = path.with_name("refused.pth")
    command = ["-m", "torch.distributed.checkpoint.format_utils", "dcp_to_torch", str(source), str(path)]
    subprocess.run([sys.executable, "-W", "ignore", *command], check=True, capture_output=True)


def packed(path: Path) -> None:
    torch.save(weights(18), path.with_name("inside.pth"))
    with tarfile.open(path, "w:gz") as archive:
        archive.add(path.with_name("inside.pth"), "inside.pth")


def unpacked(path: Path) -> None:
    with tarfile.open(path.with_name("refused.pth")) as archive:
        path.write_bytes(archive.extractfile("inside.pth").read())  # type: ignore[union-attr]


def saved(content: Any) -> Any:
    return lambda path: torch.save(content(), path)


DEEP, TWO = {"stem.0.weight": torch.ones(32, 3, 3, 3)}, {"module": weights(18), "ema": weights(18)}
SLIM = saved(lambda: weights(18))
# what is refused and how, what the message tells to do instead, and the options that it names
REFUSALS: dict[str, tuple[Any, str, Any, dict[str, str]]] = {
    "several backbones": (saved(lambda: TWO), r"plain:\. or plain:ema\.$", None, {"dialect": "plain:."}),
    "the other of them": (saved(lambda: TWO), r"plain:\. or plain:ema\.$", None, {"dialect": "plain:ema."}),
    "another layout": (SLIM, r"leave --source out", None, {}),
    "another network": (SLIM, r"holds a resnet18-width8, not a resnet50; leave --arch out", None, {}),
    "deep stem": (
        saved(lambda: {n: t for n, t in weights().items() if not n.startswith("conv1")} | DEEP),
        r"--arch resnet50d\)", saved(lambda: timms("resnet50d")), {"arch": "resnet50d"},
    ),
    "GroupNorm": (
        saved(lambda: {n: t for n, t in weights().items() if "running" not in n}),
        r"--arch resnet50_gn\)", saved(lambda: timms("resnet50_gn")), {"arch": "resnet50_gn"},
    ),
    "CLIP": (
        saved(lambda: weights() | {"attnpool.positional_embedding": torch.ones(2)}),
        r"--arch resnet50_clip\)", saved(lambda: timms("resnet50_clip")), {"arch": "resnet50_clip"},
    ),
    "grouped": (
        saved(lambda: weights() | {"layer1.0.conv2.weight": torch.ones(8, 2, 3, 3)}),
        r"--arch, such as resnext50_32x4d$", saved(lambda: timms("resnext50_32x4d")), {"arch": "resnext50_32x4d"},
    ),
    "another depth": (
        saved(lambda: {n: t for n, t in weights().items() if not n.startswith("layer3.5")}),
        r"--arch, such as resnet152$", saved(lambda: timms("resnet152")), {"arch": "resnet152"},
    ),
    "a slim one": (SLIM, r"use --target safetensors$", None, {"target": "safetensors"}),
    "Caffe's": (
        lambda path: torch.save(weights(folded=True), path),
        r"choose detectron2, mmseg, mmdet, classification or safetensors$", None, {"target": "detectron2"},
    ),
    "CIFAR's stem": (
        saved(lambda: ResNet(ResNet.Config(depth=18, width=8, stem="cifar")).state_dict()),
        r"pre-train with backbone\.stem=imagenet$",
        saved(lambda: ResNet(ResNet.Config(depth=18, width=8, stem="imagenet")).state_dict()), {},
    ),
    "a program": (scripted, r"TorchScript program, not weights; save its state_dict", SLIM, {}),
    "an object": (
        lambda path: torch.save(ResNet(ResNet.Config(depth=18, width=8)), path), r"save only tensors", SLIM, {},
    ),
    "a list": (saved(lambda: list(weights(18).values())), r"save a state_dict$", SLIM, {}),
    "distributed tensors": (spread, r"\(DTensor\); .*get_model_state_dict and full_state_dict=True", gathered, {}),
    "a distributed checkpoint": (in_parts, r"dcp_to_torch .*refused\.pth whole\.pth", joined, {}),
    "an archive": (packed, r"unpack it and give the checkpoint inside$", unpacked, {}),
    "float8": (
        saved(lambda: weights(18) | {"conv1.weight": torch.ones(8, 3, 7, 7).to(torch.float8_e4m3fn)}),
        r"give the weights before quantisation$", SLIM, {},
    ),
    "torchvision's other": (
        saved(lambda: {"trunk_output.x.weight": torch.ones(2, 2, 3, 3)}), r"take timm's weights of it",
        saved(lambda: timm.create_model("regnety_002").state_dict()), {},
    ),
    "no backbone": (saved(lambda: {"fc.weight": torch.ones(2, 2)}), r"only a projector or classifier", SLIM, {}),
}  # fmt: skip
ASKED = {
    "another layout": {"dialect": "moco"},
    "another network": {"arch": "resnet50"},
    "a slim one": {"target": "torchvision"},
    "Caffe's": {"target": "torchvision"},
}


@pytest.mark.parametrize("case", REFUSALS)
def test_the_step_that_a_refusal_prints_is_followed_and_works(tmp_path: Path, case: str) -> None:
    make, message, instead, options = REFUSALS[case]
    suffixes, usual = {"safetensors": ".safetensors", "torchvision": ".pth"}, {"target": "detectron2"}
    asked = usual | ASKED.get(case, {})
    make(refused := tmp_path / "refused.pth")
    with pytest.raises(InputError, match=message):
        convert(refused, tmp_path / f"a{suffixes.get(asked['target'], '.pkl')}", **asked)
    if instead is not None:
        instead(refused := tmp_path / "whole.pth")
    followed = usual | options
    proof = convert(refused, tmp_path / f"b{suffixes.get(followed['target'], '.pkl')}", **followed)
    assert proof.tensors_mapped == proof.tensors_expected > 0
