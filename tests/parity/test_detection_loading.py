"""Converted backbones arrive in Detectron2's detectors tensor by tensor, and compute what torchvision computes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from core.backbones.resnet import ResNet, rename
from core.checkpoint import save_backbone
from core.weights_file import read_weights_file
from transfer.convert.convert import convert
from transfer.convert.load_check import LoadError
from transfer.convert.recipe import Recipe
from transfer.frameworks.detectron2.compat import quiet
from transfer.frameworks.detectron2.run import read_config
from transfer.frameworks.detectron2.weights import ProvenCheckpointer, backbone, inject

CONFIGS = Path(__file__).parents[2] / "configs" / "transfer" / "detection"
C4, FPN = "mask-rcnn_r50-c4_8xb2-90k_coco", "mask-rcnn_r50-fpn_8xb2-90k_coco"
IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def detector(config: str, **recipe: int) -> nn.Module:
    from detectron2.modeling import build_model

    small = ["MODEL.ROI_BOX_HEAD.FC_DIM", "8", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8"]  # heads are not what is tested
    cfg, explicit = read_config(str(CONFIGS / f"{config}.yaml"), ["MODEL.DEVICE", "cpu", *small])
    inject(cfg, Recipe(**recipe), explicit - {"MODEL.RESNETS.DEPTH", "MODEL.RESNETS.RES2_OUT_CHANNELS"}, "test")
    with quiet():
        return build_model(cfg).eval()


def randomised(network: nn.Module) -> nn.Module:
    """Give the norms statistics that a wrong name or order would show in the features."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if "running" in name or ("bn" in name and tensor.ndim == 1):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return network.eval()


def converted(folder: Path, depth: int, width: int = 64) -> Path:
    config = {"name": "resnet", "depth": depth, "width": width, "stem": "imagenet"}
    network = randomised(ResNet(ResNet.Config(**config)))
    save_backbone(folder / "backbone.pth", network.state_dict(), {"backbone": config})
    convert(folder / "backbone.pth", folder / "backbone.pkl", target="detectron2")
    return folder / "backbone.pkl"


def load(model: nn.Module, file: Path, folder: Path) -> int:
    checkpointer = ProvenCheckpointer(model, str(folder))
    checkpointer.resume_or_load(str(file), resume=False)
    return checkpointer.checked


@pytest.fixture(scope="module")
def slim_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(tmp_path_factory.mktemp("slim"), 18, 16)


def test_265_of_265_tensors_of_a_resnet50_load_into_c4_and_fpn(tmp_path: Path) -> None:
    file = converted(tmp_path, 50)
    for config in (C4, FPN):
        model = detector(config)
        assert load(model, file, tmp_path) == 265, config
        assert len(backbone(model.state_dict())) == 265, config


def test_a_slim_resnet18_loads_whole(slim_file: Path, tmp_path: Path) -> None:
    model = detector("mask-rcnn_r18-fpn_8xb2-90k_coco", depth=18, width=16)
    assert load(model, slim_file, tmp_path) == 100


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_features_of_all_four_stages_are_torchvisions(depth: int) -> None:
    reference = randomised(getattr(torchvision.models, f"resnet{depth}")())
    model = detector(FPN, depth=depth)
    rules = ResNet.rename_rules("detectron2")
    weights = {rename(k, rules): v for k, v in reference.state_dict().items() if not k.startswith("fc.")}
    model.backbone.bottom_up.load_state_dict(weights, strict=True)
    with torch.no_grad():
        found = model.backbone.bottom_up(IMAGES)
        expected = stages(reference, IMAGES)
    for name, value in expected.items():
        assert (found[name] - value).abs().max() < 1e-5, name


def test_c4_computes_torchvisions_features_up_to_the_extra_norm() -> None:
    reference = randomised(torchvision.models.resnet50())
    model = detector(C4)
    rules = ResNet.rename_rules("detectron2")
    weights = {rename(k, rules): v for k, v in reference.state_dict().items() if not k.startswith("fc.")}
    res5 = {k.removeprefix("res5."): v for k, v in weights.items() if k.startswith("res5.")}
    model.backbone.load_state_dict({k: v for k, v in weights.items() if not k.startswith("res5.")}, strict=True)
    missing, unexpected = model.roi_heads.res5.load_state_dict(res5, strict=False)
    assert {key.split(".")[0] for key in missing} == {"norm"}
    assert unexpected == []
    with torch.no_grad():
        expected = stages(reference, IMAGES)
        res4 = model.backbone(IMAGES)["res4"]
        assert (res4 - expected["res4"]).abs().max() < 1e-5
        assert (model.roi_heads.res5[:3](res4) - expected["res5"]).abs().max() < 1e-5


def test_the_slim_builder_is_the_slim_pre_training_network() -> None:
    reference = randomised(ResNet(ResNet.Config(depth=18, width=16)))
    model = detector("mask-rcnn_r18-fpn_8xb2-90k_coco", depth=18, width=16)
    rules = ResNet.rename_rules("detectron2")
    model.backbone.bottom_up.load_state_dict({rename(k, rules): v for k, v in reference.state_dict().items()})
    with torch.no_grad():
        found, expected = model.backbone.bottom_up(IMAGES), reference.stages(IMAGES)
    for index, value in enumerate(expected, 2):
        assert (found[f"res{index}"] - value).abs().max() < 1e-5, index


def test_an_altered_tensor_is_found_and_named(slim_file: Path, tmp_path: Path) -> None:
    model = detector("mask-rcnn_r18-fpn_8xb2-90k_coco", depth=18, width=16)
    checkpointer = ProvenCheckpointer(model, str(tmp_path))
    apply = checkpointer._load_model

    def altered(content: dict[str, Any]) -> Any:
        incompatible = apply(content)
        with torch.no_grad():
            model.backbone.bottom_up.res4[1].conv2.weight[0, 0, 0, 0] += 1e-3
        return incompatible

    checkpointer._load_model = altered
    with pytest.raises(LoadError, match=r"^res4\.1\.conv2\.weight differs"):
        checkpointer.resume_or_load(str(slim_file), resume=False)


def test_a_file_without_a_part_of_the_backbone_is_refused(slim_file: Path, tmp_path: Path) -> None:
    tensors = read_weights_file(slim_file)["model"]
    part = {k: torch.as_tensor(v) for k, v in tensors.items() if not k.startswith("res5.")}
    torch.save({"model": part}, tmp_path / "part.pth")
    model = detector("mask-rcnn_r18-fpn_8xb2-90k_coco", depth=18, width=16)
    with pytest.raises(LoadError, match=r"lacks 25 of 100 backbone tensors, first res5\.0"):
        load(model, tmp_path / "part.pth", tmp_path)


def test_weights_of_another_width_are_refused(slim_file: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="has shape"):
        load(detector("mask-rcnn_r18-fpn_8xb2-90k_coco"), slim_file, tmp_path)


def stages(network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    features = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    found = {}
    for index in range(1, 5):
        features = getattr(network, f"layer{index}")(features)
        found[f"res{index + 1}"] = features
    return found
