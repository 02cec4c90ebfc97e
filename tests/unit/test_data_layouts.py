"""Cityscapes, ADE20K and classification sets, and what a benchmark asks for before training."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from made_data import PHOTO, below, by_hand, encode, pack
from PIL import Image

from core.data.imagefolder import class_names
from transfer.datasets import (
    ade20k,
    cityscapes,
    class_folders,
    coco,
    download,
    published,
)
from transfer.datasets.checking import require

# --- Cityscapes and ADE20K


def test_train_ids_are_those_of_the_authors_table():
    names = {7: "road", 8: "sidewalk", 11: "building", 17: "pole", 19: "light", 24: "person", 26: "car", 33: "bicycle"}
    ids = {"road": 0, "sidewalk": 1, "building": 2, "pole": 5, "light": 6, "person": 11, "car": 13, "bicycle": 18}
    assert {name: cityscapes.TRAIN_IDS[label] for label, name in names.items()} == ids
    assert len(cityscapes.TRAIN_IDS) == 19
    assert not {9, 10, 14, 15, 16, 18, 29, 30} & set(cityscapes.TRAIN_IDS)


def prepare_cityscapes(monkeypatch, root: Path) -> dict:
    monkeypatch.setitem(cityscapes.IMAGES, "train", 2)
    monkeypatch.setitem(cityscapes.IMAGES, "val", 1)
    places = [("train", "ulm", "ulm_0"), ("train", "bonn", "bonn_0"), ("val", "jena", "jena_0")]
    ids = np.array([[7, 8, 0], [33, 26, 255]])
    photo = encode(np.zeros((2, 3, 3)))
    pack(
        root / "downloads" / "leftImg8bit_trainvaltest.zip",
        {f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png": photo for split, city, name in places}
        | {"README": b"x"},
    )
    pack(
        root / "downloads" / "gtFine_trainvaltest.zip",
        {f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png": encode(ids) for split, city, name in places},
    )
    return published.prepare("cityscapes", root)


def test_cityscapes_gets_its_train_ids_and_is_asked_for_by_split(monkeypatch, tmp_path):
    counts = prepare_cityscapes(monkeypatch, tmp_path)
    folder = tmp_path / "cityscapes"
    assert counts[str(folder)] == {"train": {"images": 2, "cities": 2}, "val": {"images": 1, "cities": 1}}
    with Image.open(folder / "gtFine" / "train" / "ulm" / "ulm_0_gtFine_labelTrainIds.png") as image:
        assert np.asarray(image).tolist() == [[0, 1, 255], [18, 13, 255]]
    assert not (folder / "README").exists()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    require("cityscapes", "train", "val")
    require("cityscapes_fine_sem_seg_val")
    (folder / "gtFine" / "val" / "jena" / "jena_0_gtFine_labelTrainIds.png").unlink()
    require("cityscapes", "train")
    with pytest.raises(
        ValueError, match=r"jena_0_gtFine_labelTrainIds\.png is missing or empty \(1 of 1 label maps are\)"
    ):
        require("cityscapes")
    (folder / "leftImg8bit" / "train" / "ulm" / "ulm_0_leftImg8bit.png").unlink()
    with pytest.raises(ValueError, match=r"train has 1 images, 2 are published; unpack it with: .* cityscapes ROOT"):
        require("cityscapes", "train")


def prepare_ade(monkeypatch, root: Path) -> dict:
    monkeypatch.setitem(ade20k.IMAGES, "training", 1)
    monkeypatch.setitem(ade20k.IMAGES, "validation", 1)
    by_hand(monkeypatch, published.ADE20K)
    labels = np.zeros((6, 8))
    labels[0, :2] = (1, 150)
    members = {}
    for split in ("training", "validation"):
        members[f"images/{split}/ADE_1.jpg"] = PHOTO
        members[f"annotations/{split}/ADE_1.png"] = encode(labels)
    pack(root / "downloads" / "ADEChallengeData2016.zip", below("ADEChallengeData2016/", members))
    return published.prepare("ade20k", root)


def test_ade20k_gets_detectron2s_maps_beside_the_published_ones(monkeypatch, tmp_path):
    counts = prepare_ade(monkeypatch, tmp_path)
    folder = tmp_path / "ADEChallengeData2016"
    assert counts[str(folder)] == {"training": {"images": 1}, "validation": {"images": 1}}
    with Image.open(folder / "annotations_detectron2" / "validation" / "ADE_1.png") as image:
        assert np.asarray(image)[0].tolist() == [0, 149, *[255] * 6]
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    require("ADEChallengeData2016", "training")
    require("ade20k_sem_seg_val")
    shutil.rmtree(folder / "annotations_detectron2")
    require("ADEChallengeData2016")
    with pytest.raises(ValueError, match=r"no folder .*annotations_detectron2/validation; unpack it with"):
        require("ade20k_sem_seg_val")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((6, 8, 3)), r"ADE_1\.png is a PNG of mode RGB, not of 8-bit labels"),
        (np.zeros((6, 9)), r"ADE_1\.png is \(9, 6\), its image \(8, 6\) pixels"),
        (np.full((6, 8), 151), r"ADE_1\.png holds the value 151, which is no class of ADE20K training"),
        (None, r"ADE_1\.png is truncated or not an image"),
    ],
)
def test_bad_label_maps_are_named(monkeypatch, tmp_path, labels, message):
    prepare_ade(monkeypatch, tmp_path)
    folder = tmp_path / "ADEChallengeData2016"
    (folder / "annotations" / "training" / "ADE_1.png").write_bytes(b"no png" if labels is None else encode(labels))
    with pytest.raises(ValueError, match=message):
        published.check("ade20k", tmp_path)


# --- classification sets


def write_tiny(root: Path) -> Path:
    members = {"wnids.txt": b"n2\nn1\n", "val/val_annotations.txt": b"v0.JPEG\tn1\t0\nv1.JPEG\tn2\t0\n"}
    for wnid in ("n1", "n2"):
        members |= {f"train/{wnid}/images/{index}.JPEG": PHOTO for index in range(2)}
    members |= {f"val/images/v{index}.JPEG": PHOTO for index in range(2)}
    for name, data in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_tiny_imagenet_is_counted_and_what_is_missing_named(tmp_path):
    root = write_tiny(tmp_path)
    split = {"images": 4, "classes": 2}
    assert class_folders.check_tiny(root) == {"train": split, "val": {"images": 2, "classes": 2}}
    (root / "train" / "n2" / "images" / "0.JPEG").unlink()
    with pytest.raises(ValueError, match=r"train/n2 has 1 images, other classes have 2; unpack it again"):
        class_folders.check_tiny(root)
    write_tiny(root)
    (root / "val" / "images" / "v1.JPEG").unlink()
    with pytest.raises(ValueError, match=r"v1\.JPEG is missing but .*val_annotations\.txt lists it"):
        class_folders.check_tiny(root)
    write_tiny(root)
    (root / "val" / "images" / "v1.JPEG").write_bytes(PHOTO[:60])
    with pytest.raises(ValueError, match=r"v1\.JPEG is truncated"):
        class_folders.check_tiny(root)


def test_imagenet_100_needs_all_classes_of_its_list_in_both_splits(tmp_path):
    listing = tmp_path / "list.txt"
    listing.write_text("# mine\nn1\nn3\n")
    for split in ("train", "val"):
        for wnid in ("n1", "n2", "n3"):
            path = tmp_path / "imagenet" / split / wnid / "1.JPEG"
            path.parent.mkdir(parents=True)
            path.write_bytes(PHOTO)
    both = {"images": 2, "classes": 2}
    classes = class_names(listing)
    assert class_folders.check_imagenet(tmp_path / "imagenet", classes) == {"train": both, "val": both}
    shutil.rmtree(tmp_path / "imagenet" / "val" / "n3")
    with pytest.raises(ValueError, match=r"imagenet/val lacks 1 of 2 classes, first n3; ImageNet needs an account"):
        class_folders.check_imagenet(tmp_path / "imagenet", classes)


# --- the tool and the question before training


def test_every_published_archive_has_a_checksum_or_a_login():
    for sets in published.SETS.values():
        for one in sets:
            for archive in one.archives:
                assert (archive.md5 is not None and len(archive.md5) == 32) or one.login
                assert archive.url is None or archive.url.endswith(f"/{archive.name}")
    assert published.SBD.name == "benchmark.tgz"


def test_cityscapes_without_its_files_says_where_to_get_and_put_them(tmp_path, run_tool):
    done = run_tool("tools/prepare_data.py", "cityscapes", tmp_path, check=2)
    assert done.stderr == (
        "error: Cityscapes needs an account: register at cityscapes-dataset.com, log in and download both files there; put "
        f"gtFine_trainvaltest.zip, leftImg8bit_trainvaltest.zip into {tmp_path}/downloads and start the same command again\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [".cityscapes.lock"]


@pytest.mark.parametrize("command", ["coco", "voc", "cityscapes", "ade20k", "cifar100", "tiny-imagenet"])
def test_checking_a_copy_that_is_not_there_fetches_nothing(monkeypatch, tmp_path, command):
    monkeypatch.setattr(download, "obtain", None)  # would fail if it were called
    with pytest.raises(ValueError, match=r"no (folder|file) .*prepare_data.py"):
        published.check(command, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("coco_2017_train", r"no folder .*coco; fetch it with: python tools/prepare_data.py coco ROOT"),
        ("tiny_coco_few", r"no folder .*tiny_coco; "),
        ("voc_2007_trainval", r"no folder .*VOC2007; fetch VOC with: python tools/prepare_data.py voc ROOT"),
        ("cityscapes_fine_sem_seg_train", r"no folder .*leftImg8bit/train; unpack it with: .* cityscapes ROOT"),
        ("ade20k_sem_seg_train", r"no folder .*ADEChallengeData2016/images/training; unpack it with: .* ade20k ROOT"),
        ("nonsense", "no dataset of a known layout at .*nonsense; see"),
    ],
)
def test_a_missing_dataset_stops_before_training_with_the_command_that_gets_it(monkeypatch, tmp_path, dataset, message):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(ValueError, match=message):
        require(dataset)


def test_a_coco_without_some_images_stops_before_training(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    folder = tmp_path / "coco"
    (folder / "annotations").mkdir(parents=True)
    (folder / "val2017").mkdir()
    images = ", ".join(f'{{"id": {n}, "file_name": "{n}.jpg", "height": 6, "width": 8}}' for n in range(3))
    (folder / "annotations" / "instances_val2017.json").write_text(
        f'{{"images": [{images}], "annotations": [], "categories": [{{"id": 1, "name": "dog"}}]}}'
    )
    for number in (0, 2):
        (folder / "val2017" / f"{number}.jpg").write_bytes(PHOTO)
    with pytest.raises(ValueError, match=r"val2017/1\.jpg is missing but instances_val2017\.json lists it \(1 of 3"):
        require("coco_2017_val")
    (folder / "val2017" / "1.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"val2017/1\.jpg is empty"):
        require("coco_2017_val")
    (folder / "val2017" / "1.jpg").write_bytes(PHOTO)
    require("coco_2017_val")
    require(folder)
    assert coco.check(folder)["val2017"]["images"] == 3
