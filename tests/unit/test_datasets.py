"""Data sets are checked as they lie: COCO, VOC, label maps."""

import concurrent.futures
import io
import json
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

    (tmp_path / ".set.abcdefgh.tmp").mkdir()
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
    with pytest.raises(ValueError, match="truncated or damaged"):
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
def test_an_output_that_cannot_be_written_is_named_and_nothing_is_left(rendered, tmp_path, tmp_path_factory, maker):
    known = shutil.copytree(rendered / "coco", tmp_path_factory.mktemp("known") / "coco")
    for listing in (known / "annotations").iterdir():  # one of VOC's classes: a set without any is refused before
        listing.write_text(listing.read_text().replace('"arrow"', '"person"'))
    (tmp_path / "file").write_text("mine")
    place, source, archive = tmp_path / "file" / "set", rendered / "coco", tar_with(tmp_path / "c.tar", CIFAR)
    make = {
        "shapes": lambda: shapes.ensure(place),
        "link": lambda: coco.link(source, place),
        "copy": lambda: coco.link(source, place, copy=True),
        "cifar10": lambda: class_folders.unpack_cifar10(archive, place),
        "coco-to-voc": lambda: voc.from_coco(known, place),
    }[maker]
    with pytest.raises(InputError, match=f"cannot write {place}"):
        make()
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.tar", "file"]


def write_coco(root: Path, *, size: int = 10) -> Path:
    """Write a train and a val image with a large couch, a small dog over it, a zebra, and a crowd of people."""
    counts = [80, 2, 8, 2, 8]  # down the columns: rows 0 and 1 of columns 8 and 9
    boxes = [(1, 3, 1, 1, 6, 8), (2, 4, 2, 3, 3, 3), (3, 5, 0, 9, 10, 1)]
    (root / "annotations").mkdir(parents=True)
    for number, split in enumerate(("train2017", "val2017"), start=1):
        annotations = [
            {
                "id": i, "image_id": number, "category_id": category, "iscrowd": 0, "bbox": [x, y, w, h], "area": w * h,
                "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
            } for i, category, x, y, w, h in boxes
        ]  # fmt: skip
        outline = {"size": [size, size], "counts": counts}
        annotations.append({**annotations[0], "id": 9, "category_id": 1, "iscrowd": 1, "segmentation": outline})
        content = {
            "images": [{"id": number, "file_name": f"{number:012d}.jpg", "height": size, "width": size}],
            "annotations": annotations,
            "categories": [{"id": i, "name": n} for i, n in ((1, "person"), (3, "couch"), (4, "dog"), (5, "zebra"))],
        }
        (root / split).mkdir()
        Image.new("RGB", (size, size), (9, 99, 199)).save(root / split / f"{number:012d}.jpg")
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_polygons_keep_holes_specks_and_borders():
    mask = np.zeros((20, 24), dtype=bool)
    mask[2:12, 3:15] = True
    mask[4:6, 5:8] = mask[8:10, 9:12] = False
    mask[19, 23] = mask[15, 0] = True
    parts = coco.polygons(mask)
    assert min(len(part) for part in parts) >= 6
    assert np.array_equal(coco.decode({"segmentation": parts}, 20, 24), mask)
    assert coco.polygons(np.zeros((4, 4), dtype=bool)) == []


COUNTS = {
    "images": 1, "objects": 4, "classes": 4, "crowds": 1, "zero-area boxes": 0, "boxes outside": 0, "crowd-only images": 0,
}  # fmt: skip


def test_a_coco_folder_is_counted(tmp_path):
    assert coco.check(write_coco(tmp_path / "coco")) == {"train2017": COUNTS, "val2017": COUNTS}


def test_few_records_that_training_leaves_out_are_counted_and_many_refused(tmp_path):
    root = write_coco(tmp_path / "coco")

    def repeat(content: dict, times: int) -> None:
        good = content["annotations"][0]
        content["annotations"] += [{**good, "id": 100 + number} for number in range(times)]
        content["annotations"][2].update(bbox=[0, 9, 10, 0])

    edit(root / "annotations" / "instances_val2017.json", lambda content: repeat(content, 996))
    assert coco.check(root)["val2017"]["zero-area boxes"] == 1
    edit(root / "annotations" / "instances_val2017.json", lambda content: content["annotations"].pop())
    with pytest.raises(ValueError, match=r"val2017.json has 1 zero-area boxes among 999, first .* of annotation 3"):
        coco.check(root)


def test_a_box_may_leave_its_image_by_a_pixel_and_no_more(tmp_path):
    root = write_coco(tmp_path / "coco")
    source = root / "annotations" / "instances_train2017.json"
    edit(source, lambda c: c["annotations"][0].update(bbox=[-1, 1, 12, 8]))
    assert coco.check(root)["train2017"]["boxes outside"] == 0
    edit(source, lambda c: c["annotations"][0].update(bbox=[-1, 1, 12.1, 8]))
    with pytest.raises(
        ValueError, match=r"1 boxes outside among 4, first \[-1, 1, 12.1, 8\] of annotation 1 in an image"
    ):
        coco.check(root)


def test_what_a_benchmark_asks_for_reads_no_pixels(tmp_path):
    root = write_coco(tmp_path / "coco")
    (root / "train2017" / "000000000001.jpg").write_bytes(b"not an image, but there")
    coco.require(root, ("train2017",))
    coco.require(root)
    with pytest.raises(ValueError, match=r"no .*instances_test2017\.json"):
        coco.require(root, ("test2017",))
    (root / "train2017" / "000000000001.jpg").unlink()
    with pytest.raises(ValueError, match=r"000000000001\.jpg is missing but .* lists it \(1 of 1 are not there\)"):
        coco.require(root, ("train2017",))
    coco.require(root, ("val2017",))


def damage(root: Path, kind: str) -> None:
    source, photo = root / "annotations" / "instances_train2017.json", root / "train2017" / "000000000001.jpg"
    if kind == "no folder":
        shutil.rmtree(root)
    elif kind == "empty folder":
        shutil.rmtree(root)
        root.mkdir()
    elif kind == "no image folder":
        shutil.rmtree(root / "train2017")
    elif kind == "cut json":
        source.write_bytes(source.read_bytes()[:200])
    elif kind == "a list":
        source.write_text("[]")
    elif kind == "no image":
        photo.unlink()
    elif kind == "cut image":
        photo.write_bytes(photo.read_bytes()[:-80])
    elif kind == "empty image":
        photo.write_bytes(b"")
    else:
        changes = {
            "no images": lambda c: c.update(images=[]),
            "unknown image": lambda c: c["annotations"][1].update(image_id=77),
            "unknown category": lambda c: c["annotations"][1].update(category_id=78),
            "bad box": lambda c: c["annotations"][1].update(bbox=[1, 2, 3]),
            "no box": lambda c: c["annotations"][1].pop("bbox"),
            "same id": lambda c: c["annotations"][1].update(id=1),
            "same image id": lambda c: c["images"].append(c["images"][0]),
            "id is a list": lambda c: c["annotations"][1].update(id=[1]),
            "no area": lambda c: c["annotations"][1].update(bbox=[1, 2, 0, 3]),
            "box outside": lambda c: c["annotations"][1].update(bbox=[5, 2, 9, 3]),
            "crowds only": lambda c: c.update(annotations=c["annotations"][3:]),
            "other size": lambda c: c["images"][0].update(width=12),
            "no height": lambda c: c["images"][0].update(height=0),
            "bad outline": lambda c: c["annotations"][1].update(segmentation=[[1, 2, 3]]),
        }
        edit(source, changes[kind])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no folder", "no folder .*coco; fetch it with: .*prepare_data.py coco ROOT, or link a copy"),
        ("empty folder", "no .*instances_.*json; fetch it"),
        ("no image folder", "no folder .*train2017 for the images of instances_train2017.json"),
        ("cut json", "instances_train2017.json is truncated or not JSON"),
        ("a list", "has no list 'images'"),
        ("no images", "instances_train2017.json lists no images"),
        ("no image", "000000000001.jpg is missing but instances_train2017.json lists it"),
        ("cut image", "000000000001.jpg is truncated"),
        ("empty image", "000000000001.jpg is empty but instances_train2017.json lists it"),
        ("same image id", "record 1 of 'images' .* repeats the id 1"),
        ("id is a list", r"record 1 of 'annotations' .* has the id \[1\]; ids are numbers"),
        ("no area", r"has 1 zero-area boxes among 4, first \[1, 2, 0, 3\] of annotation 2"),
        ("box outside", r"has 1 boxes outside among 4, first \[5, 2, 9, 3\] of annotation 2 in an image of 10 x 10"),
        ("crowds only", "has 1 crowd-only images among 1, first image 1; remove or repair"),
        ("other size", r"000000000001.jpg is \(10, 10\) pixels, instances_train2017.json says \(12, 10\)"),
        ("no height", "image 1 in .*train2017.json needs a file_name, and height and width"),
        ("bad outline", "annotation 2 in .* has a segmentation that is neither"),
        ("unknown image", "annotation 2 in .*train2017.json belongs to image 77"),
        ("unknown category", "annotation 2 .* unknown category 78"),
        ("bad box", "annotation 2 .* not four numbers"),
        ("no box", "record 1 of 'annotations' .* has no bbox"),
        ("same id", "record 1 of 'annotations' .* repeats the id 1"),
    ],
)
def test_a_bad_coco_folder_is_refused_with_what_and_where(tmp_path, kind, message):
    root = write_coco(tmp_path / "coco")
    damage(root, kind)
    with pytest.raises(ValueError, match=message):
        coco.check(root)


def test_the_tool_says_what_is_wrong_in_one_line_and_writes_nothing(tmp_path, run_tool):
    root = write_coco(tmp_path / "coco")
    damage(root, "no area")
    done = run_tool("tools/prepare_data.py", "link-coco", root, tmp_path / "root" / "tiny_coco", check=2)
    assert done.stderr.startswith(f"error: {root}/annotations/instances_train2017.json has 1 zero-area boxes")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "root").exists()


def test_linking_checks_first_and_never_replaces_a_folder(tmp_path):
    root = write_coco(tmp_path / "coco")
    assert coco.link(root, tmp_path / "root" / "tiny_coco") == coco.check(tmp_path / "root" / "tiny_coco")
    coco.link(root, tmp_path / "root" / "tiny_coco")
    coco.link(root, tmp_path / "root" / "copy", copy=True)
    assert not (tmp_path / "root" / "copy").is_symlink()
    with pytest.raises(ValueError, match="copy exists; remove it"):
        coco.link(root, tmp_path / "root" / "copy")
    with pytest.raises(ValueError, match="no folder"):
        coco.link(tmp_path / "none", tmp_path / "root" / "other")
    assert not (tmp_path / "root" / "other").exists()


# --- COCO to VOC


def test_coco_becomes_voc_pixel_by_pixel(tmp_path):
    root, out = write_coco(tmp_path / "coco"), tmp_path / "voc"
    counts = voc.from_coco(root, out)
    assert counts["Segmentation/trainval"] == {"images": 2, "classes seen": 2}
    with Image.open(out / "SegmentationClass" / "000000000001.png") as image:
        assert image.mode == "P"
        labels = np.asarray(image)
    couch, dog, void = voc.CLASSES.index("sofa") + 1, voc.CLASSES.index("dog") + 1, voc.VOID
    instances = np.zeros((10, 10), dtype=int)
    expected = np.zeros((10, 10), dtype=int)
    instances[0:2, 8:10], expected[0:2, 8:10] = 1, void
    instances[1:9, 1:7], expected[1:9, 1:7] = 2, couch
    instances[3:6, 2:5], expected[3:6, 2:5] = 3, dog
    around = np.pad(instances, 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3)).reshape(10, 10, 9)
    expected[windows.min(axis=2) != windows.max(axis=2)] = void
    assert labels.tolist() == expected.tolist()
    assert labels[4, 3] == dog
    assert labels[7, 3] == couch
    assert labels[9, 9] == 0  # a zebra is background
    for kind in ("Main", "Segmentation"):
        lists = [
            (out / "ImageSets" / kind / f"{name}.txt").read_text().split() for name in ("train", "val", "trainval")
        ]
        assert lists == [["000000000001"], ["000000000002"], ["000000000001", "000000000002"]]
    assert sha256(out / "JPEGImages" / "000000000002.jpg") == sha256(root / "val2017" / "000000000002.jpg")


def test_a_class_in_several_images_of_a_list_is_seen_once(tmp_path):
    root = write_coco(tmp_path / "coco")
    edit(root / "annotations" / "instances_val2017.json", lambda c: c["categories"][2].update(name="cat"))
    counts = voc.from_coco(root, tmp_path / "voc")
    seen = [counts[f"Segmentation/{name}"]["classes seen"] for name in ("train", "val", "trainval")]
    assert seen == [2, 2, 3]  # a couch in both, a dog in one, a cat in the other


def test_boxes_count_from_one_and_leave_crowds_and_other_classes_out(tmp_path):
    voc.from_coco(write_coco(tmp_path / "coco"), tmp_path / "voc")
    text = (tmp_path / "voc" / "Annotations" / "000000000001.xml").read_text()
    assert text.count("<object>") == 2
    assert "zebra" not in text
    assert "person" not in text
    flat = "".join(text.split())
    assert "<name>sofa</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>" in flat
    assert "<xmin>2</xmin><ymin>2</ymin><xmax>7</xmax><ymax>9</ymax>" in flat


def test_converting_again_does_nothing_until_the_annotations_change(tmp_path):
    root, out = write_coco(tmp_path / "coco"), tmp_path / "voc"
    voc.from_coco(root, out)
    made = (out / "manifest.json").stat().st_mtime_ns
    voc.from_coco(root, out)
    assert (out / "manifest.json").stat().st_mtime_ns == made
    edit(root / "annotations" / "instances_val2017.json", lambda c: c.update(annotations=[]))
    assert voc.from_coco(root, out)["Segmentation/val"]["classes seen"] == 0


def test_a_set_without_vocs_classes_would_be_empty_and_is_refused(tmp_path):
    root = write_coco(tmp_path / "coco")
    for split in ("train", "val"):
        path = root / "annotations" / f"instances_{split}2017.json"
        edit(path, lambda c: [category.update(name=f"part {category['id']}") for category in c["categories"]])
    with pytest.raises(ValueError, match=r"train2017\.json has no object of VOC's classes \(it has part \d+, .*--data"):
        voc.from_coco(root, tmp_path / "voc")
    assert not (tmp_path / "voc").exists()


def test_all_voc_classes_have_a_coco_name():
    named = set(voc.RENAMED.values())
    assert named < set(voc.CLASSES)
    assert len(named) == 6


def test_a_missing_image_stops_the_conversion_and_leaves_nothing(tmp_path):
    root = write_coco(tmp_path / "coco")
    (root / "val2017" / "000000000002.jpg").unlink()
    with pytest.raises(ValueError, match=r"000000000002\.jpg is missing"):
        voc.from_coco(root, tmp_path / "voc")
    assert not (tmp_path / "voc").exists()
