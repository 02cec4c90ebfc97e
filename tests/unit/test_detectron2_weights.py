"""What the weights decide is written into a config or refused, and the load check guards also configs that are not ours."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import get_cfg
from torch import nn

from core.backbones.resnet import ResNet
from core.checkpoint import save_backbone
from core.errors import InputError
from core.files import FileError
from transfer.convert import recipe
from transfer.convert.convert import convert
from transfer.convert.load_check import LoadError
from transfer.convert.recipe import Recipe
from transfer.frameworks.detectron2 import weights
from transfer.frameworks.detectron2.compat import quiet
from transfer.frameworks.detectron2.run import read_config
from transfer.frameworks.detectron2.weights import ProvenCheckpointer, inject, refuse_impossible

CONFIGS = Path(__file__).parents[2] / "configs" / "transfer" / "detection"


@pytest.fixture
def cfg() -> Any:
    return get_cfg()  # Detectron2's defaults: BGR, std 1, stride in the 1x1


def test_what_the_config_leaves_open_is_set(cfg: Any) -> None:
    inject(cfg, Recipe(depth=101), set(), "weights.pkl")
    assert cfg.INPUT.FORMAT == "RGB"
    assert cfg.MODEL.PIXEL_MEAN == [123.675, 116.28, 103.53]
    assert cfg.MODEL.PIXEL_STD == [58.395, 57.12, 57.375]
    assert cfg.MODEL.RESNETS.STRIDE_IN_1X1 is False
    assert cfg.MODEL.RESNETS.DEPTH == 101


def test_a_slim_basic_network_sets_its_width_and_the_builder_that_allows_it(cfg: Any) -> None:
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    inject(cfg, Recipe(depth=18, width=16), set(), "weights.pkl")
    assert (cfg.MODEL.RESNETS.STEM_OUT_CHANNELS, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS) == (16, 16)
    assert cfg.MODEL.BACKBONE.NAME == "build_slim_resnet_fpn_backbone"


def test_a_slim_bottleneck_network_sets_all_three_widths(cfg: Any) -> None:
    inject(cfg, Recipe(depth=50, width=32), set(), "weights.pkl")
    settings = cfg.MODEL.RESNETS
    assert (settings.STEM_OUT_CHANNELS, settings.RES2_OUT_CHANNELS, settings.WIDTH_PER_GROUP) == (32, 128, 32)


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("INPUT.FORMAT", "BGR", "'RGB'"),
        ("MODEL.RESNETS.DEPTH", 101, "50"),
        ("MODEL.RESNETS.STRIDE_IN_1X1", True, "False"),
        ("MODEL.PIXEL_STD", [1.0, 1.0, 1.0], r"\[58\.395, 57\.12, 57\.375\]"),
    ],
)
def test_a_contradiction_is_refused_with_the_key_and_both_values(cfg: Any, key: str, value: Any, needed: str) -> None:
    cfg.merge_from_list([key, value])
    with pytest.raises(InputError, match=rf"^{key} is .*needs {needed}; ") as error:
        inject(cfg, Recipe(), {key}, "weights.pkl")
    assert repr(value) in str(error.value)


def test_a_key_written_with_the_default_value_counts_as_written(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("MODEL: {RESNETS: {STRIDE_IN_1X1: True}}\n")
    cfg, explicit = read_config(str(path), ["INPUT.FORMAT", "BGR"])
    assert explicit == {"MODEL.RESNETS.STRIDE_IN_1X1", "INPUT.FORMAT"}
    with pytest.raises(InputError, match=r"INPUT\.FORMAT is 'BGR'"):
        inject(cfg, Recipe(), explicit, "weights.pkl")


@pytest.mark.parametrize(("name", "value"), [("family", "vit"), ("stem", "cifar"), ("norm", "LN")])
def test_weights_that_detectron2s_resnet_cannot_hold_are_refused(cfg: Any, name: str, value: str) -> None:
    with pytest.raises(InputError, match=f"its recipe has {name} '{value}'"):
        inject(cfg, Recipe(**{name: value}), set(), "weights.pkl")


@pytest.mark.parametrize("depth", [18, 34])
def test_basic_blocks_through_detectron2s_own_c4_are_refused(cfg: Any, depth: int) -> None:
    inject(cfg, Recipe(depth=depth), set(), "weights.pkl")
    with pytest.raises(InputError, match=f"DEPTH is {depth} .*three bottleneck blocks.*or an FPN config"):
        refuse_impossible(cfg)
    cfg.MODEL.ROI_HEADS.NAME = "Res5ROIHeadsExtraNorm"  # ours has basic blocks
    refuse_impossible(cfg)


CONVNEXT = Recipe(family="convnext", depth=18, width=96, stem="patch", norm="LN", blocks=(3, 3, 9, 3))


def test_convnext_weights_fit_their_own_config_and_set_what_it_leaves_open(cfg: Any) -> None:
    shipped, explicit = read_config(str(CONFIGS / "mask-rcnn_convnext-t-fpn_8xb2-90k_coco.yaml"), [])
    assert inject(shipped, CONVNEXT, explicit, "weights.pkl") == []
    slim = dataclasses.replace(CONVNEXT, blocks=(1, 1, 2, 1), width=8, depth=5)
    inject(shipped, slim, explicit, "weights.pkl")
    assert (shipped.MODEL.CONVNEXT.BLOCKS, shipped.MODEL.CONVNEXT.WIDTH) == ([1, 1, 2, 1], 8)


def test_convnext_weights_in_a_resnets_config_are_refused(cfg: Any) -> None:
    resnet, explicit = read_config(str(CONFIGS / "mask-rcnn_r50-fpn_8xb2-90k_coco.yaml"), [])
    with pytest.raises(
        InputError, match=r"MODEL\.BACKBONE\.NAME is 'build_resnet_fpn_backbone'.*needs 'build_convnext_fpn"
    ):
        inject(resnet, CONVNEXT, explicit, "weights.pkl")
    c4, explicit = read_config(str(CONFIGS / "mask-rcnn_r50-c4_8xb2-90k_coco.yaml"), [])
    inject(c4, CONVNEXT, explicit, "weights.pkl")
    with pytest.raises(InputError, match="C4 continues a ResNet in its heads; use an FPN config"):
        refuse_impossible(c4)


def test_an_unknown_key_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"SOLVER\.BASE_LRR"):
        read_config("", ["SOLVER.BASE_LRR", "1"])
    with pytest.raises(InputError, match=r"no config file .*nowhere\.yaml"):
        read_config(str(tmp_path / "nowhere.yaml"), [])


SMALL = [
    "MODEL.DEVICE",
    "cpu",
    "MODEL.ROI_BOX_HEAD.FC_DIM",
    "8",
    "MODEL.ROI_MASK_HEAD.CONV_DIM",
    "8",
    "MODEL.MASK_ON",
    "False",
]
PLAIN = {
    "nothing but options": ["MODEL.BACKBONE.FREEZE_AT", "2"],  # Detectron2's defaults are a C4 with frozen norms
    "dilated C5": ["MODEL.RESNETS.OUT_FEATURES", "['res5']", "MODEL.RESNETS.RES5_DILATION", "2",
                   "MODEL.RPN.IN_FEATURES", "['res5']",
                   "MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.ROI_HEADS.IN_FEATURES", "['res5']",
                   "MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", "2",
                   "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", "7"],
    "RetinaNet": ["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone",
                  "MODEL.RESNETS.OUT_FEATURES", "['res3', 'res4', 'res5']", "MODEL.FPN.IN_FEATURES", "['res3', 'res4', 'res5']",
                  "MODEL.FPN.OUT_CHANNELS", "16"],
}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("r50")
    config = {"name": "resnet", "depth": 50, "width": 64, "stem": "imagenet"}
    save_backbone(folder / "r50.pth", ResNet(ResNet.Config(**config)).state_dict(), {"backbone": config})
    convert(folder / "r50.pth", folder / "r50.pkl", target="detectron2")
    return folder / "r50.pkl"


def built(file: Path, options: list[str]) -> tuple[Any, nn.Module]:
    from detectron2.modeling import build_model

    cfg, explicit = read_config("", [*SMALL, *options])
    found = recipe.read(file)
    assert found is not None
    weights.inject(cfg, found, explicit, file)
    with quiet():
        return cfg, build_model(cfg)


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
def test_all_265_tensors_are_found_and_compared(file: Path, tmp_path: Path, options: list[str]) -> None:
    cfg, model = built(file, options)
    assert (cfg.INPUT.FORMAT, cfg.MODEL.RESNETS.STRIDE_IN_1X1) == ("RGB", False)  # not the defaults
    checkpointer = ProvenCheckpointer(model, str(tmp_path))
    checkpointer.resume_or_load(str(file), resume=False)
    assert checkpointer.checked == 265


def test_one_altered_tensor_in_c4s_head_stops_the_run_with_its_name(file: Path, tmp_path: Path) -> None:
    _, model = built(file, PLAIN["nothing but options"])
    checkpointer = ProvenCheckpointer(model, str(tmp_path))
    apply = checkpointer._load_model

    def altered(content: dict[str, Any]) -> Any:
        incompatible = apply(content)
        with torch.no_grad():
            model.roi_heads.res5[2].conv3.weight[0, 0, 0, 0] += 1e-6
        return incompatible

    checkpointer._load_model = altered
    with pytest.raises(LoadError, match=r"^res5\.2\.conv3\.weight differs between the network and .*r50\.pkl"):
        checkpointer.resume_or_load(str(file), resume=False)


def test_the_pointer_to_the_last_checkpoint_cannot_leave_its_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    checkpointer = ProvenCheckpointer(nn.Linear(1, 1), str(tmp_path / "run"))
    checkpointer.save("model_0000001")
    torch.save({}, tmp_path / "elsewhere.pth")
    (tmp_path / "run" / "link.pth").symlink_to(tmp_path / "elsewhere.pth")
    for name in ("../elsewhere.pth", str(tmp_path / "elsewhere.pth"), "link.pth", "model_0000009.pth", "", "."):
        (tmp_path / "run" / "last_checkpoint").write_text(name)
        with pytest.raises(
            FileError, match=r"names '.*', which is no checkpoint of that folder \(there: .*model_0000001"
        ):
            checkpointer.resume_or_load("", resume=True)


def test_a_damaged_checkpoint_names_the_newest_good_one_and_a_pointer_that_was_not_written_is_made_up_for(
    tmp_path: Path,
) -> None:
    checkpointer = ProvenCheckpointer(nn.Linear(1, 1), str(tmp_path))
    for step in (1, 2, 3):
        checkpointer.save(f"model_{step}", iteration=step)
    (tmp_path / "last_checkpoint").unlink()
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 3
    for step in (2, 3):
        data = (tmp_path / f"model_{step}.pth").read_bytes()
        (tmp_path / f"model_{step}.pth").write_bytes(data[:-300])
    with pytest.raises(
        FileError, match=r"model_3\.pth is truncated.*; to go on .* write model_1\.pth into .*last_checkpoint"
    ):
        checkpointer.resume_or_load("", resume=True)


def test_addresses_and_pickled_proposals_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MODEL\.WEIGHTS is http://127\.0\.0\.1:9/w\.pkl; download it"):
        ProvenCheckpointer(nn.Linear(1, 1), str(tmp_path)).resume_or_load("http://127.0.0.1:9/w.pkl", resume=False)
    cfg, _ = read_config("", ["MODEL.LOAD_PROPOSALS", "True"])
    with pytest.raises(InputError, match=r"MODEL\.LOAD_PROPOSALS reads pickles"):
        refuse_impossible(cfg)
