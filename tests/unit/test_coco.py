"""The COCO layout, and COCO instances as a VOC set: exact pixels, counts, bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.files import sha256
from transfer.datasets import coco, voc


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
