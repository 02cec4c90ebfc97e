"""Parts of datasets and folders have names of their own, are the same in every process, and a half-copied set is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.errors import InputError
from core.shapes import CLASSES
from transfer.frameworks.detectron2 import compat, datasets, protocol
from transfer.frameworks.detectron2.run import read_config

CONFIGS = Path(__file__).parents[2] / "configs" / "transfer" / "detection"
C4 = CONFIGS / "faster-rcnn_r50-c4_8xb2-24k_voc0712.yaml"
FPN = CONFIGS / "mask-rcnn_r50-fpn-4conv1fc_8xb2-90k_coco.yaml"


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


def test_a_tiny_run_keeps_the_network_and_shortens_all_else(coco: Path) -> None:
    cfg, before = config(FPN), config(FPN)
    said = protocol.vary(cfg, str(coco), 1.0, 0.0)
    assert said == [f"tiny: 4 iterations on {coco}; this measures nothing"]
    assert (f"coco:{coco}:train2017+first40",) == cfg.DATASETS.TRAIN
    assert (f"coco:{coco}:val2017+first6",) == cfg.DATASETS.TEST
    assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.SOLVER.MAX_ITER, cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE) == (1, 4, 8)
    for part in ("RESNETS", "FPN", "BACKBONE", "ROI_BOX_HEAD", "ROI_MASK_HEAD", "PIXEL_MEAN"):
        assert cfg.MODEL[part] == before.MODEL[part], part
    datasets.check((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))


def test_a_tiny_run_is_on_the_embedded_set_in_the_layout_of_the_benchmark() -> None:
    assert protocol.sources(config(C4), "shapes") == ("shapes_voc_train", "shapes_voc_val")
    assert protocol.sources(config(FPN), "shapes") == ("shapes_train", "shapes_val")


def test_a_folder_that_cannot_serve_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder in COCO or VOC layout"):
        protocol.sources(config(C4), str(tmp_path))
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    assert protocol.sources(config(C4), str(tmp_path)) == (f"voc:{tmp_path}:train", f"voc:{tmp_path}:val")
    with pytest.raises(ValueError, match="VOC annotations have no instance masks; give a COCO folder"):
        protocol.sources(config(FPN), str(tmp_path))


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
