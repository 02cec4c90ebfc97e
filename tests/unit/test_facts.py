"""One set of facts: rows of benchmarks keep their hashes; pre-training, Detectron2 and MMSegmentation agree in every config.

The table is the design's. Each config is loaded natively and compared with it; every fact is then contradicted on purpose in
every config, and must be found by its name and alone. A user's own file of rows works as the shipped ones do.
"""

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from shipped_configs import (
    DETECTION,
    PRETRAIN,
    ROOT,
    SEGMENTATION,
    Name,
    load_detection,
    load_pretrain,
    load_segmentation,
    shipped,
)

from core.errors import InputError
from transfer import benchmarks, frameworks
from transfer.benchmarks import Benchmark
from transfer.frameworks import protocol_hash

ROWS = benchmarks.shipped()
WRITTEN = json.loads(Path(__file__).with_name("protocol_hashes.json").read_text())  # before benchmarks became rows


@pytest.mark.parametrize("name", ROWS)
def test_the_configs_of_a_benchmark_exist_with_all_their_bases(name):
    row = ROWS[name]
    found = frameworks.of(row).config_files(row.config_file)
    assert found[-1] == row.config_file
    assert len(found) >= 4  # facts or model, data and schedule stand in bases
    assert all(path.is_file() for path in found)
    assert row.about.endswith((".", ")."))


@pytest.mark.parametrize("name", WRITTEN)
def test_the_hash_of_a_protocol_is_that_under_which_its_results_were_written(name):
    assert protocol_hash(ROWS[name]) == WRITTEN[name]


def test_no_two_benchmarks_have_the_same_protocol():
    assert len({protocol_hash(row) for row in ROWS.values()}) == len(ROWS)


def test_options_change_a_protocols_hash_and_its_title_does_not():
    row = ROWS["coco_c4"]
    assert protocol_hash(row.model_copy(update={"title": "another", "trials": 9, "about": "x"})) == protocol_hash(row)
    assert protocol_hash(row, ["SEED", "1"]) != protocol_hash(row)


@pytest.fixture
def mine(tmp_path):
    """Return a user's own file of rows, beside a config of the user's."""
    shipped = ROWS["coco_c4"].config_file
    (tmp_path / "own.yaml").write_text(f"_BASE_: {shipped}\nSOLVER: {{MAX_ITER: 9}}\n")
    row = {
        "title": "Mine", "config": "own.yaml", "train": "a", "test": "b", "metrics": ["bbox/AP"],
        "headline": "bbox/AP",
    }  # fmt: skip
    rows = {"_defaults": {"framework": "detectron2", "trials": 2}, "short": row, "long": {**row, "trials": 7}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(rows))
    return tmp_path / "mine.yaml"


def test_a_users_own_file_names_its_config_relative_to_itself_and_its_hash_does_not_depend_on_where_it_lies(
    mine, tmp_path
):
    short, long = (benchmarks.find(f"{mine}:{name}") for name in ("short", "long"))
    assert (short.framework, short.trials, long.trials, short.config_file) == (
        "detectron2", 2, 7, tmp_path / "own.yaml",
    )  # fmt: skip
    assert frameworks.of(short).config_files(short.config_file)[-2] == ROWS["coco_c4"].config_file
    (tmp_path / "there").mkdir()
    for file in (mine, tmp_path / "own.yaml"):
        (tmp_path / "there" / file.name).write_text(file.read_text())
    assert protocol_hash(benchmarks.find(f"{tmp_path / 'there' / 'mine.yaml'}:short")) == protocol_hash(short)
    before = protocol_hash(short)
    (tmp_path / "own.yaml").write_text("SOLVER: {MAX_ITER: 10}\n")
    assert protocol_hash(short) != before


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("", "coco_c5", "no benchmark 'coco_c5' in .*; did you mean coco_c4"),
        ("a: {title: t}", "mine.yaml:a", "mine.yaml: a has [0-9] problem"),
        ("a: 3", "mine.yaml:a", "mine.yaml: a is 3; a benchmark is a mapping"),
        ("a: {titel: t}", "mine.yaml:a", r"titel: no such setting; did you mean title\?"),
        ("_defaults: 1\na: {}", "mine.yaml:a", "_defaults is 1; give it the keys of a row"),
    ],
)
def test_what_is_no_row_is_refused_with_the_file_the_row_and_the_key(tmp_path, monkeypatch, text, name, said):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        benchmarks.find(name)


def test_a_missing_config_is_named_with_its_benchmark():
    with pytest.raises(InputError, match=r"cannot read a config of 'COCO C4 1x': .*none\.yaml: no such file"):
        protocol_hash(ROWS["coco_c4"].model_copy(update={"config": "none.yaml"}))


def test_a_headline_that_is_not_measured_is_refused():
    with pytest.raises(ValueError, match="headline 'b' is none of the metrics a"):
        Benchmark(title="t", framework="f", config="c", train="a", test="b", metrics=("a",), headline="b")


MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# where the frameworks' defaults or a published protocol say how fast a batch may be learned from
PUBLISHED_LR = {
    "detection": 0.02 / 16, "fcn": 0.01 / 16, "fcn-cityscapes": 0.01 / 8, "upernet": 0.01 / 16, "linear": 0.01 / 16,
    "fcn-16s": 0.003 / 16, "fcn-16s-cityscapes": 0.01 / 16,
}  # fmt: skip


def close(found: Any, wanted: tuple[float, ...]) -> bool:
    return tuple(found) == pytest.approx(wanted, rel=1e-6)


def pretrain_facts(cfg: Any, name: Name) -> dict[str, bool]:
    facts = {
        "mean": close([255 * value for value in cfg.views.mean], MEAN),
        "std": close([255 * value for value in cfg.views.std], STD),
        "batch": cfg.train.batch_size == name["devices"] * name["images"],
        "schedule": cfg.train.epochs == name["length"],
        "family": cfg.backbone.name == ("convnext" if name["family"] else "resnet"),
    }
    if not name["family"]:
        facts["depth"] = (cfg.backbone.depth, cfg.backbone.width) == (name["depth"], name["width"])
    if cfg.data.name in ("cifar", "shapes"):
        facts["no workers for a set in memory"] = cfg.train.workers == 0
    if name["images"] * name["devices"] >= 256:  # a published schedule, for GPUs
        facts["form measured"] = (cfg.run.channels_last, cfg.run.precision) == ("auto", "auto")
    return facts


def detection_facts(cfg: Any, name: Name) -> dict[str, bool]:
    model, solver, resnet = cfg.MODEL, cfg.SOLVER, cfg.MODEL.RESNETS
    facts = {
        "mean": close(model.PIXEL_MEAN, MEAN),
        "std": close(model.PIXEL_STD, STD),
        "channel order": cfg.INPUT.FORMAT == "RGB",
        "nothing frozen": model.BACKBONE.FREEZE_AT == 0,
        "batch": (name["devices"] * name["images"], name["devices"])
        == (solver.IMS_PER_BATCH, solver.REFERENCE_WORLD_SIZE),
        "schedule": name["length"] == solver.MAX_ITER and min(solver.STEPS) > 0 and max(solver.STEPS) < name["length"],
        "masks": model.MASK_ON is (name["method"] == "mask"),
        "no file": model.WEIGHTS == "",
    }
    if name["variant"] != "-plain":
        facts["precise statistics"] = bool(cfg.TEST.PRECISE_BN.ENABLED)
    if name["neck"] == "fpn":
        facts["norm of the FPN"] = ("" if name["variant"] in ("-plain", "-official") else "SyncBN") == model.FPN.NORM
        heads = "SyncBN" if name["heads"] else ""
        facts["norm of the heads"] = (heads, heads) == (model.ROI_BOX_HEAD.NORM, model.ROI_MASK_HEAD.NORM)
        facts["form of the box head"] = ((4, 1) if name["heads"] else (0, 2)) == (
            model.ROI_BOX_HEAD.NUM_CONV,
            model.ROI_BOX_HEAD.NUM_FC,
        )
    else:
        facts["extra norm"] = model.ROI_HEADS.NAME == "Res5ROIHeadsExtraNorm"
    if name["devices"] == 8 and not name["family"] and name["variant"] != "-spark":
        facts["lr per image"] = pytest.approx(PUBLISHED_LR["detection"]) == solver.BASE_LR / solver.IMS_PER_BATCH
    if not name["family"]:
        facts["stride"] = resnet.STRIDE_IN_1X1 is False
        facts["depth"] = name["depth"] == resnet.DEPTH
        facts["width"] = (name["width"], name["width"] * (1 if name["depth"] < 50 else 4)) == (
            resnet.STEM_OUT_CHANNELS,
            resnet.RES2_OUT_CHANNELS,
        )
        facts["norms trained and synchronised"] = (
            "naiveSyncBN" if name["variant"] == "-naivesyncbn" else "SyncBN"
        ) == resnet.NORM
    return facts


def segmentation_facts(cfg: Any, name: Name) -> dict[str, bool]:
    model, backbone, pixels = cfg.model, cfg.model.backbone, cfg.model.data_preprocessor
    batch = name["devices"] * name["images"]
    facts = {
        "mean": close(pixels.mean, MEAN),
        "std": close(pixels.std, STD),
        "channel order": pixels.bgr_to_rgb is True and pixels.get("rgb_to_bgr", False) is False,
        "batch": (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (name["images"], batch),
        "schedule": cfg.train_cfg.max_iters == max(s.end for s in cfg.param_scheduler) == name["length"],
        "crop": tuple(pixels["size"]) == (name["height"], name["across"]),
        "no file": not model.get("pretrained") and not backbone.get("init_cfg") and not cfg.get("load_from"),
    }
    if name["devices"] > 1 and not name["family"]:
        wanted = PUBLISHED_LR.get(f"{name['method']}-{name['data']}", PUBLISHED_LR[name["method"]])
        facts["lr per image"] = cfg.optim_wrapper.optimizer.lr / batch == pytest.approx(wanted)
    if not name["family"]:
        facts["the same ResNet"] = (backbone.type, backbone.style) == ("ResNet", "pytorch")
        facts["dilation"] = backbone.contract_dilation is True
        facts["depth"] = (backbone.depth, backbone.base_channels) == (name["depth"], name["width"])
        facts["width"] = backbone.stem_channels == name["width"]
        frozen = (4, True) if name["method"] == "linear" else (-1, False)
        facts["nothing frozen"] = (backbone.frozen_stages, backbone.norm_eval) == frozen
        facts["norms trained and synchronised"] = dict(backbone.norm_cfg) == {"type": "SyncBN", "requires_grad": True}
        heads = [head for key in ("decode_head", "auxiliary_head") if (head := model.get(key))]
        norms = [head.norm_cfg.type for head in heads if "norm_cfg" in head]
        facts["norm of the heads"] = norms == ["SyncBN"] * len(heads) * (name["method"] != "linear")
    return facts


def faults(facts: dict[str, bool]) -> set[str]:
    return {fact for fact, holds in facts.items() if not holds}


@shipped("pretrain", PRETRAIN)
def test_a_pre_training_config_agrees_with_the_table(path: Any, name: Name) -> None:
    assert faults(pretrain_facts(load_pretrain(path), name)) == set()


@shipped("detection", DETECTION)
def test_a_detectron2_config_agrees_with_the_table(path: Any, name: Name) -> None:
    assert faults(detection_facts(load_detection(path), name)) == set()


@shipped("segmentation", SEGMENTATION)
def test_an_mmsegmentation_config_agrees_with_the_table(path: Any, name: Name) -> None:
    assert faults(segmentation_facts(load_segmentation(path), name)) == set()


def test_the_config_of_the_worked_example_agrees_with_the_table(tmp_path: Path) -> None:
    written = re.findall(r"```yaml\n# (\S+)\n(.*?)```", (ROOT / "docs" / "add-a-benchmark.md").read_text(), re.S)
    assert len(written) == 2  # the config, and the row that names it
    shutil.copytree(DETECTION[0].parent, tmp_path / "detection")
    path = tmp_path / "detection" / Path(written[0][0]).name
    path.write_text(written[0][1])
    assert faults(detection_facts(load_detection(path), Name("detection", path))) == set()


# fact -> a key and the value that contradicts it, as a careless edit of a config would leave it
WRONG_DETECTION = {
    "mean": ("MODEL.PIXEL_MEAN", [103.53, 116.28, 123.675]),  # BGR's order
    "std": ("MODEL.PIXEL_STD", [1.0, 1.0, 1.0]),
    "channel order": ("INPUT.FORMAT", "BGR"),
    "stride": ("MODEL.RESNETS.STRIDE_IN_1X1", True),
    "depth": ("MODEL.RESNETS.DEPTH", 101),
    "width": ("MODEL.RESNETS.STEM_OUT_CHANNELS", 32),
    "nothing frozen": ("MODEL.BACKBONE.FREEZE_AT", 2),
    "norms trained and synchronised": ("MODEL.RESNETS.NORM", "FrozenBN"),
    "norm of the FPN": ("MODEL.FPN.NORM", "GN"),
    "norm of the heads": ("MODEL.ROI_MASK_HEAD.NORM", "BN"),
    "form of the box head": ("MODEL.ROI_BOX_HEAD.NUM_FC", 3),
    "extra norm": ("MODEL.ROI_HEADS.NAME", "Res5ROIHeads"),
    "precise statistics": ("TEST.PRECISE_BN.ENABLED", False),
    "batch": ("SOLVER.REFERENCE_WORLD_SIZE", 0),
    "lr per image": ("SOLVER.BASE_LR", 0.0025),
    "schedule": ("SOLVER.MAX_ITER", 12345),
    "no file": ("MODEL.WEIGHTS", "detectron2://ImageNetPretrained/MSRA/R-50.pkl"),
}
WRONG_SEGMENTATION = {
    "mean": ("model.data_preprocessor.mean", [103.53, 116.28, 123.675]),
    "std": ("model.data_preprocessor.std", [1.0, 1.0, 1.0]),
    "channel order": ("model.data_preprocessor.bgr_to_rgb", False),
    "the same ResNet": ("model.backbone.type", "ResNetV1c"), "dilation": ("model.backbone.contract_dilation", False),
    "depth": ("model.backbone.depth", 101), "width": ("model.backbone.stem_channels", 32),
    "nothing frozen": ("model.backbone.frozen_stages", 2),
    "norms trained and synchronised": ("model.backbone.norm_cfg.requires_grad", False),
    "norm of the heads": ("model.decode_head.norm_cfg.type", "BN"), "batch": ("train_dataloader.batch_size", 7),
    "crop": ("model.data_preprocessor.size", (65, 65)), "lr per image": ("optim_wrapper.optimizer.lr", 0.02),
    "schedule": ("train_cfg.max_iters", 12345), "no file": ("model.pretrained", "torchvision://resnet50"),
}  # fmt: skip
WRONG_PRETRAIN = {
    "mean": ("views.mean", (0.5, 0.5, 0.5)), "std": ("views.std", (0.5, 0.5, 0.5)), "depth": ("backbone.depth", 101),
    "batch": ("train.batch_size", 7), "schedule": ("train.epochs", 12345),
    "no workers for a set in memory": ("train.workers", 8), "form measured": ("run.channels_last", False),
}  # fmt: skip


@pytest.mark.parametrize("fact", WRONG_DETECTION)
def test_a_contradiction_in_any_detectron2_config_is_found_and_nothing_else(fact: str) -> None:
    key, value = WRONG_DETECTION[fact]
    tried = 0
    for path in DETECTION:
        name, cfg = Name("detection", path), load_detection(path).clone()
        if fact in detection_facts(cfg, name):
            cfg.merge_from_list([key, value])
            assert faults(detection_facts(cfg, name)) == {fact}, path.name
            tried += 1
    assert tried


@pytest.mark.parametrize("fact", WRONG_SEGMENTATION)
def test_a_contradiction_in_any_mmsegmentation_config_is_found_and_nothing_else(fact: str) -> None:
    key, value = WRONG_SEGMENTATION[fact]
    tried = 0
    for path in SEGMENTATION:
        name, cfg = Name("segmentation", path), copy.deepcopy(load_segmentation(path))
        if fact in segmentation_facts(cfg, name):
            cfg.merge_from_dict({key: value})
            assert faults(segmentation_facts(cfg, name)) == {fact}, path.name
            tried += 1
    assert tried


@pytest.mark.parametrize("fact", WRONG_PRETRAIN)
def test_a_contradiction_in_any_pre_training_config_is_found_and_nothing_else(fact: str) -> None:
    key, value = WRONG_PRETRAIN[fact]
    part, field = key.split(".")
    tried = 0
    for path in PRETRAIN:
        name, cfg = Name("pretrain", path), load_pretrain(path)
        if fact in pretrain_facts(cfg, name):
            inner = getattr(cfg, part).model_copy(update={field: value})
            changed = cfg.model_copy(update={part: inner})
            assert faults(pretrain_facts(changed, name)) == {fact}, path.name
            tried += 1
    assert tried


def test_every_fact_of_the_table_is_contradicted_somewhere() -> None:
    asked = {fact for path in DETECTION for fact in detection_facts(load_detection(path), Name("detection", path))}
    assert asked - set(WRONG_DETECTION) == {"masks"}  # the file's name says it, and Detectron2 takes any
    asked = {
        f for path in SEGMENTATION for f in segmentation_facts(load_segmentation(path), Name("segmentation", path))
    }
    assert asked == set(WRONG_SEGMENTATION)
    asked = {fact for path in PRETRAIN for fact in pretrain_facts(load_pretrain(path), Name("pretrain", path))}
    assert asked - set(WRONG_PRETRAIN) == {"family"}
