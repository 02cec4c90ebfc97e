"""Sources of unlabelled images: the published CIFAR files, Tiny-ImageNet, class lists, tar shards here and at URLs."""

import gc
import io
import json
import multiprocessing
import pickle
import shutil
import tarfile
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from core.config import dump, load, parse
from core.errors import InputError
from core.plugins import build, find
from core.shapes import render
from pretrain.data import tar_urls

RECORDS = 3  # of every made CIFAR file


def make(**values: object):
    """Build a data source as a config does."""
    return build("pretrain.data", parse(find("pretrain.data", str(values["name"])).Config, values))


def picture(seed: int, side: int = 6) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def pixels(data: bytes) -> torch.Tensor:
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


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
        ("cifar-10-batches-py/test_batch", b"\x80\x02}q", "test_batch is truncated or no CIFAR batch"),
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


def test_the_shipped_list_has_100_different_wnids_and_its_config_survives_writing():
    folder = Path(__file__).resolve().parents[2] / "configs" / "pretrain" / "_base_" / "datasets"
    values = load(folder / "imagenet100.yaml")["data"]
    lines = (folder / "imagenet100.txt").read_text().splitlines()
    wnids = [line for line in lines if not line.startswith("#")]
    assert len(wnids) == len(set(wnids)) == 100
    assert all(len(wnid) == 9 and wnid[0] == "n" and wnid[1:].isdigit() for wnid in wnids)
    settings = parse(find("pretrain.data", "imagefolder").Config, values)
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


# --- tar files


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
        patched.setattr(tar_urls._tar_index, "find", None)  # would fail if it were called
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
