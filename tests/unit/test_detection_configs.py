"""Every shipped detection config states the facts of the design's table, and does what its name says."""

import re
from pathlib import Path
from typing import Any

import pytest

from transfer.detection import parts
from transfer.detection.datasets import DatasetCatalog
from transfer.detection.injection import facts, get, leaves
from transfer.detection.run import read_config
from transfer.recipe import Recipe

FOLDER = Path(__file__).parents[2] / "configs" / "transfer" / "detection"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
NAME = re.compile(
    r"(?P<method>mask|faster)-rcnn_r(?P<depth>\d+)(?:w(?P<width>\d+))?-(?P<neck>c4|fpn)(?P<heads>-4conv1fc)?"
    r"_(?P<devices>\d+)xb(?P<images>\d+)-(?P<iterations>\d+k?)_(?P<data>[a-z0-9-]+)"
)
DATA = {
    "voc07": ("voc_2007_trainval", "voc_2007_test"),
    "coco": ("coco_2017_train", "coco_2017_val"),
    "voc0712": ("voc_2007_trainval", "voc_2012_trainval", "voc_2007_test"),
    "shapes": ("shapes_train", "shapes_val"),
    "tiny-coco": ("tiny_coco_train", "tiny_coco_val"),
    "tiny-coco-few": ("tiny_coco_few", "tiny_coco_few"),
}


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def config(request: pytest.FixtureRequest) -> tuple[Any, re.Match[str]]:
    name = NAME.fullmatch(request.param.stem)
    assert name, f"{request.param.name} does not follow the grammar of the other names"
    return read_config(str(request.param), [])[0], name


def test_there_are_configs_for_each_protocol_of_the_design() -> None:
    names = {path.stem for path in CONFIGS}
    assert {
        "mask-rcnn_r50-c4_8xb2-90k_coco",
        "mask-rcnn_r50-fpn_8xb2-90k_coco",
        "mask-rcnn_r18-fpn_8xb2-90k_coco",
        "faster-rcnn_r50-c4_8xb2-24k_voc0712",
    } <= names


def test_the_weights_facts_hold(config: tuple[Any, re.Match[str]]) -> None:
    cfg, name = config
    recipe = Recipe(depth=int(name["depth"]), width=int(name["width"] or 64))
    assert {key: get(cfg, key) for key in facts(recipe)} == facts(recipe)


def test_nothing_is_frozen_and_all_norms_are_trained_and_synchronised(config: tuple[Any, re.Match[str]]) -> None:
    cfg, name = config
    assert cfg.MODEL.BACKBONE.FREEZE_AT == 0
    assert cfg.MODEL.RESNETS.NORM == "SyncBN"
    assert cfg.TEST.PRECISE_BN.ENABLED
    if name["neck"] == "fpn":
        assert cfg.MODEL.FPN.NORM == "SyncBN"
    heads = "SyncBN" if name["heads"] else ""  # MoCo's protocol: the heads have no norm but C4's extra one
    assert (cfg.MODEL.ROI_BOX_HEAD.NORM, cfg.MODEL.ROI_MASK_HEAD.NORM) == (heads, heads)
    if name["heads"]:
        assert (cfg.MODEL.ROI_BOX_HEAD.NUM_CONV, cfg.MODEL.ROI_BOX_HEAD.NUM_FC) == (4, 1)


def test_c4_has_the_extra_norm(config: tuple[Any, re.Match[str]]) -> None:
    cfg, name = config
    heads = parts.Res5ROIHeadsExtraNorm.__name__ if name["neck"] == "c4" else "StandardROIHeads"
    assert heads == cfg.MODEL.ROI_HEADS.NAME


def test_method_batch_schedule_and_data_are_those_of_the_name(config: tuple[Any, re.Match[str]]) -> None:
    cfg, name = config
    assert cfg.MODEL.MASK_ON is (name["method"] == "mask")
    assert int(name["devices"]) == cfg.SOLVER.REFERENCE_WORLD_SIZE
    assert int(name["devices"]) * int(name["images"]) == cfg.SOLVER.IMS_PER_BATCH
    assert int(name["iterations"].replace("k", "000")) == cfg.SOLVER.MAX_ITER
    assert DATA[name["data"]] == (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    assert max(cfg.SOLVER.STEPS) < cfg.SOLVER.MAX_ITER
    assert set(DATA[name["data"]]) <= set(DatasetCatalog.list())


def test_published_schedules_are_the_published_ones() -> None:
    coco = read_config(str(FOLDER / "mask-rcnn_r50-c4_8xb2-90k_coco.yaml"), [])[0].SOLVER
    voc = read_config(str(FOLDER / "faster-rcnn_r50-c4_8xb2-24k_voc0712.yaml"), [])[0]
    assert (coco.BASE_LR, coco.STEPS, coco.WARMUP_ITERS) == (0.02, (60000, 80000), 1000)
    assert (voc.SOLVER.BASE_LR, voc.SOLVER.STEPS, voc.SOLVER.WARMUP_ITERS) == (0.02, (18000, 22000), 100)
    assert tuple(range(480, 801, 32)) == voc.INPUT.MIN_SIZE_TRAIN
    assert (voc.MODEL.RPN.PRE_NMS_TOPK_TEST, voc.MODEL.RPN.POST_NMS_TOPK_TEST) == (6000, 1000)


def test_no_two_bases_of_a_config_set_the_same_key() -> None:
    from detectron2.config import CfgNode

    for path in CONFIGS:
        bases = re.search(r"_BASE_: \[(.+)\]", path.read_text())
        assert bases, f"{path.name} names no bases"
        seen: dict[str, str] = {}
        for base in bases[1].split(", "):
            for key, _ in leaves(CfgNode.load_yaml_with_base(str(FOLDER / base))):
                assert key not in seen, f"{path.name}: {key} is in {seen[key]} and in {base}"
                seen[key] = base
