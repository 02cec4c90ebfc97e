"""Datasets: the embedded set as files, VOC checks, CIFAR-10 tars, the tool, bad input."""

import concurrent.futures
import io
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from core.errors import InputError
from core.files import sha256
from core.shapes import CLASSES, render
from transfer.datasets import checking, class_folders, coco, files, shapes, voc

SMALL = shapes.Plan(unlabelled=3, train=6, val=3, size=64, unlabelled_size=48)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    return shapes.ensure(tmp_path_factory.mktemp("datasets"), SMALL)


@pytest.fixture
def copied(rendered, tmp_path) -> Path:
    return Path(shutil.copytree(rendered, tmp_path / "shapes"))


def tar_with(path: Path, names: list[str], *, link: bool = False) -> Path:
    data = io.BytesIO()
    Image.new("RGB", (4, 4)).save(data, "JPEG")
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            if link:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            member.size = 0 if link else len(data.getvalue())
            tar.addfile(member, None if link else io.BytesIO(data.getvalue()))
    return path


CIFAR = [
    f"cifar10/{split}/{name}/{i:04d}.jpg"
    for split in ("train", "test")
    for name in class_folders.CIFAR10
    for i in range(2)
]


# --- the embedded set


def test_the_rendered_set_has_the_pinned_bytes(rendered):
    assert files.read_manifest(rendered)["sha256"] == "40e8c2d325cba9ee7e908dd4b6c66515983403c9759f9382de4a96b1186857a5"
    assert (
        sha256(rendered / "VOC" / "SegmentationClass" / "000001.png")
        == "63c04ebcb325912dbcf678ca6edab682a882a5ff4f12e56e7e7f9c06827a59d7"
    )


def test_the_rendered_set_passes_its_check_and_counts_what_was_asked_for(rendered):
    counts = shapes.check(rendered)
    assert counts["unlabelled"]["images"] == 3
    assert (counts["coco/train"]["images"], counts["coco/val"]["images"]) == (6, 3)
    assert counts["VOC/Segmentation/trainval"]["images"] == 9
    assert counts["coco/train"]["objects"] == counts["VOC/Main/train"]["objects"] > 6


def test_pycocotools_reads_the_set_and_its_masks_equal_the_rendered_ones(rendered, capsys):
    data = COCO(str(rendered / "coco" / "annotations" / "instances_train.json"))
    assert [record["name"] for record in data.loadCats(data.getCatIds())] == list(CLASSES)
    for index, image in enumerate(data.loadImgs(data.getImgIds())):
        scene = render(SMALL.seeds[1], index, SMALL.size)
        annotations = data.loadAnns(data.getAnnIds(imgIds=image["id"]))
        assert len(annotations) == len(scene.objects)
        for annotation, item in zip(annotations, scene.objects, strict=True):
            assert annotation["category_id"] == item.label + 1
            assert annotation["area"] == item.mask.sum()
            assert np.array_equal(data.annToMask(annotation) > 0, item.mask)


def test_segmentation_files_are_palette_images_with_classes_inside_and_void_at_borders(rendered):
    scene = render(SMALL.seeds[1], 0, SMALL.size)
    with Image.open(rendered / "VOC" / "SegmentationClass" / "000001.png") as image:
        assert image.mode == "P"
        assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
        assert image.getpalette()[-3:] == [224, 224, 192]
        labels = np.asarray(image)
    assert set(np.unique(labels)) == {0, voc.VOID} | {item.label + 1 for item in scene.objects}
    for item in scene.objects:
        assert set(np.unique(labels[item.mask])) == {item.label + 1, voc.VOID}


def test_the_same_set_is_not_rendered_twice_and_a_stale_or_incomplete_one_is(tmp_path):
    plan = shapes.Plan(unlabelled=1, train=1, val=1, size=64, unlabelled_size=48)
    folder = shapes.ensure(tmp_path, plan)
    made = (folder / "manifest.json").stat().st_mtime_ns
    assert (shapes.ensure(tmp_path, plan) / "manifest.json").stat().st_mtime_ns == made
    (folder / "unlabelled" / "000000.jpg").unlink()
    shapes.ensure(tmp_path, plan)
    assert (folder / "unlabelled" / "000000.jpg").is_file()
    shapes.ensure(tmp_path, shapes.Plan(unlabelled=2, train=1, val=1, size=64, unlabelled_size=48))
    assert len(list((folder / "unlabelled").iterdir())) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [".shapes.lock", "shapes"]


def test_processes_that_ask_at_once_make_a_folder_once(tmp_path):
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "file").write_text("content")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: files.make_once(tmp_path / "set", {"a": 1}, make), range(4)))
    assert sorted(made) == [False, False, False, True]
    assert len(calls) == 1


def test_a_failed_making_leaves_nothing_and_leftovers_of_a_killed_one_are_removed(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise RuntimeError("stop")

    (tmp_path / ".set.abc.tmp").mkdir()
    with pytest.raises(RuntimeError, match="stop"):
        files.make_once(tmp_path / "set", {}, fail)
    assert [path.name for path in tmp_path.iterdir()] == [".set.lock"]


def test_a_folder_of_the_user_is_never_replaced(tmp_path):
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="not made by this tool; move it away"):
        shapes.ensure(tmp_path, SMALL)
    assert (tmp_path / "shapes" / "mine.txt").read_text() == "precious"


def test_a_changed_file_of_the_set_is_named(copied):
    path = copied / "coco" / "val" / "000007.jpg"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"000007\.jpg was changed or is damaged"):
        shapes.check(copied)


# --- VOC


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("JPEGImages/000001.jpg", None, "000001.jpg is missing but .*train.txt lists it"),
        ("Annotations/000001.xml", None, "000001.xml is missing"),
        ("Annotations/000001.xml", b"<annotation>", "000001.xml is not XML"),
        (
            "Annotations/000001.xml",
            b"<a><object><name>yak</name></object></a>",
            "object 0 of .* is a 'yak'; classes are",
        ),
        ("Annotations/000001.xml", b"<a><object><name>disc</name></object></a>", "lacks a corner of its bndbox"),
        ("SegmentationClass/000001.png", None, "000001.png is missing"),
        ("SegmentationClass/000001.png", "L", "mode L, not a palette PNG"),
        ("SegmentationClass/000001.png", "RGB", "mode RGB, not a palette PNG"),
        ("SegmentationClass/000001.png", "P", r"000001.png is \(32, 32\), its image \(64, 64\) pixels"),
        (
            "Annotations/000001.xml",
            b"<a><object><name>disc</name><bndbox><xmin>9</xmin><ymin>1</ymin><xmax>66</xmax><ymax>64</ymax></bndbox></object></a>",
            r"train.txt has 1 boxes outside among \d+, first \(9, 1, 66, 64\) of object 0 in .*000001.xml, whose image is 64",
        ),
        (
            "Annotations/000001.xml",
            b"<a><object><name>disc</name><bndbox><xmin>9</xmin><ymin>1</ymin><xmax>8</xmax><ymax>64</ymax></bndbox></object></a>",
            "object 0 of .*000001.xml has an empty bndbox",
        ),
        (
            "Annotations/000001.xml",
            b"<a><size><width>64</width><height>46</height></size></a>",
            r"train.txt has 1 wrong sizes among 6, first .*000001.xml says 64 x 46, 000001.jpg has 64 x 64",
        ),
        ("SegmentationClass/000001.png", 77, "holds the value 77; allowed are 0 to 8 and 255"),
        ("ImageSets/Main/train.txt", b"", "train.txt lists no images"),
        ("ImageSets", None, "no .*ImageSets"),
        ("JPEGImages", None, "no folder .*JPEGImages"),
    ],
)
def test_a_bad_voc_folder_is_refused_with_what_and_where(copied, path, content, message):
    target = copied / "VOC" / path
    if content is None:
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    elif isinstance(content, str):
        Image.new(content, (32, 32) if content == "P" else (64, 64)).save(target)
    elif isinstance(content, int):
        voc.write_labels(target, np.full((64, 64), content, dtype=np.uint8))
    else:
        target.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        voc.check(copied / "VOC", CLASSES)


# --- CIFAR-10


def test_a_cifar_tar_is_unpacked_and_counted(tmp_path):
    counts = class_folders.unpack_cifar10(tar_with(tmp_path / "c.tar", CIFAR), tmp_path / "root")
    assert counts == {"train": {"images": 20, "classes": 10}, "test": {"images": 20, "classes": 10}}
    assert (tmp_path / "root" / "cifar10" / "train" / "frog" / "0001.jpg").is_file()


@pytest.mark.parametrize(
    "name",
    ["../evil.jpg", "/tmp/evil.jpg", "cifar10/train/../../../evil.jpg", "cifar10/train/frog/../../../../e.jpg", "x.sh"],
)
def test_a_tar_member_outside_its_folder_is_refused_and_nothing_is_written(tmp_path, name):
    archive = tar_with(tmp_path / "c.tar", [*CIFAR, name])
    with pytest.raises(ValueError, match="nothing was unpacked"):
        class_folders.unpack_cifar10(archive, tmp_path / "root")
    assert [path.name for path in (tmp_path / "root").iterdir()] == [".cifar10.lock"]


def test_a_link_in_a_tar_is_refused(tmp_path):
    archive = tar_with(tmp_path / "c.tar", CIFAR[:1], link=True)
    with pytest.raises(ValueError, match="nothing was unpacked"):
        class_folders.unpack_cifar10(archive, tmp_path / "root")


def test_a_truncated_or_incomplete_tar_is_refused(tmp_path):
    archive = tar_with(tmp_path / "c.tar", CIFAR)
    archive.write_bytes(archive.read_bytes()[:2700])
    with pytest.raises(ValueError, match="truncated or not a tar"):
        class_folders.unpack_cifar10(archive, tmp_path / "root")
    with pytest.raises(ValueError, match="frog has 1 images, other classes have 2"):
        class_folders.unpack_cifar10(
            tar_with(tmp_path / "d.tar", [n for n in CIFAR if n != "cifar10/train/frog/0000.jpg"]), tmp_path / "root"
        )
    with pytest.raises(ValueError, match="no file"):
        class_folders.unpack_cifar10(tmp_path / "none.tar", tmp_path / "root")


# --- the tool


def test_checking_a_root_checks_what_is_there(copied):
    assert list(checking.check(copied.parent)[0]) == ["shapes"]
    assert checking.check(copied)[0][str(copied)] == shapes.check(copied)
    assert next(iter(checking.check(copied / "coco")[0].values()))["train"]["images"] == 6


def test_an_empty_root_says_what_was_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"holds none of shapes, coco, .* make the embedded set with"):
        checking.check(tmp_path)


def test_the_tool_ends_with_code_two_and_one_line_on_bad_input(run_tool, tmp_path):
    root = tmp_path / "none"
    done = run_tool("tools/prepare_data.py", "check", root, check=2)
    next_step = f"make the embedded set with: python tools/prepare_data.py shapes {root}"
    assert done.stderr == f"error: no folder {root}; {next_step}\n"


def test_the_tool_refuses_a_bad_voc_folder_in_one_line(copied, run_tool):
    for path in (copied / "VOC" / "Annotations").iterdir():
        path.write_text(re.sub(r"<name>\w+</name>", "<name>dog</name>", path.read_text()))
    path = copied / "VOC" / "Annotations" / "000001.xml"
    path.write_text(re.sub(r"<xmax>\d+</xmax>", "<xmax>0</xmax>", path.read_text()))
    done = run_tool("tools/prepare_data.py", "check", copied / "VOC", check=2)
    assert done.stderr.count("\n") == 1
    assert re.match(
        r"error: object 1 of .*000001\.xml has the bndbox \(\d+, \d+, 0, \d+\), which is empty", done.stderr
    )


@pytest.mark.parametrize("maker", ["shapes", "link", "copy", "cifar10", "coco-to-voc"])
def test_an_output_that_cannot_be_written_is_named_and_nothing_is_left(rendered, tmp_path, maker):
    (tmp_path / "file").write_text("mine")
    place, source, archive = tmp_path / "file" / "set", rendered / "coco", tar_with(tmp_path / "c.tar", CIFAR)
    make = {
        "shapes": lambda: shapes.ensure(place),
        "link": lambda: coco.link(source, place),
        "copy": lambda: coco.link(source, place, copy=True),
        "cifar10": lambda: class_folders.unpack_cifar10(archive, place),
        "coco-to-voc": lambda: voc.from_coco(source, place),
    }[maker]
    with pytest.raises(InputError, match=f"cannot write {place}"):
        make()
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.tar", "file"]
