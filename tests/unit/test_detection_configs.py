"""Every shipped detection config does what its name says, and is composed without overlap (its facts: test_facts.py)."""

import re
from pathlib import Path

import pytest
from shipped_configs import DETECTION, Name, load_detection, shipped

from core.run_folder import flat
from transfer.convert.recipe import Recipe
from transfer.frameworks.detectron2.datasets import DatasetCatalog
from transfer.frameworks.detectron2.run import read_config
from transfer.frameworks.detectron2.weights import FAMILIES, get

FOLDER = DETECTION[0].parent
DATA = {
    "coco": ("coco_2017_train", "coco_2017_val"),
    "voc07": ("voc_2007_trainval", "voc_2007_test"),
    "voc0712": ("voc_2007_trainval", "voc_2012_trainval", "voc_2007_test"),
    "shapes": ("shapes_train", "shapes_val"),
    "tiny-coco": ("tiny_coco_train", "tiny_coco_val"),
    "tiny-coco-few": ("tiny_coco_few", "tiny_coco_few"),
}


def test_there_are_configs_for_each_protocol_of_the_design() -> None:
    assert {path.stem for path in DETECTION} >= {
        "faster-rcnn_r50-c4_8xb2-9k_voc07",
        "faster-rcnn_r50-c4_8xb2-24k_voc0712",
        *(f"mask-rcnn_r50-{neck}_8xb2-{k}_coco" for neck in ("c4", "fpn", "fpn-4conv1fc") for k in ("90k", "180k")),
        "mask-rcnn_r18-fpn_8xb2-90k_coco",
        "mask-rcnn_r34-fpn_8xb2-90k_coco",
    }


@shipped("detection", DETECTION)
def test_our_tool_reads_the_config_as_detectron2_does_and_accepts_its_weights(path: Path, name: Name) -> None:
    cfg, _ = read_config(str(path), [])
    assert cfg.SOLVER.MAX_ITER == load_detection(path).SOLVER.MAX_ITER
    if not name["family"]:
        wanted = FAMILIES["resnet"].facts(Recipe(depth=name["depth"], width=name["width"]))
        assert {key: get(cfg, key) for key in wanted} == wanted


@shipped("detection", DETECTION)
def test_the_data_is_that_of_the_name_and_registered(path: Path, name: Name) -> None:
    cfg = load_detection(path)
    assert DATA[name["data"]] == (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    assert set(DATA[name["data"]]) <= set(DatasetCatalog.list())


@pytest.mark.parametrize(
    ("name", "steps", "warm_up"),
    [
        ("faster-rcnn_r50-c4_8xb2-9k_voc07", (6750, 8250), 100),
        ("faster-rcnn_r50-c4_8xb2-24k_voc0712", (18000, 22000), 100),
        ("mask-rcnn_r50-c4_8xb2-90k_coco", (60000, 80000), 1000),
        ("mask-rcnn_r50-c4_8xb2-180k_coco", (120000, 160000), 1000),
        ("mask-rcnn_r50-fpn_8xb2-180k_coco", (120000, 160000), 1000),
        ("mask-rcnn_r50-fpn-4conv1fc_8xb2-90k_coco", (60000, 80000), 1000),
    ],
)
def test_published_schedules_are_the_published_ones(name: str, steps: tuple[int, ...], warm_up: int) -> None:
    solver = load_detection(FOLDER / f"{name}.yaml").SOLVER
    assert (0.02, 16, steps, warm_up) == (solver.BASE_LR, solver.IMS_PER_BATCH, solver.STEPS, solver.WARMUP_ITERS)


@pytest.mark.parametrize("length", ["9k_voc07", "24k_voc0712"])
def test_voc_has_mocos_scales_and_regions(length: str) -> None:
    voc = load_detection(FOLDER / f"faster-rcnn_r50-c4_8xb2-{length}.yaml")
    assert (tuple(range(480, 801, 32)), 800) == (voc.INPUT.MIN_SIZE_TRAIN, voc.INPUT.MIN_SIZE_TEST)
    assert (voc.MODEL.RPN.PRE_NMS_TOPK_TEST, voc.MODEL.RPN.POST_NMS_TOPK_TEST) == (6000, 1000)


def test_no_two_bases_of_a_config_set_the_same_key() -> None:
    from detectron2.config import CfgNode

    for path in DETECTION:
        bases = re.search(r"_BASE_: \[(.+)\]", path.read_text())
        assert bases, f"{path.name} names no bases"
        seen: dict[str, str] = {}
        for base in bases[1].split(", "):
            for key, _ in flat(CfgNode.load_yaml_with_base(str(FOLDER / base))):
                assert key not in seen, f"{path.name}: {key} is in {seen[key]} and in {base}"
                seen[key] = base
