"""CIFAR, VOC and SBD from their archives into the layouts that are read."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_data import PHOTO, below, by_hand, pack
from PIL import Image
from scipy.io import savemat

from core.data import _cifar_batches
from transfer.datasets import (
    class_folders,
    published,
    voc,
)
from transfer.datasets.checking import require

# --- CIFAR


@pytest.fixture
def few_records(monkeypatch) -> None:
    few = [
        form._replace(records={split: form.classes * len(names) for split, names in form.files.items()})
        for form in _cifar_batches.FORMS
    ]
    monkeypatch.setattr(_cifar_batches, "FORMS", few)


def cifar_members(form: str) -> dict[str, bytes]:
    shape = next(one for one in _cifar_batches.FORMS if one.folder == form)
    rows = b"".join(bytes(shape.label_bytes - 1) + bytes([label]) + bytes(3072) for label in range(shape.classes))
    names = [name for split in shape.files.values() for name in split]
    return {f"{form}/{name}": rows for name in (*names, "readme.html")}


@pytest.mark.usefixtures("few_records")
def test_both_cifars_are_unpacked_from_archives_put_there_by_hand(monkeypatch, tmp_path):
    by_hand(monkeypatch, published.CIFAR10, images={"train": 50, "test": 10})
    by_hand(monkeypatch, published.CIFAR100, images={"train": 100, "test": 100})
    pack(tmp_path / "downloads" / "cifar-10-binary.tar.gz", cifar_members("cifar-10-batches-bin"))
    pack(tmp_path / "downloads" / "cifar-100-binary.tar.gz", cifar_members("cifar-100-binary"))
    ten = {"train": {"images": 50, "classes": 10}, "test": {"images": 10, "classes": 10}}
    assert published.prepare("cifar10", tmp_path) == {str(tmp_path / "cifar10"): ten}
    assert published.prepare("cifar100", tmp_path)[str(tmp_path / "cifar100")]["train"]["classes"] == 100
    shutil.rmtree(tmp_path / "downloads")  # not needed again
    assert published.prepare("cifar10", tmp_path) == published.check("cifar10", tmp_path)


@pytest.mark.usefixtures("few_records")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: None,
            r"data_batch_2\.bin is missing beside the other batches; remove the folder and make it again",
        ),
        (lambda data: data[:-1], r"data_batch_2\.bin has 30729 bytes, no multiple of 3073; it is truncated"),
        (lambda data: b"\x0b" + data[1:], r"data_batch_2\.bin holds a label outside 0 to 9"),
        (lambda data: data[3073:], r"cifar-10-batches-bin has 49 images in 'train', not 50"),
        (lambda data: b"\x01" + data[1:], r"classes of 'train' have 4 to 6 images"),
    ],
)
def test_damaged_binary_files_are_named(tmp_path, change, message):
    for name, data in cifar_members("cifar-10-batches-bin").items():
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = change(data) if "batch_2" in name else data
        if data is not None:
            path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        class_folders.check_cifar(tmp_path / "set")


def test_a_folder_made_in_another_way_is_never_replaced(monkeypatch, tmp_path):
    by_hand(monkeypatch, published.CIFAR10)
    for split in ("train", "test"):
        for name in class_folders.CIFAR10:
            path = tmp_path / "cifar10" / split / name / "1.jpg"
            path.parent.mkdir(parents=True)
            path.write_bytes(PHOTO)
    with pytest.raises(ValueError, match="cifar10 has 10 images in 'train', 50000 are published"):
        published.prepare("cifar10", tmp_path)
    assert (tmp_path / "cifar10" / "train" / "dog" / "1.jpg").read_bytes() == PHOTO
    (tmp_path / "cifar10" / "manifest.json").write_text(
        '{"made_from": {"sha256": "of a tar"}, "files": {}, "sha256": ""}'
    )
    with pytest.raises(ValueError, match="50000 are published"):
        published.prepare("cifar10", tmp_path)


# --- VOC


def voc_members(names: str, lists: dict[str, str]) -> dict[str, bytes]:
    """Make an archive of images named by one letter, with a box and a mask each; ``lists`` are list -> names."""
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>8</xmax><ymax>6</ymax></bndbox>"
    xml = f"<annotation><size><width>8</width><height>6</height></size><object><name>dog</name>{box}</object></annotation>"
    members = {}
    mask = io.BytesIO()
    image = Image.fromarray(np.full((6, 8), 12, dtype=np.uint8))
    image.putpalette(voc.palette())
    image.save(mask, "PNG")
    for name in names:
        members[f"JPEGImages/{name}.jpg"] = PHOTO
        members[f"Annotations/{name}.xml"] = xml.encode()
        members[f"SegmentationClass/{name}.png"] = mask.getvalue()
    for name, listed in lists.items():
        members[f"ImageSets/{name}.txt"] = "".join(f"{letter}\n" for letter in listed).encode()
    return members


LISTS = {"Main/trainval": "abc", "Segmentation/train": "a", "Segmentation/val": "b"}


def prepare_voc(monkeypatch, root: Path) -> dict:
    by_hand(monkeypatch, published.VOC2007, images={"Main/trainval": 3, "Main/test": 2})
    by_hand(monkeypatch, published.VOC2012, images={"Main/trainval": 3, "Segmentation/train": 1})
    place = root / "downloads"
    first = below("VOCdevkit/VOC2007/", voc_members("abc", LISTS))
    pack(place / "VOCtrainval_06-Nov-2007.tar", first)
    pack(place / "VOCtest_06-Nov-2007.tar", below("VOCdevkit/VOC2007/", voc_members("de", {"Main/test": "de"})))
    pack(place / "VOCtrainval_11-May-2012.tar", below("VOCdevkit/VOC2012/", voc_members("abc", LISTS)))
    return published.prepare("voc", root)


def test_voc_is_laid_out_as_detectron2_reads_it(monkeypatch, tmp_path):
    counts = prepare_voc(monkeypatch, tmp_path)
    assert counts[str(tmp_path / "VOC2007")]["Main/test"] == {
        "images": 2, "objects": 2, "boxes outside": 0, "wrong sizes": 0,
    }  # fmt: skip
    assert counts[str(tmp_path / "VOC2012")]["Segmentation/val"] == {"images": 1, "classes seen": 1}
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for name in ("voc_2007_trainval", "voc_2007_test", "voc_2012_trainval"):
        require(name)
    with pytest.raises(ValueError, match=r"no list .*VOC2012/ImageSets/Main/test\.txt; fetch VOC with"):
        require("voc_2012_test")
    (tmp_path / "VOC2007" / "Annotations" / "d.xml").unlink()
    with pytest.raises(ValueError, match=r"d\.xml is missing but .*Main/test\.txt lists it \(1 of 2"):
        require("voc_2007_test")


def test_a_set_with_fewer_images_than_published_is_refused_and_not_left(monkeypatch, tmp_path):
    by_hand(monkeypatch, published.VOC2007, images={"Main/trainval": 3})
    by_hand(monkeypatch, published.VOC2012)
    for archive in published.VOC2007.archives:
        pack(
            tmp_path / "downloads" / archive.name,
            below("VOCdevkit/VOC2007/", voc_members("ab", {"Main/trainval": "ab"})),
        )
    with pytest.raises(ValueError, match="has 2 images in 'Main/trainval', 3 are published"):
        published.prepare("voc", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".VOC2007.lock", "downloads"]


def sbd(tmp_path: Path, train: str, val: str, values: int = 3) -> Path:
    members = {"train.txt": "\n".join(train).encode(), "val.txt": "\n".join(val).encode(), "img/a.jpg": PHOTO}
    for name in train + val:
        file = io.BytesIO()
        savemat(file, {"GTcls": {"Segmentation": np.full((6, 8), values, dtype=np.uint8), "Boundaries": 0}})
        members[f"cls/{name}.mat"] = file.getvalue()
    return pack(tmp_path / "downloads" / "benchmark.tgz", below("benchmark_RELEASE/dataset/", members))


def test_sbd_gives_the_lists_and_masks_outside_vocs_train_and_val(monkeypatch, tmp_path):
    prepare_voc(monkeypatch, tmp_path)
    folder = tmp_path / "VOC2012"
    assert voc.augment(folder, sbd(tmp_path, "bc", "a")) == 1
    lists = folder / "ImageSets" / "Segmentation"
    assert (lists / "aug.txt").read_text().split() == ["c"]
    assert (lists / "trainaug.txt").read_text().split() == ["a", "c"]
    with Image.open(folder / "SegmentationClassAug" / "c.png") as image:
        assert image.mode == "P"
        assert np.unique(np.asarray(image)).tolist() == [3]
    with Image.open(folder / "SegmentationClassAug" / "a.png") as image:
        assert np.unique(np.asarray(image)).tolist() == [12]  # VOC's own mask
    counts = voc.check(folder)
    assert counts["Segmentation/aug"] == {"images": 1, "classes seen": 1}
    assert counts["Segmentation/trainaug"]["images"] == 2
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    require("VOC2012", "Segmentation/train", "Segmentation/aug")
    (folder / "SegmentationClassAug" / "c.png").unlink()
    with pytest.raises(ValueError, match=r"SegmentationClassAug/c\.png is missing"):
        require(folder, "Segmentation/aug")


def test_damaged_sbd_masks_leave_voc_as_it_was(monkeypatch, tmp_path):
    prepare_voc(monkeypatch, tmp_path)
    before = sorted(path.name for path in (tmp_path / "VOC2012").iterdir())
    with pytest.raises(ValueError, match=r"c\.mat of SBD holds no map of the 20 classes"):
        voc.augment(tmp_path / "VOC2012", sbd(tmp_path, "bc", "a", values=21))
    assert sorted(path.name for path in (tmp_path / "VOC2012").iterdir()) == before
