"""Config and weights file agree, or the run is refused with the key and both values."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import InputError
from core.files import FileError
from transfer.convert.recipe import Recipe
from transfer.frameworks.mmseg import compat
from transfer.frameworks.mmseg.run import read_config, take_checkpoint
from transfer.frameworks.mmseg.weights import Weights, inject, read_weights

CONFIGS = Path(__file__).parents[2] / "configs" / "transfer" / "segmentation"
R50 = CONFIGS / "fcn_r50-d8_4xb4-20k_voc12aug-512x512.py"


def weights(**facts: Any) -> Weights:
    return Weights(Path("file.pth"), {}, Recipe(**facts))


def config(*options: str) -> compat.Config:
    return read_config(R50, options)


def test_what_the_config_leaves_unset_comes_from_the_weights_file() -> None:
    cfg = config()
    cfg.model.data_preprocessor = {"type": "SegDataPreProcessor", "size": (64, 64)}
    for key in ("depth", "base_channels", "stem_channels", "style", "contract_dilation"):
        del cfg.model.backbone[key]
    del cfg.model.decode_head["in_channels"], cfg.model.auxiliary_head["in_channels"]
    inject(cfg, weights(depth=18, width=16), R50)
    backbone, pixels = cfg.model.backbone, cfg.model.data_preprocessor
    assert (backbone.depth, backbone.base_channels, backbone.stem_channels) == (18, 16, 16)
    assert (backbone.style, backbone.contract_dilation) == ("pytorch", True)
    assert (pixels["mean"], pixels["std"]) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    assert pixels["bgr_to_rgb"] is True
    assert (cfg.model.decode_head.in_channels, cfg.model.auxiliary_head.in_channels) == (128, 64)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.backbone.type=ResNetV1c", "model.backbone.type is 'ResNetV1c', but it must be 'ResNet'"),
        ("model.backbone.style=caffe", "model.backbone.style is 'caffe', but it must be 'pytorch'"),
        ("model.backbone.frozen_stages=1", "model.backbone.frozen_stages is 1, but it must be -1"),
        ("model.backbone.norm_eval=True", "model.backbone.norm_eval is True, but it must be False"),
        ("model.backbone.contract_dilation=False", "model.backbone.contract_dilation is False, but it must be True"),
        ("model.backbone.depth=18", "model.backbone.depth is 18, but it must be 50"),
        ("model.backbone.base_channels=16", "model.backbone.base_channels is 16, but it must be 64"),
        ("model.data_preprocessor.mean=[0,0,0]", "model.data_preprocessor.mean is [0, 0, 0], but it must be [123.675"),
        (
            "model.data_preprocessor.bgr_to_rgb=False",
            "model.data_preprocessor.bgr_to_rgb is False, but it must be True",
        ),
        ("model.decode_head.in_channels=512", "model.decode_head.in_channels is 512, but it must be 2048"),
        (
            "model.pretrained=torchvision://resnet50",
            "model.pretrained is 'torchvision://resnet50', but it must be None",
        ),
        ("load_from=other.pth", "load_from is 'other.pth', but it must be None"),
    ],
)
def test_a_contradiction_is_refused_with_the_key_and_both_values(option: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        inject(config(option), weights(), R50)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"stem": "cifar"}, "its recipe has stem 'cifar'"),
        ({"stride_in_1x1": True}, "its recipe has stride_in_1x1 True"),
        ({"channel_order": "BGR"}, "model.data_preprocessor.bgr_to_rgb is True, but it must be False"),
        ({"width": 32}, "model.backbone.base_channels is 64, but it must be 32 (file.pth says so)"),
    ],
)
def test_weights_for_another_network_are_refused(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        inject(config(), weights(**facts), R50)


CONVNEXT: dict[str, Any] = {
    "family": "convnext",
    "depth": 18,
    "width": 96,
    "stem": "patch",
    "norm": "LN",
    "blocks": (3, 3, 9, 3),
}
UPERNET = CONFIGS / "upernet_convnext-t_4xb4-160k_ade20k-512x512.py"


def test_convnext_weights_fit_their_own_config_and_fill_what_it_leaves_open() -> None:
    cfg = read_config(UPERNET, [])
    before = cfg.model.to_dict()
    inject(cfg, weights(**CONVNEXT), UPERNET)
    assert cfg.model.to_dict() == before
    inject(cfg, None, UPERNET)  # random weights
    del cfg.model.backbone["blocks"], cfg.model.backbone["width"], cfg.model.decode_head["in_channels"]
    slim = {**CONVNEXT, "blocks": (1, 1, 2, 1), "width": 8, "depth": 5}
    cfg.model.auxiliary_head.in_channels = 32
    inject(cfg, weights(**slim), UPERNET)
    assert (cfg.model.backbone.blocks, cfg.model.decode_head.in_channels) == ([1, 1, 2, 1], [8, 16, 32, 64])


def test_weights_of_one_family_in_the_config_of_another_are_refused() -> None:
    with pytest.raises(InputError, match=r"model\.backbone\.type is 'ResNet', but it must be 'ConvNeXt'"):
        inject(config(), weights(**CONVNEXT), R50)
    with pytest.raises(InputError, match=r"model\.backbone\.type is 'ConvNeXt', but it must be 'ResNet'"):
        inject(read_config(UPERNET, []), weights(), UPERNET)
    with pytest.raises(InputError, match=r"its recipe has family 'vit'; MMSegmentation has convnext, resnet here"):
        inject(config(), weights(family="vit"), R50)


def test_an_option_below_no_known_key_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"--cfg-options max_iters: no 'max_iters' in .*train_cfg"):
        config("max_iters=5")
    with pytest.raises(InputError, match=r"cannot read --cfg-options 'train_cfg'; write key=value"):
        config("train_cfg")


def test_a_pretrained_checkpoint_in_init_cfg_is_taken_out_so_that_mmengine_never_opens_it() -> None:
    cfg = config("model.backbone.init_cfg.type=Pretrained", "model.backbone.init_cfg.checkpoint=here.pth")
    assert take_checkpoint(cfg) == Path("here.pth")
    assert cfg.model.backbone.init_cfg is None


def test_a_file_with_other_names_is_refused_with_the_tool_that_makes_the_right_one(tmp_path: Path) -> None:
    file = tmp_path / "d2.pth"
    torch.save({"model": {"stem.conv1.weight": torch.zeros(1)}}, file)
    with pytest.raises(FileError, match=r"d2\.pth has no backbone under torchvision's names.*convert_to_mmseg"):
        read_weights(file)
