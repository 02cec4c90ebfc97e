"""Every shipped detection config does what its name says; it is fitted to the devices, shortened, and refused in time."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from shipped_configs import DETECTION, Name, load_detection, shipped
from torch.utils.data import DataLoader

from core.errors import InputError
from core.provenance import ROOT
from core.run_folder import flat
from core.shapes import CLASSES
from transfer.convert.recipe import Recipe
from transfer.datasets import shapes
from transfer.frameworks._protocol import from_workers
from transfer.frameworks.detectron2 import compat, datasets, protocol, run
from transfer.frameworks.detectron2.datasets import DatasetCatalog
from transfer.frameworks.detectron2.devices import adapt
from transfer.frameworks.detectron2.run import read_config
from transfer.frameworks.detectron2.trainer import read_image
from transfer.frameworks.detectron2.weights import FAMILIES, get

FOLDER = DETECTION[0].parent
DATA = {
    "coco": ("coco_2017_train", "coco_2017_val"),
    "coco1": ("coco_2017_train+held0.01", "coco_2017_val"),
    "coco10": ("coco_2017_train+held0.1", "coco_2017_val"),
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
            "category_id": 7,
            "bbox": [1, 1, 4, 4],
            "area": 16,
            "iscrowd": 0,
            "segmentation": [[1, 1, 5, 1, 5, 5]],
        }
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
