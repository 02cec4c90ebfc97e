"""Public datasets: unpacked into the layouts both frameworks expect, counted, and asked for before training."""

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from transfer.datasets import (
    ade20k,
    cifar_binary,
    cityscapes,
    class_folders,
    coco,
    download,
    published,
    voc,
    voc_aug,
)
from transfer.datasets.download import Archive
from transfer.datasets.requirement import require


def encode(values: np.ndarray, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, form)
    return file.getvalue()


PHOTO = encode(np.zeros((6, 8, 3)), "JPEG")


def pack(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name, data in members.items():
                file.writestr(name, data)
        return path
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def by_hand(monkeypatch, one: published.Published, **changes: object) -> None:
    """Let the archives be any, as they are put into ROOT/downloads by hand, and publish fewer images."""
    archives = [Archive(archive.name, None) for archive in one.archives]
    small = one._replace(archives=archives, **changes)
    for name, sets in published.SETS.items():
        if one in sets:
            monkeypatch.setitem(published.SETS, name, tuple(small if other is one else other for other in sets))


# --- CIFAR


@pytest.fixture
def few_records(monkeypatch) -> None:
    for name, form in list(cifar_binary.FORMS.items()):
        few = {"train": form.classes, "test": form.classes}
        monkeypatch.setitem(cifar_binary.FORMS, name, form._replace(records=few))


def cifar_members(form: str) -> dict[str, bytes]:
    shape = cifar_binary.FORMS[form]
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
        (lambda data: None, r"data_batch_2\.bin is missing; remove .*set and make it again"),
        (lambda data: data[:-1], r"data_batch_2\.bin has 30729 bytes, not 30730"),
        (lambda data: b"\x0b" + data[1:], r"data_batch_2\.bin holds the label 11, there are 10 classes"),
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
        cifar_binary.check(tmp_path / "set")


def test_a_folder_made_in_another_way_is_never_replaced(monkeypatch, tmp_path):
    by_hand(monkeypatch, published.CIFAR10)
    for split in ("train", "test"):
        for name in published.cifar10.CLASSES:
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


def below(prefix: str, members: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{prefix}{name}": data for name, data in members.items()}


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
    assert voc_aug.add(folder, sbd(tmp_path, "bc", "a")) == 1
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
        voc_aug.add(tmp_path / "VOC2012", sbd(tmp_path, "bc", "a", values=21))
    assert sorted(path.name for path in (tmp_path / "VOC2012").iterdir()) == before


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
    classes = class_folders.read_classes(listing)
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
