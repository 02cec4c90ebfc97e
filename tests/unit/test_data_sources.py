"""Sources of unlabelled images: the published CIFAR files, Tiny-ImageNet, class lists, shapes."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from made_data import make, picture, pixels, write
from PIL import Image

from core.config import dump, load, parse
from core.decoding import DamagedImage
from core.errors import InputError
from core.plugins import find
from core.shapes import render

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
        assert source.labels == [0, 0, 1, 1]
        assert make(name="imagefolder", root=str(tmp_path / "set"), split="val", classes=classes).labels == [0, 1]


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
    assert train.labels == [0, 0, 1, 1]
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
