"""Data sources of pre-training and classification: image folders, CIFAR, Tiny ImageNet, tar shards, drawn shapes."""

import gc
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from made_data import PHOTO, below, by_hand, encode, make, pack, picture, pixels, write
from PIL import Image
from scipy.io import savemat

from core.config import dump, load, parse
from core.contours import FULL, OUTLINES, PIXEL, fill, place
from core.data import tar_urls
from core.data.imagefolder import ImageFolder, class_names
from core.decoding import DamagedImage
from core.errors import InputError
from core.plugins import find
from core.shapes import CLASSES, FAVOURITES, MIN_VISIBLE, render
from core.textures import TEXTURES
from transfer import benchmarks
from transfer.datasets import ade20k, cityscapes, class_folders, coco, download, listed, published
from transfer.datasets.checking import require
from transfer.datasets.shapes import jpeg

# ---- one reader of images: layouts, lists, labels and what is damaged ----


RECORDS = 3  # of every made CIFAR file


# --- CIFAR


def records(number: int, classes: int) -> tuple[np.ndarray, list[int]]:
    """Make images uint8 [RECORDS, 32, 32, 3] and labels."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (RECORDS, 32, 32, 3), dtype=np.uint8), rng.integers(0, classes, RECORDS).tolist()


def write_cifar(root: Path, form: str) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Write one of the published forms; return images and labels by split, in order."""
    classes = 100 if "100" in form else 10
    files = {"train": ["train"], "test": ["test"]}
    if classes == 10:
        files = {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]}
    expected = {}
    for split, names in files.items():
        made = [records(len(name) + 10 * number + len(split), classes) for number, name in enumerate(names)]
        for name, (images, labels) in zip(names, made, strict=True):
            planes = images.transpose(0, 3, 1, 2).reshape(RECORDS, -1)
            if form.endswith(("bin", "binary")):
                rows = [
                    bytes([7, label] if classes == 100 else [label]) + row.tobytes()
                    for label, row in zip(labels, planes, strict=True)
                ]
                write(root / form / f"{name}.bin", b"".join(rows))
            else:
                key = "labels" if classes == 10 else "fine_labels"
                write(root / form / name, pickle.dumps({"data": planes, key: labels, "coarse_labels": [0] * 3}, 2))
        expected[split] = np.concatenate([m[0] for m in made]), [label for m in made for label in m[1]]
    return expected


FORMS = ["cifar-10-batches-bin", "cifar-100-binary", "cifar-10-batches-py", "cifar-100-python"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inside", [True, False])
def test_published_cifar_files_give_their_pixels_and_labels_in_order(tmp_path, form, inside):
    expected = write_cifar(tmp_path, form)
    for split, (images, labels) in expected.items():
        source = make(name="cifar", root=str(tmp_path / form if inside else tmp_path), split=split)
        assert len(source) == len(labels) == (RECORDS if "100" in form or split == "test" else 5 * RECORDS)
        assert [source.label(i) for i in range(len(source))] == labels
        for index in range(len(source)):
            assert torch.equal(source.image(index), torch.from_numpy(images[index]).permute(2, 0, 1))


def test_binary_files_come_before_python_batches_and_class_folders_before_both(tmp_path):
    write_cifar(tmp_path, "cifar-10-batches-py")
    expected = write_cifar(tmp_path, "cifar-10-batches-bin")["test"]
    write(tmp_path / "cifar-10-batches-py" / "test_batch", b"never opened")
    assert make(name="cifar", root=str(tmp_path), split="test").labels == expected[1]
    write(tmp_path / "test" / "dog" / "1.png", picture(1))
    assert len(make(name="cifar", root=str(tmp_path), split="test")) == 1


class Evil:
    """Runs code when unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))

    def __init__(self, path: Path) -> None:
        self.path = str(path)


def test_a_batch_with_a_pickled_object_is_refused_and_nothing_in_it_runs(tmp_path):
    write_cifar(tmp_path, "cifar-10-batches-py")
    evil = {"data": Evil(tmp_path / "ran"), "labels": []}
    write(tmp_path / "cifar-10-batches-py" / "test_batch", pickle.dumps(evil, 2))
    with pytest.raises(InputError, match=r"test_batch holds a pickled object \(.*\), which could run code"):
        make(name="cifar", root=str(tmp_path), split="test")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cifar-10-batches-bin/test_batch.bin", b"x" * 3072, r"has 3072 bytes, no multiple of 3073; it is truncated"),
        ("cifar-10-batches-bin/test_batch.bin", b"\x0a" + b"x" * 3072, "a label outside 0 to 9"),
        (
            "cifar-10-batches-py/test_batch",
            b"\x80\x02}q",
            "test_batch is truncated or not a pickle of arrays; .* use the binary",
        ),
        ("cifar-10-batches-py/test_batch", pickle.dumps([1], 2), "has no 'data' of 3072 bytes an image"),
        (
            "cifar-10-batches-py/test_batch",
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, 2),
            "has not one label an image",
        ),
    ],
)
def test_damaged_cifar_files_are_named(tmp_path, name, content, message):
    write(tmp_path / name, content)
    with pytest.raises(InputError, match=message):
        make(name="cifar", root=str(tmp_path), split="test")


def test_a_batch_cannot_say_where_its_arrays_memory_is(tmp_path):
    """NumPy's own unpickling believes what BUILD says of a dtype and a shape; ours makes arrays of the bytes alone."""
    array = pickle.dumps(np.zeros((2, 3072), np.uint8), 2)
    assert array.count(b"K\x02M\x00\x0c\x86") == 1  # the shape (2, 3072)
    batch = b"\x80\x02}(U\x04data" + array[2:-1].replace(b"K\x02M", b"K\x7fM") + b"U\x06labels](K\x00K\x00eu."
    write(tmp_path / "cifar-10-batches-py" / "test_batch", batch)
    with pytest.raises(InputError, match="test_batch is truncated or not a pickle of arrays"):
        make(name="cifar", root=str(tmp_path), split="test")


def test_a_missing_batch_and_a_missing_cifar_are_told(tmp_path):
    write_cifar(tmp_path, "cifar-10-batches-bin")
    (tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    with pytest.raises(InputError, match=r"data_batch_3\.bin is missing beside the other batches"):
        make(name="cifar", root=str(tmp_path))
    with pytest.raises(InputError, match=r"no folder .*none/train; unpack CIFAR with tools/prepare_data.py"):
        make(name="cifar", root=str(tmp_path / "none"))


# --- folders


def write_classes(root: Path, classes: str, images: int = 2) -> Path:
    for number, name in enumerate(classes):
        for index in range(images):
            write(root / name / f"{index}.png", picture(10 * number + index))
    return root


def test_a_class_list_keeps_its_folders_and_numbers_them_in_sorted_order(tmp_path):
    write_classes(tmp_path / "set" / "train", "abcd")
    write_classes(tmp_path / "set" / "val", "bd", images=1)
    listing = write(tmp_path / "two.txt", "# two of four\nd\n\nb  # the other\n")
    for classes in (str(listing), ["d", "b"]):
        source = make(name="imagefolder", root=str(tmp_path / "set"), split="train", classes=classes)
        assert [path.parent.name for path in source.paths] == ["b", "b", "d", "d"]
        assert list(source.labels) == [0, 0, 1, 1]
        assert make(name="imagefolder", root=str(tmp_path / "set"), split="val", classes=classes).labels.tolist() == [
            0,
            1,
        ]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a", "x", "y"], r"train lacks 2 of the 3 classes in data\.classes, first x"),
        (["a", "a"], "names 'a' twice"),
        (["a", "../b"], "holds '../b', which is no folder name"),
        ([], "data.classes names no class"),
        ("none.txt", r"cannot read data\.classes=none\.txt"),
        (["a", "empty"], "empty holds no images; copy the class again"),
    ],
)
def test_a_bad_class_list_is_refused(tmp_path, classes, message):
    write_classes(tmp_path / "train", "ab")
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        make(name="imagefolder", root=str(tmp_path), split="train", classes=classes)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_gray_values_of_16_bits_are_scaled_to_8_and_not_cut_off(tmp_path, suffix):
    values = np.array([[0, 257, 32896], [40000, 65278, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"x.{suffix}")
    image = make(name="imagefolder", root=str(tmp_path)).image(0)
    assert image.tolist() == 3 * [[[0, 1, 128], [156, 254, 255]]]


def test_float_images_beyond_8_bits_and_postscript_are_damaged_not_white(tmp_path):
    Image.fromarray(np.array([[0.0, 1e9]], np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "eps.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    source = make(name="imagefolder", root=str(tmp_path))
    with pytest.raises(DamagedImage, match=r"eps\.png cannot be decoded \(cannot identify"):
        source.image(0)
    with pytest.raises(DamagedImage, match=r"float\.tif cannot be decoded \(gray values from 0 to 1e\+09"):
        source.image(1)


def test_files_of_other_formats_are_counted_and_named(tmp_path):
    for name in ("a.heic", "b.HEIC", "notes.txt", ".hidden.raw"):
        write(tmp_path / name, b"x")
    with pytest.raises(InputError, match=r"holds no images \(.*\) but 2 \.heic, 1 \.txt; set data\.root"):
        make(name="imagefolder", root=str(tmp_path))
    write(tmp_path / "a.png", picture(1))
    assert (
        "3 files are no images here and left out (2 .heic, 1 .txt)"
        in make(name="imagefolder", root=str(tmp_path)).left_out
    )


def test_the_shipped_list_has_100_different_wnids_and_its_config_survives_writing():
    folder = Path(__file__).resolve().parents[2] / "configs" / "pretrain" / "_base_" / "datasets"
    values = load(folder / "imagenet100.yaml")["data"]
    lines = (folder / "imagenet100.txt").read_text().splitlines()
    wnids = [line for line in lines if not line.startswith("#")]
    assert len(wnids) == len(set(wnids)) == 100
    assert all(len(wnid) == 9 and wnid[0] == "n" and wnid[1:].isdigit() for wnid in wnids)
    settings = parse(find("core.data", "imagefolder").Config, values)
    assert Path(settings.classes).name == "imagenet100.txt"
    listed = parse(type(settings), {**values, "classes": ["a", "b"]})
    assert listed.classes == ("a", "b")
    assert parse(type(settings), {**json.loads(listed.model_dump_json())}) == listed
    assert "imagenet100.txt" in dump(settings)


def write_tiny(root: Path) -> Path:
    write(root / "wnids.txt", "n3\nn1\n")
    for number, wnid in enumerate(("n1", "n3")):
        for index in range(2):
            write(root / "train" / wnid / "images" / f"{wnid}_{index}.JPEG", picture(10 * number + index))
    lines = []
    for index, wnid in enumerate(("n3", "n1", "n3")):
        write(root / "val" / "images" / f"val_{index}.JPEG", picture(50 + index))
        write(root / "test" / "images" / f"test_{index}.JPEG", picture(60 + index))
        lines.append(f"val_{index}.JPEG\t{wnid}\t0\t0\t5\t5\n")
    write(root / "val" / "val_annotations.txt", "".join(lines))
    return root


def test_tiny_imagenet_numbers_classes_alike_in_train_and_val(tmp_path):
    root = str(write_tiny(tmp_path))
    train, val, test = (make(name="tiny_imagenet", root=root, split=split) for split in ("train", "val", "test"))
    assert list(train.labels) == [0, 0, 1, 1]
    assert [val.label(i) for i in range(3)] == [1, 0, 1]
    assert test.labels == [-1, -1, -1]
    assert torch.equal(val.image(1), pixels(picture(51)))
    assert torch.equal(train.image(2), pixels(picture(10)))


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("wnids.txt", None, "cannot read .*wnids.txt .*; unpack it again with: .*tiny-imagenet"),
        ("wnids.txt", "n1\nn3\nn5\n", "train lacks 1 of the 3 classes in data.classes, first n5"),
        ("val/val_annotations.txt", None, "cannot read .*val_annotations.txt"),
        ("val/val_annotations.txt", "val_0.JPEG\tn9\t0\n", "line 1 of .* not a file name and a wnid"),
        ("val/val_annotations.txt", "val_0.JPEG\tn1\t0\n", "does not name val_1.JPEG"),
        ("val/images/val_2.JPEG", None, r"images/val_2\.JPEG is missing but val_annotations\.txt names it"),
    ],
)
def test_a_half_copied_tiny_imagenet_is_refused(tmp_path, path, content, message):
    root = write_tiny(tmp_path)
    (root / path).unlink()
    if content is not None:
        write(root / path, content)
    with pytest.raises(InputError, match=message):
        make(name="tiny_imagenet", root=str(root), split="train" if "wnids" in path else "val")


# --- shapes


def test_a_centred_scene_has_its_objects_class_and_the_same_pixels_whatever_is_asked_first():
    source = make(name="shapes", count=12, size=64)
    labels = [source.label(index) for index in range(12)]
    for index in range(12):
        scene = render(1000, index, 64, True)
        assert labels[index] == (scene.objects[0].label if scene.objects else -1)
        assert torch.equal(source.image(index), torch.from_numpy(scene.image.copy()).permute(2, 0, 1))
    assert len(set(labels)) > 3
    assert make(name="shapes", count=2, size=64, centred=False).label(1) == -1


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


def tiny_archive(root: Path) -> Path:
    members = {"wnids.txt": b"n2\nn1\n", "val/val_annotations.txt": b"v0.JPEG\tn1\t0\nv1.JPEG\tn2\t0\n"}
    for wnid in ("n1", "n2"):
        members |= {f"train/{wnid}/images/{index}.JPEG": PHOTO for index in range(2)}
    members |= {f"val/images/v{index}.JPEG": PHOTO for index in range(2)}
    for name, data in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_tiny_imagenet_is_counted_and_what_is_missing_named(tmp_path):
    root = tiny_archive(tmp_path)
    split = {"images": 4, "classes": 2}
    assert class_folders.check_tiny(root) == {"train": split, "val": {"images": 2, "classes": 2}}
    (root / "train" / "n2" / "images" / "0.JPEG").unlink()
    with pytest.raises(ValueError, match=r"train/n2 has 1 images, other classes have 2; unpack it again"):
        class_folders.check_tiny(root)
    tiny_archive(root)
    (root / "val" / "images" / "v1.JPEG").unlink()
    with pytest.raises(ValueError, match=r"v1\.JPEG is missing but .*val_annotations\.txt lists it"):
        class_folders.check_tiny(root)
    tiny_archive(root)
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


# set -> images, lists; every set has two classes, two training images and one test image of each
PETS = "Abyssinian_1 1 1 1\nAbyssinian_2 1 1 1\nboxer_1 2 1 1\nboxer_2 2 1 1\n"
FOUR, TWO = ["a/x/1", "a/x/2", "b/1", "b/2"], ["a/x/3", "b/3"]
MADE: dict[str, tuple[list[str], dict[str, str]]] = {
    "caltech101": ([f"{name}/{i}.jpg" for name in ("ant", "bee") for i in range(3)], {}),
    "flowers102": ([f"image_{i:05d}.jpg" for i in range(1, 7)], {}),
    "pets": (
        [f"{name}_{i}.jpg" for name in ("Abyssinian", "boxer") for i in (1, 2, 3)],
        {"annotations/trainval.txt": PETS, "annotations/test.txt": "Abyssinian_3 1 1 1\nboxer_3 2 1 1\n"},
    ),
    "dtd": (
        [f"{name}/{i}.jpg" for name in ("banded", "woven") for i in (1, 2, 3)],
        {
            "labels/train1.txt": "banded/1.jpg\nwoven/1.jpg\n",
            "labels/val1.txt": "banded/2.jpg\nwoven/2.jpg\n",
            "labels/test1.txt": "banded/3.jpg\nwoven/3.jpg\n",
        },
    ),
    "food101": (
        [f"{name}/{i}.jpg" for name in ("pie", "sushi") for i in (1, 2, 3)],
        {"meta/train.txt": "pie/1\npie/2\nsushi/1\nsushi/2\n", "meta/test.txt": "pie/3\nsushi/3\n"},
    ),
    "places205": (
        [f"{name}.jpg" for name in FOUR + TWO],
        {
            f"trainvalsplit_places205/{split}_places205.csv": "".join(f"{name}.jpg {int(name[0] == 'b')}\n" for name in names)
            for split, names in (("train", FOUR), ("val", TWO))
        },
    ),
    "inat18": (
        [f"train_val2018/{name}.jpg" for name in FOUR + TWO],
        {
            f"{split}2018.json": json.dumps(
                {
                    "images": [{"id": i, "file_name": f"train_val2018/{name}.jpg"} for i, name in enumerate(names)],
                    "annotations": [{"image_id": i, "category_id": int(name[0] == "b")} for i, name in enumerate(names)],
                }
            )
            for split, names in (("train", FOUR), ("val", TWO))
        },
    ),
}  # fmt: skip


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes a small download of a set, in the form of the real one."""
    monkeypatch.setattr(listed, "PER_CLASS", 2)
    small = {name: one._replace(train=4, val=2, classes=2) for name, one in listed.SETS.items()}
    monkeypatch.setattr(listed, "SETS", small)

    def make(name: str) -> Path:
        files, lists = MADE[name]
        source = tmp_path / "download" / name
        for file in files:
            path = source / small[name].images / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(path)
        for file, text in lists.items():
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            (source / file).write_text(text)
        if name == "flowers102":
            savemat(source / "imagelabels.mat", {"labels": np.array([[1, 1, 1, 2, 2, 2]])})
            savemat(source / "setid.mat", {"trnid": [[1, 4]], "valid": [[2, 5]], "tstid": [[3, 6]]})
        return source

    return make


@pytest.mark.parametrize("name", MADE)
def test_a_set_is_laid_out_by_its_own_lists_and_read_as_class_folders(small, name: str, tmp_path: Path) -> None:
    counts = listed.lay_out(name, small(name), tmp_path / "root")
    assert counts == {"train": {"images": 4, "classes": 2}, "val": {"images": 2, "classes": 2}}
    data = ImageFolder.Splits(root=tmp_path / "root" / name, test="val").read()
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 0, 1, 1], [0, 1])
    assert data.train.image(0).shape == (3, 8, 8)
    train = {path.resolve() for path in (tmp_path / "root" / name / "train").glob("*/*")}
    assert not train & {path.resolve() for path in (tmp_path / "root" / name / "val").glob("*/*")}


def test_a_list_that_leads_outside_or_names_a_missing_image_is_refused_and_leaves_nothing(small, tmp_path) -> None:
    source = small("pets")
    Image.new("RGB", (8, 8)).save(tmp_path / "secret_1.jpg")
    for line, told in (("../../../secret_1 1 1 1\n", "has no .*secret_1"), ("boxer_9 2 1 1\n", "has no boxer_9.jpg")):
        (source / "annotations" / "test.txt").write_text(line)
        with pytest.raises(InputError, match=told):
            listed.lay_out("pets", source, tmp_path / "root")
        assert not (tmp_path / "root" / "pets").exists()


def test_another_folder_and_another_number_of_images_are_refused(small, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"is not the unpacked download of dtd \(FileError: .*train1.txt: no such file"
    ):
        listed.lay_out("dtd", tmp_path, tmp_path / "root")
    source = small("food101")
    (source / "meta" / "test.txt").write_text("pie/3\n")
    with pytest.raises(InputError, match=r"val has 1 images of 1 classes, 2 of 2 are published"):
        listed.lay_out("food101", source, tmp_path / "root")


def test_each_set_has_a_probe() -> None:
    probes = {name: row for name, row in benchmarks.shipped().items() if name.removesuffix("_linear") in MADE}
    assert {row.sets for row in probes.values()} == {(name,) for name in MADE}


# ---- tar shards, here and at URLs: the same images in the same order, and what happens when they fail ----


def tar_of(members: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


PICTURES = [picture(seed, side=40) for seed in range(6)]
FOLDERS = [(f"set/{'ab'[index % 2]}/{index}.png", data) for index, data in enumerate(PICTURES)]
PAIRS = [
    member
    for index, data in enumerate(PICTURES)
    for member in ((f"{index:04d}.cls", str(5 - index).encode()), (f"{index:04d}.png", data))
]


def test_labels_come_from_cls_members_or_else_from_folders(tmp_path):
    write(tmp_path / "folders.tar", tar_of(FOLDERS))
    write(tmp_path / "pairs.tar", tar_of(PAIRS))
    write(tmp_path / "names.tar", tar_of([("1.cls", b"owl"), ("1.png", PICTURES[0]), ("2.png", PICTURES[1])]))
    labels = {
        name: make(name="tar_shards", root=str(tmp_path / f"{name}.tar")).labels
        for name in ("folders", "pairs", "names")
    }
    assert labels == {"folders": [0, 1, 0, 1, 0, 1], "pairs": [5, 4, 3, 2, 1, 0], "names": [0, -1]}


@pytest.mark.parametrize("scheme", ["memory", "file"])
@pytest.mark.parametrize("keep", [False, True])
def test_images_at_urls_are_those_of_the_local_tar_in_the_same_order(tmp_path, scheme, keep):
    place = tmp_path / "shards"
    for number in (8, 9, 10):
        write(place / f"part-{number:02d}.tar", tar_of(FOLDERS[2 * number - 16 : 2 * number - 14]))
    urls = f"file://{place}/part-{{08..10}}.tar"
    if scheme == "memory":
        system = fsspec.filesystem("memory")
        for path in place.iterdir():
            system.pipe(f"/{tmp_path.name}/{path.name}", path.read_bytes())
        urls = f"memory://{tmp_path.name}/part-{{08..10}}.tar"
    more = {"keep": str(tmp_path / "kept")} if keep else {}
    source = make(name="tar_urls", urls=urls, index=str(tmp_path / "index"), **more)
    local = make(name="tar_shards", root=str(place))
    assert len(source) == len(local) == 6
    assert source.labels == local.labels
    for index in (3, 0, 5, 1, 4, 2):
        assert torch.equal(source.image(index), local.image(index))
    if keep:
        shutil.rmtree(place)
        assert torch.equal(source.image(0), local.image(0))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its file open
def test_webdataset_writes_what_is_read_here_and_reads_it_in_the_same_order(tmp_path):
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "w.tar")) as writer:
        for index, data in enumerate(PICTURES):
            writer.write({"__key__": f"{index:05d}", "png": data, "cls": index % 3})
    source = make(name="tar_urls", urls=f"file://{tmp_path}/w.tar", index=str(tmp_path / "index"))
    theirs = list(webdataset.WebDataset(f"file:{tmp_path}/w.tar", shardshuffle=False))
    assert source.labels == [int(sample["cls"]) for sample in theirs] == [0, 1, 2, 0, 1, 2]
    for index, sample in enumerate(theirs):
        assert torch.equal(source.image(index), pixels(sample["png"]))
    gc.collect()


def test_a_shard_is_indexed_once_and_again_when_it_changed(tmp_path, monkeypatch):
    shard = write(tmp_path / "s.tar", tar_of(PAIRS))
    settings = {"name": "tar_urls", "urls": f"file://{shard}", "index": str(tmp_path / "index")}
    first = make(**settings)
    with monkeypatch.context() as patched:
        patched.setattr(tar_urls.tar_shards, "find", None)  # would fail if it were called
        assert make(**settings).members == first.members
    (kept,) = (tmp_path / "index").iterdir()
    kept.write_text("{damaged")
    assert make(**settings).members == first.members
    time.sleep(0.01)
    write(shard, tar_of(PAIRS[:4]))
    assert len(make(**settings)) == 2
    assert len(list((tmp_path / "index").iterdir())) == 2


def test_forked_workers_read_the_same(tmp_path):
    shard = write(tmp_path / "s.tar", tar_of(FOLDERS))
    source = make(name="tar_urls", urls=f"file://{shard}", index=str(tmp_path / "index"))
    expected = [int(source.image(index).sum()) for index in range(6)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_total, [(source, index) for index in range(6)]) == expected


def _total(what: tuple) -> int:
    source, index = what
    return int(source.image(index).sum())


@pytest.mark.parametrize("name", ["tar_shards", "tar_urls"])
@pytest.mark.parametrize("cut", [1100, 700, None])
def test_a_truncated_tar_is_refused_wherever_it_ends(tmp_path, name, cut):
    whole = tar_of(FOLDERS)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        end = [member.offset for member in tar][3]  # exactly between two members
    shard = write(tmp_path / "s.tar", whole[: end if cut is None else cut])
    settings = (
        {"root": str(shard)} if name == "tar_shards" else {"urls": f"file://{shard}", "index": str(tmp_path / "i")}
    )
    with pytest.raises(InputError, match=r"s\.tar is truncated"):
        make(name=name, **settings)
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ("memory://nowhere/a.tar", "no tar shard at memory://nowhere/a.tar; set data.urls"),
        ("nothing://a.tar", r"data\.urls: nothing://a\.tar cannot be read \(Protocol not known"),
        ("memory://a-{3..1}.tar", r"the range \{3\.\.1\} of .* is empty"),
    ],
)
def test_urls_that_lead_nowhere_are_refused(tmp_path, urls, message):
    with pytest.raises(InputError, match=message):
        make(name="tar_urls", urls=urls, index=str(tmp_path))


def test_a_lost_connection_is_tried_again_and_then_stops_the_run_instead_of_skipping(tmp_path, monkeypatch):
    shard = write(tmp_path / "s.tar", tar_of(FOLDERS))
    source = make(name="tar_urls", urls=f"file://{shard}", index=str(tmp_path / "index"))
    good, calls = source._fetch, []

    def shaky(*place: int) -> bytes:
        calls.append(place)
        if len(calls) < 3:
            raise OSError("connection lost")
        return good(*place)

    monkeypatch.setattr(tar_urls, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(source, "_fetch", shaky)
    assert torch.equal(source.image(0), pixels(PICTURES[0]))
    monkeypatch.setattr(tar_urls, "PAUSES", (0.0,))
    calls.clear()
    with pytest.raises(InputError, match=r"cannot read file://.*s\.tar \(connection lost\)") as caught:
        source.image(0)
    assert type(caught.value) is InputError  # a DamagedImage would be skipped


def test_a_shard_that_shrank_during_the_run_is_told_apart_from_a_damaged_image(tmp_path):
    shard = write(tmp_path / "s.tar", tar_of(FOLDERS))
    source = make(name="tar_urls", urls=f"file://{shard}", index=str(tmp_path / "index"))
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"s\.tar is shorter than its index says; remove the folder .*index") as caught:
        source.image(5)
    assert type(caught.value) is InputError


def test_ranges_of_urls_are_written_out_with_their_zeros():
    assert tar_urls.expand("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert tar_urls.expand("{0..1}/{0..1}") == ["0/0", "0/1", "1/0", "1/1"]
    assert tar_urls.expand("plain.tar") == ["plain.tar"]


# ---- the renderer of the embedded set: the same bytes everywhere, consistent masks, recognisable classes ----


PIXELS = "0c9c3e551487e3265b04e44b602498ac1923b3964006b78ea41b1a20e9429107"
FILES = "19675b0bc9d9db955d2ef6698b355e7fec816873db0964818c81b141fdc3f465"


def hashes() -> list[str]:
    pixels, files = hashlib.sha256(), hashlib.sha256()
    for seed, index, size in ((0, 0, 128), (1, 7, 128), (2, 300, 128), (1000, 1999, 96), (5, 5, 224)):
        scene = render(seed, index, size)
        pixels.update(scene.image.tobytes() + b"".join(item.mask.tobytes() for item in scene.objects))
        files.update(jpeg(scene.image))
    return [pixels.hexdigest(), files.hexdigest()]


def test_rendered_pixels_and_encoded_files_have_the_pinned_bytes():
    assert hashes() == [PIXELS, FILES]


def test_other_instruction_sets_give_the_same_bytes():
    code = "from test_data_sources import hashes; print(*hashes())"
    plain = {
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
        "JSIMD_FORCENONE": "1",
        "PYTHONPATH": os.path.dirname(__file__),
    }
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env={**os.environ, **plain}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [PIXELS, FILES]


def test_a_scene_depends_on_seed_index_and_size_only():
    first = render(3, 4).image
    render(9, 9)
    assert np.array_equal(first, render(3, 4).image)
    assert not np.array_equal(first, render(3, 5).image)
    assert not np.array_equal(first, render(4, 4).image)


def test_all_classes_appear_about_equally_often_with_one_to_three_objects():
    scenes = [render(1, index) for index in range(120)]
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3}
    counts = np.bincount([item.label for scene in scenes for item in scene.objects], minlength=len(CLASSES))
    assert len(counts) == len(CLASSES) >= 8
    assert counts.min() > 0.5 * counts.mean()


def test_masks_are_disjoint_and_large_enough_and_boxes_are_tight():
    for index in range(30):
        objects = render(2, index).objects
        assert np.sum([item.mask for item in objects], axis=0).max() == 1
        for item in objects:
            left, top, right, bottom = item.box
            assert item.mask.sum() >= MIN_VISIBLE
            assert item.mask[top:bottom, left:right].sum() == item.mask.sum()
            assert all(edge.any() for edge in (item.mask[top], item.mask[bottom - 1]))
            assert all(edge.any() for edge in (item.mask[:, left], item.mask[:, right - 1]))


def test_some_objects_are_partly_hidden():
    boxes = [[item.box for item in render(1, index).objects] for index in range(40)]
    overlaps = sum(
        a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for x in boxes for a in x for b in x if a < b
    )
    assert overlaps > 8


def test_an_object_differs_from_what_surrounds_it():
    differences = []
    for index in range(40):
        scene = render(1, index)
        around = ~np.any([item.mask for item in scene.objects], axis=0)
        differences += [np.abs(scene.image[i.mask].mean(0) - scene.image[around].mean(0)).sum() for i in scene.objects]
    assert np.median(differences) > 100


def test_the_fill_is_exact_on_a_square_and_on_a_cut_one():
    corners = np.array([(1, 1), (3, 1), (3, 3), (1, 3)]) * PIXEL
    window, covered = fill([corners + PIXEL // 2], 8)
    assert window == (slice(1, 4), slice(1, 4))
    assert (covered * 4 // FULL).tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    window, covered = fill([corners - 2 * PIXEL], 8)
    assert window == (slice(0, 1), slice(0, 1))
    assert covered.tolist() == [[FULL]]


def test_a_ring_has_an_empty_middle_and_a_disc_its_area():
    for name, share in (("disc", np.pi), ("ring", np.pi * (1 - 0.55**2))):
        _, covered = fill(place(OUTLINES[name], (64 * PIXEL, 64 * PIXEL), 40 * PIXEL, 17), 128)
        assert covered.max() == FULL
        assert covered.sum() / FULL == pytest.approx(share * 40 * 40, rel=0.01)
        assert covered[covered.shape[0] // 2, covered.shape[1] // 2] == (FULL if name == "disc" else 0)


def test_something_outside_the_canvas_covers_nothing():
    _, covered = fill(place(OUTLINES["star"], (-90 * PIXEL, 20 * PIXEL), 10 * PIXEL, 0), 32)
    assert covered.sum() == 0


@pytest.mark.parametrize("name", TEXTURES)
def test_a_texture_stays_in_range_at_any_size(name):
    rng = np.random.default_rng(0)
    for height, width, period in ((1, 1, 4), (3, 200, 4), (128, 128, 24), (61, 17, 9)):
        field = TEXTURES[name](rng, height, width, period)
        assert np.broadcast_to(field, (height, width)).shape == field.shape
        assert 0 <= field.min() <= field.max() <= 255


def test_every_class_has_a_favourite_texture():
    assert len(FAVOURITES) == len(CLASSES)
    assert set(FAVOURITES) <= set(TEXTURES)


def test_too_small_an_image_is_refused_with_the_next_step():
    with pytest.raises(ValueError, match="ask for 32 or more"):
        render(0, 0, 16)
