"""Detectron2: what the weights decide, what a protocol becomes on the devices there are, and what its evaluators count."""

import contextlib
import dataclasses
import io
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from PIL import Image
from shipped_configs import DETECTION, Name, load_detection, shipped
from torch import nn
from torch.utils.data import DataLoader

from core import run_folder
from core.backbones.resnet import ResNet
from core.checkpoint import save_backbone
from core.errors import InputError
from core.files import FileError
from core.provenance import ROOT
from core.run_folder import flat
from core.shapes import CLASSES
from core.weights_file import read_weights_file
from transfer.convert import recipe
from transfer.convert.convert import convert
from transfer.convert.load_check import LoadError
from transfer.convert.recipe import Recipe
from transfer.datasets import shapes
from transfer.frameworks._protocol import from_workers
from transfer.frameworks.detectron2 import compat, datasets, evaluators, protocol, run, weights
from transfer.frameworks.detectron2.compat import quiet
from transfer.frameworks.detectron2.datasets import DatasetCatalog
from transfer.frameworks.detectron2.devices import adapt
from transfer.frameworks.detectron2.run import read_config
from transfer.frameworks.detectron2.trainer import read_image
from transfer.frameworks.detectron2.weights import FAMILIES, ProvenCheckpointer, get, inject, refuse_impossible

# ---- what the weights decide is written into a config or refused, and the load check guards also configs that are not ours ----


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
    "MODEL.DEVICE", "cpu", "MODEL.ROI_BOX_HEAD.FC_DIM", "8", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8", "MODEL.MASK_ON",
    "False",
]  # fmt: skip
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


def test_a_checkpoint_of_another_run_than_its_folder_tells_is_not_gone_on_from(tmp_path: Path) -> None:
    checkpointer = ProvenCheckpointer(nn.Linear(1, 1), str(tmp_path))
    run_folder.open_folder(tmp_path, {"SOLVER.BASE_LR": 0.1}, True, "OUTPUT_DIR")
    checkpointer.save("model_1", iteration=1)
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 1
    (tmp_path / "settings.json").write_text('{"SOLVER.BASE_LR": "0.2"}')
    with pytest.raises(InputError, match=r"model_1\.pth is of another run than .*settings\.json tells"):
        checkpointer.resume_or_load("", resume=True)


def test_a_converted_pickle_whose_tensors_were_changed_is_told_by_its_checksum(file: Path, tmp_path: Path) -> None:
    data = bytearray(file.read_bytes())
    place = data.index(np.float32(read_weights_file(file)["model"]["stem.conv1.weight"][0, 0, 0, 0]).tobytes())
    data[place] ^= 1
    (tmp_path / "changed.pkl").write_bytes(data)
    with pytest.raises(FileError, match=r"changed\.pkl is damaged: its tensors' checksum does not fit"):
        read_weights_file(tmp_path / "changed.pkl")


def test_addresses_and_pickled_proposals_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"MODEL\.WEIGHTS is http://127\.0\.0\.1:9/w\.pkl in a file, .* give it as --weights"
    ):
        ProvenCheckpointer(nn.Linear(1, 1), str(tmp_path)).resume_or_load("http://127.0.0.1:9/w.pkl", resume=False)
    cfg, _ = read_config("", ["MODEL.LOAD_PROPOSALS", "True"])
    with pytest.raises(InputError, match=r"MODEL\.LOAD_PROPOSALS reads pickles"):
        refuse_impossible(cfg)


# ---- every shipped detection config does what its name says; it is fitted to the devices, shortened, and refused in time ----


FOLDER = DETECTION[0].parent
DATA = {
    "coco": ("coco_2017_train", "coco_2017_val"), "coco1": ("coco_2017_train+held0.01", "coco_2017_val"),
    "coco10": ("coco_2017_train+held0.1", "coco_2017_val"), "voc07": ("voc_2007_trainval", "voc_2007_test"),
    "voc0712": ("voc_2007_trainval", "voc_2012_trainval", "voc_2007_test"), "shapes": ("shapes_train", "shapes_val"),
    "tiny-coco": ("tiny_coco_train", "tiny_coco_val"), "tiny-coco-few": ("tiny_coco_few", "tiny_coco_few"),
}  # fmt: skip


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
    assert {source.partition("+")[0] for source in DATA[name["data"]]} <= set(DatasetCatalog.list())


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


@pytest.fixture
def voc() -> Any:
    return read_config(str(FOLDER / "faster-rcnn_r50-c4_8xb2-24k_voc0712.yaml"), [])[0]


def test_the_config_that_was_given_is_not_changed(voc: Any) -> None:
    adapt(voc, 1, cuda=False)
    assert (voc.SOLVER.IMS_PER_BATCH, voc.MODEL.RESNETS.NORM) == (16, "SyncBN")


def test_two_cpu_processes_get_the_norm_that_gloo_can_carry(voc: Any) -> None:
    cfg, said = adapt(voc, 2, cuda=False)
    assert (cfg.MODEL.RESNETS.NORM, cfg.MODEL.DEVICE) == ("naiveSyncBN", "cpu")
    assert said == ["SyncBN becomes naiveSyncBN (SyncBN fails on the CPU) in MODEL.RESNETS"]


def test_naive_sync_bn_replaces_sync_bn_where_it_is_asked_for(voc: Any) -> None:
    cfg, said = adapt(voc, 8, cuda=True, norm="naiveSyncBN")
    assert (cfg.MODEL.RESNETS.NORM, cfg.SOLVER.IMS_PER_BATCH) == ("naiveSyncBN", 16)
    assert said == ["SyncBN becomes naiveSyncBN (asked for) in MODEL.RESNETS"]
    assert (
        adapt(voc, 1, cuda=True, norm="naiveSyncBN")[0].MODEL.RESNETS.NORM == "BN"
    )  # one device has none to sync with


def test_every_norm_of_the_4conv1fc_protocol_is_replaced_together() -> None:
    cfg = read_config(str(FOLDER / "mask-rcnn_r50-fpn-4conv1fc_8xb2-90k_coco.yaml"), [])[0]
    _, said = adapt(cfg, 1, cuda=False)
    assert said == [
        "SyncBN becomes BN (one device) in MODEL.FPN, MODEL.RESNETS, MODEL.ROI_BOX_HEAD, MODEL.ROI_MASK_HEAD"
    ]


def test_mixed_precision_is_switched_off_on_the_cpu(voc: Any) -> None:
    voc.SOLVER.AMP.ENABLED = True
    cfg, said = adapt(voc, 1, cuda=False)
    assert not cfg.SOLVER.AMP.ENABLED
    assert "SOLVER.AMP is off: Detectron2 has it for CUDA only" in said


def test_a_batch_that_no_device_count_divides_is_refused(voc: Any) -> None:
    voc.SOLVER.IMS_PER_BATCH = 15
    with pytest.raises(InputError, match=r"IMS_PER_BATCH 15 is not a multiple of SOLVER\.REFERENCE_WORLD_SIZE 8"):
        adapt(voc, 1, cuda=False)


sys.path.insert(0, str(ROOT / "tools"))
from train_net import parser  # noqa: E402

CONFIG = ROOT / "configs/transfer/detection/mask-rcnn_r18w16-fpn_1xb4-400_shapes.yaml"


def prepare(folder: Path, *arguments: str) -> run.Plan:
    asked = ["--config-file", str(CONFIG), *arguments, "OUTPUT_DIR", str(folder)]
    with compat.quiet():
        return run.prepare(parser().parse_args(asked))


def test_published_is_what_the_config_file_says_whatever_the_command_line_changed(tmp_path: Path) -> None:
    plan = prepare(tmp_path, "SOLVER.BASE_LR", "0.5", "SOLVER.MAX_ITER", "7")
    found = {name: (recipe["lr"], recipe["iterations"]) for name, recipe in plan.protocols.items()}
    assert found == {"published": (0.002, 400), "effective": (0.5, 7)}


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path: Path) -> None:
    asked = parser().parse_args(["--config-file", str(CONFIG), "OUTPUT_DIR", str(tmp_path)])
    refused = pytest.raises(InputError, match="is in use by another process; wait for it, or choose another folder")
    with run_folder.hold(tmp_path), contextlib.ExitStack() as held, compat.quiet(), refused:
        run.prepare(asked, held)
    assert not (tmp_path / "settings.json").exists()


def test_a_finished_run_is_not_overwritten_by_one_of_other_settings(tmp_path: Path) -> None:
    assert not prepare(tmp_path).resume
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    assert prepare(tmp_path).resume
    assert prepare(tmp_path, "DATALOADER.NUM_WORKERS", "3").resume  # how, not what
    with pytest.raises(InputError, match=r"different: SOLVER\.BASE_LR, SOLVER\.WARMUP_ITERS\)"):
        prepare(tmp_path, "SOLVER.BASE_LR", "0.5", "SOLVER.WARMUP_ITERS", "3")
    assert prepare(tmp_path, "--resume", "SOLVER.BASE_LR", "0.5").resume


def test_no_processes_and_no_training_set_are_refused_with_the_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--num-gpus is 0"):
        prepare(tmp_path, "--num-gpus", "0")
    with pytest.raises(InputError, match=r"DATASETS\.TRAIN is empty; give --config-file"):
        run.prepare(parser().parse_args(["MODEL.WEIGHTS", "x.pkl"]))


def test_a_head_with_another_number_of_classes_than_the_annotations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shapes_val has 8 classes \(.*\), but MODEL\.ROI_HEADS\.NUM_CLASSES is 3"):
        prepare(tmp_path, "MODEL.ROI_HEADS.NUM_CLASSES", "3")
    assert not (tmp_path / "settings.json").exists()


def test_sets_of_other_classes_are_refused_with_the_first_that_differs(tmp_path: Path) -> None:
    shapes.ensure(tmp_path)
    root: Any = tmp_path / "shapes" / "coco"
    file = root / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    content["categories"][2]["name"] = "zebra"
    (root / "annotations" / "instances_other.json").write_text(json.dumps(content))
    (root / "other").symlink_to(root / "val")
    names = (f"coco:{root}:train", f"coco:{root}:other")
    datasets.check(names)
    cfg, _ = run.read_config(str(CONFIG), [])
    with pytest.raises(InputError, match=r":other have other classes \(triangle and zebra\)"):
        datasets.check_classes(cfg, names)


C4 = FOLDER / "faster-rcnn_r50-c4_8xb2-24k_voc0712.yaml"
FPN = FOLDER / "mask-rcnn_r50-fpn-4conv1fc_8xb2-90k_coco.yaml"


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Make a COCO folder of 30 training and 4 test images of one class each."""
    for split, count in (("train2017", 30), ("val2017", 4)):
        (tmp_path / split).mkdir()
        (tmp_path / "annotations").mkdir(exist_ok=True)
        images = [{"id": i, "file_name": f"{i:06d}.jpg", "height": 8, "width": 8} for i in range(count)]
        for image in images:
            Image.new("RGB", (8, 8)).save(tmp_path / split / image["file_name"])
        shared = {
            "category_id": 7, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0, "segmentation": [[1, 1, 5, 1, 5, 5]],
        }  # fmt: skip
        content = {"images": images, "annotations": [{"id": i + 1, "image_id": i, **shared} for i in range(count)]}
        content["categories"] = [{"id": 7, "name": "disc"}]
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return tmp_path


def ids(name: str) -> list[int]:
    from detectron2.data import DatasetCatalog

    return [record["image_id"] for record in DatasetCatalog.get(name)]


def test_held_and_kept_parts_share_no_image_and_make_up_the_whole(coco: Path) -> None:
    whole = f"coco:{coco}:train2017"
    datasets.check([whole, *(f"{whole}+{part}" for part in ("kept0.2", "held0.2", "first8", "held0.1"))])
    kept, held = ids(f"{whole}+kept0.2"), ids(f"{whole}+held0.2")
    assert sorted(kept + held) == ids(whole)
    assert 2 <= len(held) <= 12  # 6 expected of 30
    assert ids(f"{whole}+first8") == list(range(8))
    assert set(ids(f"{whole}+held0.1")) <= set(held)  # a larger share holds a smaller one
    from detectron2.data import MetadataCatalog

    metadata = MetadataCatalog.get(f"{whole}+held0.2")
    assert (metadata.thing_classes, metadata.image_ids) == (["disc"], held)


def test_a_part_of_a_coco_file_is_scored_on_its_own_images_only(coco: Path, tmp_path: Path) -> None:
    from detectron2.structures import Boxes, Instances
    from torch import tensor

    from transfer.frameworks.detectron2.evaluators import CurveCOCOEvaluator

    name = f"coco:{coco}:val2017+first2"
    datasets.check([name])
    evaluator = CurveCOCOEvaluator(
        name, ("bbox",), output_dir=str(tmp_path / "out"), use_fast_impl=False, curves=tmp_path / "c.json"
    )
    evaluator.reset()
    for image in ids(name):
        boxes = Boxes(tensor([[1.0, 1.0, 5.0, 5.0]]))
        found = Instances((8, 8), pred_boxes=boxes, scores=tensor([0.9]), pred_classes=tensor([0]))
        evaluator.process([{"image_id": image}], [{"instances": found}])
    with compat.quiet():
        assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)  # 50 if the two other images counted
    curves = json.loads((tmp_path / "c.json").read_text())
    assert curves["bbox"]["75"] == [1.0] * 101


def test_an_interrupted_copy_is_refused_with_the_first_missing_image(coco: Path) -> None:
    (coco / "train2017" / "000003.jpg").unlink()
    (coco / "train2017" / "000007.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"000003\.jpg is missing but instances_train2017\.json lists it \(2 of 30"):
        datasets.check([f"coco:{coco}:train2017"])
    listing = coco / "annotations" / "instances_train2017.json"
    listing.write_text(listing.read_text()[:100])
    with pytest.raises(InputError, match=r"instances_train2017\.json is truncated or not JSON"):
        datasets.check([f"coco:{coco}:train2017"])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_damaged_later_is_named_in_one_line_also_by_a_worker(coco: Path, workers: int) -> None:
    path = coco / "train2017" / "000003.jpg"
    path.write_bytes(path.read_bytes()[:200])
    loader = DataLoader([{"file_name": str(path)}], collate_fn=_Named(), num_workers=workers)
    with pytest.raises(InputError) as caught, from_workers():
        next(iter(loader))
    assert re.fullmatch(rf"{path} cannot be used \(.*\); copy it again, or see what .* check says", str(caught.value))


class _Named:
    def __call__(self, records: list[dict[str, Any]]) -> Any:
        return datasets.NamedMapper(lambda record: read_image(record["file_name"]))(records[0])


def test_an_interrupted_copy_of_voc_is_refused(tmp_path: Path) -> None:
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")
    for name in "ab":
        Image.new("RGB", (8, 8)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation><object><name>moon</name></object></annotation>")
    with pytest.raises(InputError, match=r"b\.xml is missing but .*train\.txt lists it \(1 of 2"):
        datasets.check([f"voc:{tmp_path}:train"])


def config(path: Path) -> Any:
    return read_config(str(path), [])[0]


def test_convnexts_release_crops_half_of_the_images_between_two_scalings(tmp_path: Path) -> None:
    pixels = np.zeros((300, 400, 3), dtype=np.uint8)
    pixels[100:200, 50:150] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    outline = [50.0, 100.0, 150.0, 100.0, 150.0, 200.0, 50.0, 200.0]
    thing = {"bbox": [50, 100, 100, 100], "bbox_mode": 1, "category_id": 0, "segmentation": [outline]}
    record = {"file_name": str(tmp_path / "a.png"), "height": 300, "width": 400, "annotations": [thing]}
    cfg = config(FOLDER / "mask-rcnn_convnext-t-fpn-official_8xb2-263880_coco.yaml")
    mapper, shapes_found = datasets._mapper(cfg), []
    np.random.seed(0)
    for _ in range(50):
        found = mapper(record)
        image, boxes = found["image"].float(), found["instances"].gt_boxes.tensor
        height, width = image.shape[1:]
        assert min(height, width) in cfg.INPUT.MIN_SIZE_TRAIN or max(height, width) == 1333
        shapes_found.append(width / height)
        inside = sum(
            float(image[:, int(t) : int(b + 0.5), int(x) : int(r + 0.5)].sum()) for x, t, r, b in boxes.tolist()
        )
        assert inside >= 0.93 * float(image.sum())  # the box is what of the square is left, but for its soft edge
    cropped = [shape for shape in shapes_found if abs(shape - 4 / 3) > 0.01]
    assert 15 <= len(cropped) <= 35
    assert min(cropped) >= 384 / 600 - 0.01
    plain = config(FOLDER / "mask-rcnn_convnext-t-fpn_8xb2-90k_coco.yaml")
    assert all(
        abs(found["image"].shape[2] / found["image"].shape[1] - 4 / 3) < 0.01
        for found in map(datasets._mapper(plain), [record] * 9)
    )


def test_a_tiny_run_keeps_the_network_and_shortens_all_else(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(coco / "root"))
    cfg, before = config(FPN), config(FPN)
    said = protocol.vary(cfg, str(coco), 1.0, 0.0)
    assert said[-1] == f"tiny: 4 iterations on {coco}; this measures nothing"
    (train,), (test,) = cfg.DATASETS.TRAIN, cfg.DATASETS.TEST
    assert re.fullmatch(rf"coco:{coco}/root/own/{coco.name}-coco-\w+:train\+first40", train)
    assert test == train.replace("train+first40", "val+first6")
    assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.SOLVER.MAX_ITER, cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE) == (1, 4, 8)
    for part in ("RESNETS", "FPN", "BACKBONE", "ROI_BOX_HEAD", "ROI_MASK_HEAD", "PIXEL_MEAN"):
        assert cfg.MODEL[part] == before.MODEL[part], part
    datasets.check((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))


def test_a_tiny_run_is_on_the_embedded_set_in_the_layout_of_the_benchmark() -> None:
    for path, layout in ((C4, "shapes_voc"), (FPN, "shapes")):
        cfg = config(path)
        protocol.vary(cfg, "shapes", 1.0, 0.0)
        assert (f"{layout}_train+first40",) == cfg.DATASETS.TRAIN
        assert (f"{layout}_val+first6",) == cfg.DATASETS.TEST


def test_lr_and_held_out_part_depart_from_the_protocol_as_asked() -> None:
    cfg = config(C4)
    said = protocol.vary(cfg, "", 0.3, 0.1)
    assert pytest.approx(0.006) == cfg.SOLVER.BASE_LR
    assert cfg.DATASETS.TRAIN == ("voc_2007_trainval+kept0.1", "voc_2012_trainval+kept0.1")
    assert cfg.DATASETS.TEST == ("voc_2007_trainval+held0.1", "voc_2012_trainval+held0.1")  # no image of the test set
    assert said[0] == "lr times 0.3"
    assert said[1].startswith("10% of the training images are held out")


def test_the_classes_of_a_voc_folder_are_its_own_where_they_are_not_vocs(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(
        f"<annotation><object><name>{CLASSES[0]}</name></object></annotation>"
    )
    assert datasets._classes(tmp_path) == [CLASSES[0]]
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation><object><name>cat</name></object></annotation>")
    assert len(datasets._classes(tmp_path)) == 20


@pytest.mark.parametrize(
    ("stem", "decay", "layers", "extra"),
    [
        ("mask-rcnn_r50-fpn-4conv1fc-spark_8xb2-90k_coco", 0.6, (6, 5, 4, 3, 3, 3, 2, 2, 2, 1), 1e-4),
        ("mask-rcnn_convnext-t-fpn-official_8xb2-263880_coco", 0.95, (7, 6, 5, *[4] * 3, *[3] * 3, *[2] * 3, 1), 0.0),
    ],
)
def test_rates_fall_from_layer_to_layer_as_in_the_release(stem: str, decay: float, layers: tuple, extra: float) -> None:
    """``layers`` stand above the stem, res2, res3, each block of res4, and res5; ``extra`` is the weight decay of biases."""
    from detectron2.modeling import build_model

    from transfer.frameworks.detectron2.trainer import Trainer

    cfg = config(FOLDER / f"{stem}.yaml")
    cfg.MODEL.DEVICE = "meta"
    with compat.quiet(), torch.device("meta"):
        model = build_model(cfg)
    groups = Trainer.build_optimizer(cfg, model).param_groups
    found = {id(weight): (group["lr"], group["weight_decay"]) for group in groups for weight in group["params"]}
    base, res4 = cfg.SOLVER.BASE_LR, len(layers) - 4
    wanted = dict(zip(["stem", "res2", "res3", *(f"res4.{i}" for i in range(res4)), "res5"], layers, strict=True))
    for name, weight in model.named_parameters():
        inside = name.removeprefix("backbone.bottom_up.")
        above = next((count for part, count in wanted.items() if inside.startswith(f"{part}.")), 0)
        rate, weight_decay = found[id(weight)]
        assert rate == pytest.approx(base * decay ** (above if inside != name else 0)), name
        assert weight_decay == (cfg.SOLVER.WEIGHT_DECAY if weight.ndim > 1 else extra if "norm" not in name else 0.0), (
            name
        )


@pytest.mark.parametrize(("depth", "blocks"), [(18, 2), (34, 3)])
def test_c4_has_the_basic_blocks_of_the_backbone_in_its_head(depth: int, blocks: int) -> None:
    from detectron2.modeling import build_model

    from transfer.frameworks.detectron2.backbones import resnet
    from transfer.frameworks.detectron2.weights import backbone

    cfg = config(FOLDER / f"faster-rcnn_r{depth}-c4_8xb2-24k_voc0712.yaml")
    cfg.MODEL.DEVICE = "meta"
    with compat.quiet(), torch.device("meta"):
        model, whole = build_model(cfg), resnet(depth, 64)
    assert [name for name, _ in model.roi_heads.res5.named_children()] == [*map(str, range(blocks)), "norm"]
    shapes = {name: weight.shape for name, weight in backbone(model.state_dict()).items()}
    assert shapes == {name: weight.shape for name, weight in backbone(whole.state_dict()).items()}


def test_a_tenth_of_coco_holds_the_hundredth(coco: Path) -> None:
    base = f"coco:{coco}:train2017"
    parts = [f"{base}+held{share}" for share in (0.4, 0.1)]
    datasets.check(parts)
    assert set(ids(parts[1])) < set(ids(parts[0]))
    for stem, part in (("coco1", "+held0.01"), ("coco10", "+held0.1")):
        cfg = config(FOLDER / f"mask-rcnn_r50-fpn_8xb2-12k_{stem}.yaml")
        assert (f"coco_2017_train{part}",) == cfg.DATASETS.TRAIN


# ---- detections are scored as COCO and VOC do, and what has no ground truth is null, not zero ----


XML = """<annotation><object><name>disc</name><pose></pose><truncated>0</truncated><difficult>0</difficult>
<bndbox><xmin>11</xmin><ymin>11</ymin><xmax>50</xmax><ymax>50</ymax></bndbox></object></annotation>"""


@pytest.fixture
def one_voc_image(tmp_path: Path) -> Any:
    """Register a VOC set of one image with one disc, and no object of the other class."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_pascal_voc

    for name, text in {"ImageSets/Main/val.txt": "one\n", "Annotations/one.xml": XML}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    register_pascal_voc("test_voc", str(tmp_path), "val", 2012, ["disc", "star"])
    yield "test_voc"
    DatasetCatalog.remove("test_voc")
    MetadataCatalog.remove("test_voc")


def predict(box: list[float]) -> dict[str, Any]:
    from detectron2.structures import Boxes, Instances

    boxes, scores, classes = Boxes(torch.tensor([box])), torch.tensor([0.9]), torch.tensor([0])
    return {"instances": Instances((64, 64), pred_boxes=boxes, scores=scores, pred_classes=classes)}


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (
            [10.0, 10.0, 50.0, 50.0],
            (100.0, 100.0, 100.0),
        ),  # the annotated box; Detectron2 counts from 0, its end is exclusive
        ([10.0, 10.0, 50.0, 37.0], (40.0, 100.0, 0.0)),  # IoU 27 / 40: found at 0.50, 0.55, 0.60, 0.65 of ten
    ],
)
def test_voc_scores_a_detection_by_its_overlap(
    one_voc_image: str, box: list[float], expected: tuple[float, ...]
) -> None:
    evaluator = evaluators.ClassVOCEvaluator(one_voc_image)
    evaluator.reset()
    evaluator.process([{"image_id": "one"}], [predict(box)])
    scores = evaluator.evaluate()["bbox"]  # type: ignore[index]
    assert (scores["AP"], scores["AP50"], scores["AP75"]) == pytest.approx(expected)
    assert scores["AP-disc"] == pytest.approx(expected[0])
    assert math.isnan(scores["AP-star"])  # not 0: it has no ground truth, and the means leave it out


def test_equal_scores_are_taken_by_image_and_box_in_whatever_order_they_come(
    one_voc_image: str, tmp_path: Path
) -> None:
    """The right box's line sorts after 20 wrong ones and before 20: precision 1/21 where it is recalled, by hand."""
    evaluator = evaluators.ClassVOCEvaluator(one_voc_image)
    right = "one 0.900 11.0 11.0 50.0 50.0"
    wrong = [f"one 0.900 {10 if first else 12}.0 11.0 {12 + step}.0 12.0" for first in (1, 0) for step in range(20)]
    for lines in ([right, *wrong], [*wrong, right], [*wrong[:30], right, *wrong[:29:-1]]):
        recall, precision = evaluator._curves_of(tmp_path, "disc", lines)[0]
        assert [int(value) for value in recall] == [0] * 20 + [1] * 21
        assert precision[20] == pytest.approx(1 / 21)


def test_nan_is_null_and_names_are_task_and_metric() -> None:
    results = {"bbox": {"AP": 12.5, "APl": math.nan}, "segm": {"AP": 3.0}}
    assert evaluators.for_json(results, ("shapes_val",)) == {"bbox/AP": 12.5, "bbox/APl": None, "segm/AP": 3.0}
    two = evaluators.for_json({"a": results, "b": {"bbox": {"AP": 1.0}}}, ("a", "b"))
    assert (two["a/bbox/APl"], two["b/bbox/AP"]) == (None, 1.0)


def devkit_curve(
    found: list[tuple[float, list[float]]], truth: list[list[float]], iou: float
) -> list[tuple[float, float]]:
    """Match detections of one class in one image as the VOC devkit does; return (recall, precision) after each."""
    taken, right, curve = set(), 0, []
    for count, (_, box) in enumerate(sorted(found, reverse=True), 1):
        best, best_overlap = -1, -1.0
        for index, other in enumerate(truth):
            width = min(box[2], other[2]) - max(box[0], other[0]) + 1
            height = min(box[3], other[3]) - max(box[1], other[1]) + 1
            if width > 0 and height > 0:
                areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, other)]
                overlap = width * height / (sum(areas) - width * height)
                if overlap > best_overlap:
                    best, best_overlap = index, overlap
        if best_overlap > iou and best not in taken:
            taken.add(best)
            right += 1
        curve.append((right / len(truth), right / count))
    return curve


def devkit_ap(curve: list[tuple[float, float]], eleven: bool) -> float:
    """Average precision: at 11 recalls (devkit of VOC2007), or the area under the envelope (from VOC2010 on)."""
    if eleven:
        return sum(max((p for r, p in curve if r >= step / 10 - 1e-12), default=0.0) for step in range(11)) / 11
    area, before = 0.0, 0.0
    for recall in sorted({r for r, _ in curve}):
        area += (recall - before) * max(p for r, p in curve if r >= recall)
        before = recall
    return area


@pytest.mark.parametrize("year", [2007, 2012])
def test_voc_scores_by_both_rules_of_the_devkit_and_bbox_by_that_of_its_year(tmp_path: Path, year: int) -> None:
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_pascal_voc
    from detectron2.structures import Boxes, Instances

    rng = np.random.default_rng(5)
    truth = [[10 + 60 * i, 20, 10 + 60 * i + int(rng.integers(20, 50)), 70] for i in range(7)]
    objects = "".join(
        f"<object><name>disc</name><pose/><truncated>0</truncated><difficult>0</difficult><bndbox><xmin>{a}</xmin>"
        f"<ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in truth
    )
    for file, text in {
        "ImageSets/Main/val.txt": "one\n",
        "Annotations/one.xml": f"<annotation>{objects}</annotation>",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    boxes = [[x + float(s) for x, s in zip(box, rng.integers(-9, 9, 4), strict=True)] for box in truth * 2]
    scores = np.linspace(0.9, 0.1, len(boxes))
    register_pascal_voc("test_rules", str(tmp_path), "val", year, ["disc"])
    try:
        evaluator = evaluators.ClassVOCEvaluator("test_rules", tmp_path / "curves.json")
        evaluator.reset()
        # Detectron2 counts from 0 with exclusive ends and adds 1 to the first corner only
        tensor = torch.tensor([[a - 1, b - 1, c, d] for a, b, c, d in boxes])
        found = {
            "pred_boxes": Boxes(tensor),
            "scores": torch.tensor(scores),
            "pred_classes": torch.zeros(len(boxes), dtype=torch.long),
        }
        evaluator.process([{"image_id": "one"}], [{"instances": Instances((200, 600), **found)}])
        results = evaluator.evaluate()
    finally:
        DatasetCatalog.remove("test_rules")
        MetadataCatalog.remove("test_rules")
    assert results is not None
    curves = [devkit_curve(list(zip(scores, boxes, strict=True)), truth, iou / 100) for iou in evaluators.IOUS]
    for rule, eleven in (("bbox_11point", True), ("bbox_area", False)):
        expected = [100 * devkit_ap(curve, eleven) for curve in curves]
        assert results[rule]["AP50"] == pytest.approx(expected[0], abs=1e-9)
        assert results[rule]["AP75"] == pytest.approx(expected[5], abs=1e-9)
        assert results[rule]["AP"] == results[rule]["AP-disc"] == pytest.approx(sum(expected) / 10, abs=1e-9)
        assert results[rule]["AP50-disc"] == results[rule]["AP50"]
    assert results["bbox"] == results["bbox_11point" if year == 2007 else "bbox_area"]
    assert abs(results["bbox_11point"]["AP50"] - results["bbox_area"]["AP50"]) > 0.1  # the rules do differ
    kept = json.loads((tmp_path / "curves.json").read_text())
    assert len(kept["recall"]) == len(kept["bbox"]["50"]) == 101
    at = [max((p for r, p in curves[0] if r >= step / 100 - 1e-12), default=0.0) for step in range(101)]
    assert kept["bbox"]["50"] == pytest.approx(at, abs=2e-6)


def boxes_and_masks() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Draw 12 images of rectangles in three classes with crowds, several sizes and misses, and what a detector found."""
    rng = np.random.default_rng(0)
    truth, found = [], []
    for index in range(120):
        x, y = (rng.random(2) * 100).tolist()
        w, h = (rng.random(2) * rng.choice([20, 60, 150]) + 5).tolist()
        shared = {"image_id": index % 12, "category_id": 1 + index % 3}
        outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        crowd = int(index % 17 == 0)
        truth.append(
            {"id": index + 1, "bbox": [x, y, w, h], "area": w * h, "iscrowd": crowd, "segmentation": outline, **shared}
        )
        for _ in range(int(rng.integers(0, 4))):
            dx, dy = (rng.normal(size=2) * 5).tolist()
            moved = [[x + dx, y + dy, x + dx + w, y + dy, x + dx + w, y + dy + h, x + dx, y + dy + h]]
            score = float(rng.random())
            found.append({"bbox": [x + dx, y + dy, w, h], "segmentation": moved, "score": score, **shared})
    images = [{"id": index, "width": 300, "height": 300, "file_name": "-"} for index in range(12)]
    categories = [{"id": index, "name": str(index)} for index in (1, 2, 3, 4)]  # the fourth has no object
    return {"info": {}, "images": images, "annotations": truth, "categories": categories}, found


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_fast_coco_evaluation_agrees_with_pycocotools_to_1e_9(tmp_path: Path, kind: str) -> None:
    from detectron2.evaluation import coco_evaluation
    from pycocotools import mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = boxes_and_masks()
    for annotation in truth["annotations"]:
        if annotation["iscrowd"]:
            annotation["segmentation"] = mask.frPyObjects(annotation["segmentation"], 300, 300)[0]
            annotation["segmentation"]["counts"] = annotation["segmentation"]["counts"].decode()
    for record in found:
        record["segmentation"] = mask.frPyObjects(record["segmentation"], 300, 300)[0]
        del record["bbox" if kind == "segm" else "segmentation"]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    runs = []
    with contextlib.redirect_stdout(io.StringIO()), compat.quiet():
        for evaluate in (COCOeval, coco_evaluation.COCOeval):
            api = COCO(str(path))
            evaluation = evaluate(api, api.loadRes([dict(record) for record in found]), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            runs.append(evaluation)
    assert coco_evaluation.COCOeval is not COCOeval
    assert 0.05 < runs[0].stats[0] < 0.9
    np.testing.assert_allclose(np.array(runs[1].stats[:12]), np.array(runs[0].stats), rtol=0, atol=1e-9)
    for name in ("precision", "recall"):  # every threshold, recall, class, size and number of detections
        np.testing.assert_allclose(runs[1].eval[name], runs[0].eval[name], rtol=0, atol=1e-9)


def test_a_detector_that_finds_nothing_has_an_ap_of_zero(tmp_path: Path) -> None:
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.structures import Boxes, Instances

    (tmp_path / "truth.json").write_text(json.dumps(boxes_and_masks()[0]))
    datasets.register_coco_instances("test_nothing", {}, str(tmp_path / "truth.json"), str(tmp_path))
    nothing = {"pred_boxes": Boxes(torch.zeros(0, 4)), "scores": torch.zeros(0), "pred_classes": torch.zeros(0)}
    try:
        with contextlib.redirect_stdout(io.StringIO()), compat.quiet():
            evaluator = evaluators.CurveCOCOEvaluator(
                "test_nothing", ("bbox",), output_dir=str(tmp_path), use_fast_impl=False
            )
            evaluator.reset()
            evaluator.process([{"image_id": 0}], [{"instances": Instances((300, 300), **nothing)}])
            assert evaluator.evaluate()["bbox"] == dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), 0.0)
    finally:
        DatasetCatalog.remove("test_nothing")
        MetadataCatalog.remove("test_nothing")


def test_an_unknown_dataset_is_named_with_its_neighbours() -> None:
    with pytest.raises(InputError, match="no dataset 'shapes_trian' in DATASETS; did you mean shapes_train"):
        datasets.check(["shapes_trian"])


def test_a_dataset_that_is_not_there_is_named_with_its_first_missing_file() -> None:
    with pytest.raises(FileError, match=r"dataset voc_2007_test is not there: no .*VOC2007/ImageSets/Main/test\.txt"):
        datasets.check(["voc_2007_test"])
