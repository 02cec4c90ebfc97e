"""A user's own folder: what exporters write is read as it was meant, or refused with the file and the object."""

import contextlib
import copy
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transfer.frameworks.detectron2 import compat  # isort: skip # first: it prepares Detectron2's import

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from core.config import parse
from core.errors import InputError
from core.provenance import ROOT
from transfer import benchmarks
from transfer.datasets import own, voc
from transfer.frameworks import Departure
from transfer.frameworks.detectron2 import datasets, evaluators
from transfer.suite import items, trial
from transfer.suite.settings import Suite

WIDTH, HEIGHT = 40, 30
NAMES = ["bolt", "nut", "screw"]
Content = dict[str, Any]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "root"))
    return tmp_path / "root"


def photo(path: Path, seed: int, orientation: int = 1) -> None:
    """Write a JPEG of WIDTH x HEIGHT as stored, whose left half is dark and upper quarter bright."""
    values = np.random.default_rng(seed).integers(100, 140, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    values[:, : WIDTH // 2] //= 4
    values[: HEIGHT // 4] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[own.ORIENTATION] = orientation
    Image.fromarray(values).save(path, "JPEG", quality=95, exif=exif)


def coco(root: Path, change: Callable[[Content], Any] = lambda content: None, orientation: int = 1) -> Path:
    """Write a set in COCO's format: 4 images to train on and 2 to measure, two objects each, both files changed alike."""
    number = 0
    for split, count in (("train", 4), ("val", 2)):
        images, annotations = [], []
        for index in range(count):
            photo(root / split / f"{split}_{index}.jpg", index, orientation)
            images.append({"id": index + 1, "file_name": f"{split}_{index}.jpg", "width": WIDTH, "height": HEIGHT})
            for x in (3, 20):
                number += 1
                box = [x, 5 + index, 10, 12]
                corners = [x, 5 + index, x + 10, 5 + index, x + 10, 17 + index, x, 17 + index]
                annotations.append({
                    "id": number, "image_id": index + 1, "category_id": 1 + number % 3, "bbox": box, "area": 120,
                    "iscrowd": 0, "segmentation": [corners],
                })  # fmt: skip
        categories = [{"id": n, "name": name, "supercategory": "part"} for n, name in enumerate(NAMES, start=1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        change(content)
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def read(found: own.Own, split: str) -> Content:
    content: Content = json.loads((Path(found.folder) / "annotations" / f"instances_{split}.json").read_text())
    return content


def facts(found: own.Own) -> list[Content]:
    """Return what a set says, without its own name."""
    return [{key: value for key, value in read(found, split).items() if key != "info"} for split in ("train", "val")]


def each(key: str, change: Callable[[Content], Any]) -> Callable[[Content], None]:
    def apply(content: Content) -> None:
        for record in content[key]:
            change(record)

    return apply


def uuids(content: Content) -> None:
    for number, record in enumerate(content["annotations"]):
        record["id"] = f"{number:08d}-0000"


def string_images(content: Content) -> None:
    for image in content["images"]:
        image["id"] = f"img {image['id']}"
    for annotation in content["annotations"]:
        annotation["image_id"] = f"img {annotation['image_id']}"


def text_on_one_side(content: Content) -> None:
    each("categories", lambda c: c.update(id=str(c["id"])))(content)
    each("annotations", lambda a: a.update(image_id=float(a["image_id"])))(content)


def huge(content: Content) -> None:
    each("images", lambda i: i.update(id=i["id"] + 2**60))(content)
    each("annotations", lambda a: a.update(id=a["id"] + 2**60, image_id=a["image_id"] + 2**60))(content)


def parent_category(content: Content) -> None:
    content["categories"].insert(0, {"id": 0, "name": "part", "supercategory": "none"})


SAME = {
    "zero annotation ids": each("annotations", lambda a: a.update(id=0)), "uuids": uuids,
    "string image ids": string_images, "ids that are text on one side": text_on_one_side, "huge ids": huge,
    "no area": each("annotations", lambda a: a.pop("area")),
    "NaN area": each("annotations", lambda a: a.update(area=float("nan"))),
    "zero area": each("annotations", lambda a: a.update(area=0)),
    "area as a share": each("annotations", lambda a: a.update(area=0.1)),
    "no sizes": each("images", lambda i: [i.pop("width"), i.pop("height")]),
    "a flat polygon": each("annotations", lambda a: a.update(segmentation=a["segmentation"][0])),
    "no boxes": each("annotations", lambda a: a.pop("bbox")), "Roboflow's parent category": parent_category,
    "an image listed twice": lambda content: content["images"].append(content["images"][0]),
    "nothing": lambda content: None,
}  # fmt: skip


@pytest.mark.parametrize("kind", SAME)
def test_what_is_only_written_otherwise_gives_the_very_same_set(tmp_path, kind):
    expected = own.prepare(coco(tmp_path / "ok"), "boxes", outlines=True)
    found = own.prepare(coco(tmp_path / "other", SAME[kind]), "boxes", outlines=True)
    assert found.classes == expected.classes == tuple(NAMES)
    assert facts(found) == facts(expected)


def runs(counts: Callable[[Any], Any], **more: Any) -> Callable[[Content], None]:
    def change(annotation: Content) -> None:
        x, y, w, h = annotation["bbox"]
        grid = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        grid[y : y + h, x : x + w] = 1
        annotation.update(segmentation={"size": [HEIGHT, WIDTH], "counts": counts(grid)}, **more)

    return each("annotations", change)


def listed(grid: np.ndarray) -> list[int]:
    flat = np.concatenate([[0], grid.ravel(order="F"), [1 - grid[-1, -1]]])
    ends = np.flatnonzero(np.diff(flat.astype(int)) != 0)
    return np.diff(np.concatenate([[0], ends])).tolist()


def packed(grid: np.ndarray) -> str:
    return rle.encode(grid)["counts"].decode()


@pytest.mark.parametrize(
    ("counts", "more"), [(listed, {}), (packed, {}), (packed, {"iscrowd": 1})], ids=["listed", "packed", "all crowds"]
)
def test_run_lengths_are_the_masks_that_they_say(tmp_path, counts, more):
    found = own.prepare(coco(tmp_path / "x", runs(counts, **more)), "boxes", outlines=True)
    assert found.runs
    polygons = read(own.prepare(coco(tmp_path / "ok"), "boxes"), "train")["annotations"]
    for annotation, other in zip(read(found, "train")["annotations"], polygons, strict=True):
        mask = rle.decode(annotation.pop("segmentation"))
        assert np.array_equal(mask, rle.decode(rle.merge(rle.frPyObjects(other.pop("segmentation"), HEIGHT, WIDTH))))
        assert annotation == other


def first(**values: Any) -> Callable[[Content], None]:
    return lambda content: content["annotations"][0].update(values)


BAD = {
    "a box without width": (first(bbox=[1, 2, 0, 3]), r"annotation \d+ in .*\.json has the box \[1, 2, 0, 3\]"),
    "a negative box": (first(bbox=[9, 2, -5, 3]), r"has the box \[9, 2, -5, 3\], whose width or height"),
    "a NaN box": (first(bbox=[9, float("nan"), 5, 3]), "not four numbers"),
    "a box outside": (first(bbox=[90, 2, 5, 3]), "lies outside its image of 40 x 30"),
    "an unknown category": (first(category_id=9), "has the unknown category 9"),
    "an unknown image": (first(image_id="no"), "belongs to image no, which is not listed"),
    "short runs": (first(segmentation={"size": [HEIGHT, WIDTH], "counts": [5, 5]}), "run lengths of 10 pixels"),
    "turned runs": (first(segmentation={"size": [WIDTH, HEIGHT], "counts": [1200]}), r"size \[40, 30\], its image"),
    "damaged runs": (
        first(segmentation={"size": [HEIGHT, WIDTH], "counts": "\u00fe~~"}),
        "run lengths that are damaged",
    ),
    "an outline in shares": (
        first(segmentation=[[0.1, 0.1, 0.5, 0.1, 0.5, 0.4]]),
        "has an outline in shares of the image",
    ),
    "an outline elsewhere": (
        first(segmentation=[[31, 1, 39, 1, 39, 5]]),
        r"an outline from \(31, 1\) to \(39, 5\), outside its box \[3, 5, 10, 12\]",
    ),
    "two corners": (first(segmentation=[[1, 2, 3, 4]]), "neither polygons of three corners"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_object_is_refused_by_its_id_or_left_out_if_asked(tmp_path, kind):
    change, message = BAD[kind]
    folder = coco(tmp_path / "x", change)
    with pytest.raises(InputError, match=rf"{message}.*; repair it, or leave it out with --skip-bad") as caught:
        own.prepare(folder, "boxes")
    assert str(caught.value).count("\n") == 0
    found = own.prepare(folder, "boxes", skip_bad=True)
    assert len(read(found, "train")["annotations"]) == 7
    assert [note.startswith("2 left out as bad") for note in found.notes] == [True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            each("annotations", lambda a: a.update(bbox=[v / 40 for v in a["bbox"]])),
            "its boxes are shares of the image",
        ),
        (
            each("annotations", lambda a: a["bbox"].__setitem__(slice(2, 4), [a["bbox"][0] + 10, a["bbox"][1] + 12])),
            r"its boxes are two corners \(x, y, x, y\)",
        ),
        (lambda c: c["categories"][1].update(name="bolt"), "the categories 1 and 2 are both called 'bolt'"),
        (lambda c: c["images"][1].update(id=1), "the image id 1 is both train_0.jpg and train_1.jpg"),
        (lambda c: c.update(annotations=[]), "has no object to train on"),
        (lambda c: c.pop("images"), "has no list 'images'"),
    ],
)
def test_a_set_that_cannot_be_meant_is_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        own.prepare(coco(tmp_path / "x", change), "boxes")


NAMED = {
    "a path of another machine": lambda i: i.update(file_name=f"/home/me/{i['file_name']}"),
    "Label Studio's local files": lambda i: i.update(file_name=f"/data/local-files/?d={i['file_name']}"),
    "a URL": lambda i: i.update(file_name=f"http://labels:8080/{i['file_name'].replace('_', '%5F')}"),
    "other capitals": lambda i: i.update(file_name=i["file_name"].upper()),
}


@pytest.mark.parametrize("kind", NAMED)
def test_images_are_found_by_the_names_that_exporters_give_them(tmp_path, kind):
    found = own.prepare(coco(tmp_path / "x", each("images", NAMED[kind])), "boxes")
    assert facts(found) == facts(own.prepare(coco(tmp_path / "ok"), "boxes"))
    assert found.notes == ()


def test_a_name_that_two_images_have_is_the_one_of_its_split_or_refused(tmp_path):
    folder = coco(tmp_path / "x", each("images", lambda i: i.update(file_name=f"gone/{i['id']}.jpg")))
    for split, other in (("train", "train_2017"), ("val", "val_2017")):
        (folder / split).rename(folder / other)
        for path in (folder / other).iterdir():
            path.rename(folder / other / f"{int(path.stem.split('_')[1]) + 1}.jpg")
    found = own.prepare(folder, "boxes")
    assert (Path(found.folder) / "val" / "000005.jpg").resolve() == folder / "val_2017" / "1.jpg"
    (folder / "val_2017").rename(folder / "holdout")
    (folder / "train_2017").rename(folder / "rest")
    with pytest.raises(
        InputError, match=r"the image gone/1\.jpg may be .*holdout/1\.jpg or .*rest/1\.jpg; write the folder"
    ):
        own.prepare(folder, "boxes")


def test_images_that_are_trained_on_and_measured_on_are_counted(tmp_path):
    folder = coco(tmp_path / "x")
    shutil.copy(folder / "annotations" / "instances_train.json", folder / "annotations" / "instances_val.json")
    assert own.prepare(folder, "boxes").notes[0].startswith("4 images are in 'train' and in 'val', first ")
    folder = voc_set(tmp_path / "y")
    shutil.copy(folder / "ImageSets" / "Main" / "train.txt", folder / "ImageSets" / "Main" / "val.txt")
    assert "4 images are in 'train' and in 'val', first img 0: " in own.prepare(folder, "boxes").notes[0]


def test_a_split_of_bad_images_alone_is_refused_with_the_first_of_them(tmp_path):
    folder = coco(tmp_path / "x", each("images", lambda i: i.update(width=HEIGHT, height=WIDTH)))
    with pytest.raises(
        InputError, match=r"no image in .* is left; all 4 are left out as bad, first image 1 \(.*train_0"
    ):
        own.prepare(folder, "boxes", skip_bad=True)


def test_objects_without_outlines_are_boxes_and_masks_ask_for_the_first_of_them(tmp_path):
    for number, outline in enumerate(([], None, [[]])):
        folder = coco(tmp_path / str(number), each("annotations", lambda a, o=outline: a.update(segmentation=o)))
        found = own.prepare(folder, "boxes", skip_bad=True)
        if outline != [[]]:
            assert not found.outlines
            with pytest.raises(
                InputError, match=r"no outlines for masks \(12 objects .* first annotation 1 in .*train"
            ):
                own.prepare(folder, "boxes", outlines=True)


def test_crowds_and_ignored_objects_are_not_trained_on(tmp_path):
    found = own.prepare(coco(tmp_path / "x", first(ignore=1)), "boxes")
    assert [a["iscrowd"] for a in read(found, "train")["annotations"]] == [1, *[0] * 7]
    assert "2 objects marked 'ignore' are crowds" in found.notes[0]


def test_an_empty_validation_set_is_said(tmp_path):
    folder = coco(tmp_path / "x")
    path = folder / "annotations" / "instances_val.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))
    assert own.prepare(folder, "boxes").notes == ("'val' has no object to find: AP has no value",)


# --- ways up and bit depth


def dark_half_is_left(path: Path) -> bool:
    """Tell whether an image is upright as photo wrote it, however it is to be turned."""
    with Image.open(path) as image:
        assert image.getexif().get(own.ORIENTATION, 1) == 1
        values = np.asarray(image.convert("L")).astype(int)
    return (
        values.shape == (HEIGHT, WIDTH)
        and values[10:, :15].mean() + 40 < values[10:, 25:].mean()
        and values[:5].mean() > 220
    )


@pytest.mark.parametrize("orientation", [6, 8, 5])
def test_annotations_of_images_as_stored_get_the_images_as_stored(tmp_path, orientation):
    found = own.prepare(coco(tmp_path / "x", orientation=orientation), "boxes")
    assert dark_half_is_left(Path(found.folder) / "train" / "000001.jpg")
    assert "6 images with an EXIF orientation are read as stored" in found.notes[0]


def test_annotations_of_images_as_displayed_get_them_turned(tmp_path):
    swap = each("images", lambda i: i.update(width=HEIGHT, height=WIDTH))
    small = each("annotations", lambda a: a.update(bbox=[2, 2, 9, 9], segmentation=[[2, 2, 11, 2, 11, 11]]))
    found = own.prepare(coco(tmp_path / "x", lambda c: (swap(c), small(c)), orientation=6), "boxes")
    with Image.open(Path(found.folder) / "train" / "000001.jpg") as image:
        assert image.size == (HEIGHT, WIDTH)
        values = np.asarray(image.convert("L"))
    assert values[:, -5:].mean() > 220  # a turn to the right puts the bright top there
    assert "are read as displayed" in found.notes[0]


@pytest.mark.parametrize("orientation", [3, 2, 4])
def test_half_turns_are_refused_unless_quarter_turns_tell(tmp_path, orientation):
    folder = coco(tmp_path / "x", orientation=orientation)
    with pytest.raises(
        InputError, match=rf"train_0\.jpg is to be turned .*orientation {orientation}\), and nothing tells"
    ):
        own.prepare(folder, "boxes")
    photo(folder / "train" / "train_3.jpg", 3, orientation=6)
    found = own.prepare(folder, "boxes")
    assert dark_half_is_left(Path(found.folder) / "train" / "000001.jpg")


def test_a_wrong_size_and_a_truncated_image_are_named_with_their_file(tmp_path):
    folder = coco(tmp_path / "x", lambda c: c["images"][0].update(width=HEIGHT, height=WIDTH))
    with pytest.raises(InputError, match=r"image 1 \(.*train_0\.jpg\) is \(40, 30\) pixels, .* says \(30, 40\)"):
        own.prepare(folder, "boxes")
    assert own.prepare(folder, "boxes", skip_bad=True).counts["train"]["images"] == 3
    folder = coco(tmp_path / "y")
    whole = (folder / "train" / "train_1.jpg").read_bytes()
    (folder / "train" / "train_1.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        InputError, match=r"train_1\.jpg cannot be decoded \(.*[Tt]runcated.*\); copy it again, or leave it out"
    ):
        own.prepare(folder, "boxes")
    assert own.prepare(folder, "boxes", skip_bad=True).counts["train"] == {"images": 3, "objects": 6, "classes": 3}


def test_gray_images_of_16_bits_are_written_in_8(tmp_path):
    folder = coco(tmp_path / "x")
    (folder / "train" / "train_0.jpg").unlink()
    Image.fromarray(np.full((HEIGHT, WIDTH), 32896, np.uint16)).save(folder / "train" / "train_0.png")
    path = folder / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace("train_0.jpg", "train_0.png"))
    with Image.open(Path(own.prepare(folder, "boxes").folder) / "train" / "000001.jpg") as image:
        assert np.unique(np.asarray(image)).tolist() == [128]


# --- what the trainers see


def cocoeval(truth: Content, found: list[Content], kind: str) -> float:
    """Return AP in percent by pycocotools alone."""
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = copy.deepcopy(truth)
        api.createIndex()
        scored = COCOeval(api, api.loadRes(copy.deepcopy(found)), kind)
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return float(100 * scored.stats[0])


def detections(truth: Content) -> list[Content]:
    """Return what a detector could find: every box, moved by a pixel or two, some with the wrong class."""
    made = []
    for number, one in enumerate(truth["annotations"]):
        x, y, w, h = one["bbox"]
        category = 1 + (one["category_id"] - 1 + (number % 4 == 3)) % 3
        box = [x + number % 3, y, w, h]
        made.append({"image_id": one["image_id"], "category_id": category, "bbox": box, "score": 1 / (2 + number)})
    return made


@pytest.mark.parametrize("kind", ["uuids", "string image ids", "NaN area", "huge ids"])
def test_ap_is_that_of_the_sound_set_by_pycocotools_on_the_users_own_file(tmp_path, kind):
    sound = json.loads((coco(tmp_path / "ok") / "annotations" / "instances_train.json").read_text())
    expected = cocoeval(sound, detections(sound), "bbox")
    assert 20 < expected < 90
    found = own.prepare(coco(tmp_path / "x", SAME[kind]), "boxes")
    name = f"coco:{found.folder}:train"
    with compat.quiet():
        datasets.check([name])
        cfg = SimpleNamespace(MODEL=SimpleNamespace(MASK_ON=False), OUTPUT_DIR=str(tmp_path / "run"))
        evaluator = evaluators.build(cfg, name)
        evaluator.reset()
        for record in DatasetCatalog.get(name):
            boxes = [one for one in detections(read(found, "train")) if one["image_id"] == record["image_id"]]
            instances = Instances((HEIGHT, WIDTH))
            corners = torch.tensor([[float(value) for value in one["bbox"]] for one in boxes])
            instances.pred_boxes = Boxes(BoxMode.convert(corners, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))
            instances.scores = torch.tensor([one["score"] for one in boxes])
            instances.pred_classes = torch.tensor([one["category_id"] - 1 for one in boxes])
            evaluator.process([{"image_id": record["image_id"]}], [{"instances": instances}])
        assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(expected, abs=1e-4)


# --- exporters' layouts


def roboflow(folder: Path, out: Path) -> None:
    for split, name in (("train", "train"), ("val", "valid")):
        shutil.copytree(folder / split, out / name)
        shutil.copy(folder / "annotations" / f"instances_{split}.json", out / name / "_annotations.coco.json")


def one_file(place: str, images: str) -> Callable[[Path, Path], None]:
    def write(folder: Path, out: Path) -> None:
        (out / images).mkdir(parents=True)
        content = json.loads((folder / "annotations" / "instances_train.json").read_text())
        for image in content["images"]:
            shutil.copy(folder / "train" / image["file_name"], out / images)
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        (out / place).write_text("\ufeff" + json.dumps(content), encoding="utf-8")

    return write


LAYOUTS = {
    "roboflow": (roboflow, 4, 2),
    "cvat": (one_file("annotations/instances_default.json", "images/default"), 3, 1),
    "label studio": (one_file("result.json", "images"), 3, 1),
    "fiftyone": (one_file("labels.json", "data"), 3, 1),
    "train.json": (one_file("annotations/train.json", "train"), 3, 1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layouts_of_exporters_are_recognised_and_split_where_they_have_no_validation_split(tmp_path, layout):
    write, train, val = LAYOUTS[layout]
    write(coco(tmp_path / "source"), tmp_path / "set")
    found = own.prepare(tmp_path / "set", "boxes", outlines=True)
    assert (found.counts["train"]["images"], found.counts["val"]["images"]) == (train, val)
    assert found.classes == tuple(NAMES)
    assert ("no validation split: 1 of 4 images" in " ".join(found.notes)) is (layout != "roboflow")


def test_a_set_is_made_once_and_again_when_a_file_changes(tmp_path, root):
    folder = coco(tmp_path / "x")
    found = own.prepare(folder, "boxes")
    assert own.prepare(folder, "boxes").folder == found.folder
    shutil.copytree(folder, tmp_path / "elsewhere" / "x")
    moved = Departure(data=str(tmp_path / "elsewhere" / "x")).said()
    assert Departure(data=str(folder)).said() == moved  # where it lies changes no number
    photo(folder / "train" / "train_0.jpg", 99)
    (folder / "train" / "train_0.jpg").write_bytes((folder / "train" / "train_0.jpg").read_bytes() + b"\0")
    assert Departure(data=str(folder)).said() != moved
    assert own.prepare(folder, "boxes").folder != found.folder


# --- VOC's XML


def xml(
    name: str = "nut", box: str = "<xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>25</ymax>", more: str = ""
) -> str:
    return f"<annotation><object><name>{name}</name>{more}<bndbox>{box}</bndbox></object></annotation>"


def voc_set(
    root: Path, text: str = "", suffix: str = ".jpg", lists: str | None = "{}\n", names: str = "img {}"
) -> Path:
    for number in range(6):
        name = names.format(number)
        photo(root / "JPEGImages" / f"{name}{suffix}", number)
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{name}.xml").write_text(text or xml())
    if lists is not None:
        (root / "ImageSets" / "Main").mkdir(parents=True)
        for split, numbers in (("train", range(4)), ("val", range(4, 6))):
            lines = "\ufeff" * ("\r" in lists) + "".join(lists.format(names.format(number)) for number in numbers)
            (root / "ImageSets" / "Main" / f"{split}.txt").write_bytes(lines.encode())
    return root


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"suffix": ".JPG"}, {"suffix": ".png"}, {"names": "img_{}"}, {"lists": "{} -1\r\n"}, {"lists": "{}  1\n\n"},
        {"lists": "{}\r\n"}, {"lists": "{}.jpg\n"}, {"text": xml(more="<difficult>false</difficult>")},
        {"text": xml(more="<difficult>0</difficult><pose/><truncated>Unspecified</truncated>")},
        {"text": xml(box="<xmin>3.2</xmin><ymin>3.9</ymin><xmax>20.4</xmax><ymax>25.1</ymax>")},
    ],
)  # fmt: skip
def test_voc_as_tools_write_it_is_read_as_it_was_meant(tmp_path, changes):
    found = own.prepare(voc_set(tmp_path / "x", **changes), "boxes")
    assert (found.layout, found.classes) == ("voc", ("nut",))
    assert found.counts == {"train": {"images": 4, "objects": 4}, "val": {"images": 2, "objects": 2}}
    text = (Path(found.folder) / "Annotations" / "000001.xml").read_text()
    assert "<width>40</width>" in text
    assert "<difficult>0</difficult>" in text
    assert "".join(text.split()).count("<xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>25</ymax>") == 1


def test_voc_without_lists_is_split_and_difficult_objects_stay_difficult(tmp_path):
    found = own.prepare(voc_set(tmp_path / "x", xml(more="<difficult>1</difficult>"), lists=None), "boxes")
    assert (found.counts["train"]["images"], found.counts["val"]["images"]) == (5, 1)
    assert "<difficult>1</difficult>" in (Path(found.folder) / "Annotations" / "000001.xml").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>\n<folder>A & B</folder></annotation>", r"img 0\.xml, line 2, is not XML .*&amp;"),
        (xml(box="<xmin>3</xmin>"), r"object 1 of .*img 0\.xml needs a name and a bndbox of four numbers"),
        (xml(box="<xmin>9</xmin><ymin>4</ymin><xmax>2</xmax><ymax>25</ymax>"), "is empty or outside 40 x 30"),
        (xml(more="<difficult>2</difficult>"), "has difficult = '2', neither 0 nor 1"),
        (
            xml().replace("<object>", "<size><width>30</width><height>40</height></size><object>"),
            r"says \(30, 40\) pixels",
        ),
        ("<annotation/>", "has no object in its XML files"),
    ],
)
def test_bad_xml_is_refused_with_its_file(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        own.prepare(voc_set(tmp_path / "x", text), "boxes")


# --- label maps


def maps(
    root: Path,
    values: np.ndarray,
    mode: str = "L",
    palette: list[int] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> Path:
    for number in range(6):
        photo(root / "images" / f"{number}.jpg", number)
        image = Image.fromarray(np.resize(values, (size[1], size[0])).astype(np.uint8))
        if palette:
            image.putpalette(palette)
        (root / "masks").mkdir(exist_ok=True)
        (image if palette else image.convert(mode)).save(root / "masks" / f"{number}.png")
    return root


def test_gray_and_palette_label_maps_are_the_same_indices(tmp_path):
    values = np.array([0, 1, 2, 255])
    gray = own.prepare(maps(tmp_path / "gray", values), "masks")
    coloured = own.prepare(
        maps(tmp_path / "palette", values, palette=[9, 9, 9, 50, 60, 70, 1, 2, 3, *[0] * 759]), "masks"
    )
    assert gray.classes == ("background", "class 1", "class 2")
    for found in (gray, coloured):
        with Image.open(Path(found.folder) / "SegmentationClass" / "000001.png") as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), np.resize(values, (HEIGHT, WIDTH)))
    (tmp_path / "gray" / "classes.txt").write_text("road\ncar\n\ntree\n")
    assert own.prepare(tmp_path / "gray", "masks").classes == ("road", "car", "tree")


CVAT = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:250,50,83::\nvoid:1,1,1::\ncar:9,8,7::\n"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_that_a_list_of_classes_names_are_its_classes(tmp_path, mode):
    folder, colours = maps(tmp_path / "x", np.array([0])), [(9, 8, 7), (0, 0, 0), (250, 50, 83), (1, 1, 1)]
    (folder / "labelmap.txt").write_text(CVAT)
    indices = np.resize(np.arange(4, dtype=np.uint8), (HEIGHT, WIDTH))
    image = Image.fromarray(indices)
    image.putpalette([value for colour in colours for value in colour])
    for number in range(6):
        (image if mode == "P" else image.convert(mode)).save(folder / "masks" / f"{number}.png")
    found = own.prepare(folder, "masks")
    assert found.classes == ("background", "road", "car")
    with Image.open(Path(found.folder) / "SegmentationClass" / "000001.png") as written:
        assert np.array_equal(np.asarray(written), np.array([2, 0, 1, 255])[indices])
    (folder / "labelmap.txt").write_text(CVAT.replace("road:250,50,83", "road:250,50,84"))
    with pytest.raises(
        InputError, match=r"0\.png has the colour \(250, 50, 83\), which the list of classes does not name"
    ):
        own.prepare(folder, "masks")


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([0, 255], {}, r"masks/0\.png and all other label maps hold 0 and 255 only, and 255 is ignored"),
        ([0, 255], {"palette": voc.palette()}, "hold 0 and 255 only"),
        ([0, 38, 75, 113], {}, r"0\.png holds the value 113, but there are 4 values in all: colours turned into gray"),
        ([0, 1], {"mode": "RGB"}, r"0\.png is a PNG of mode RGB, not of class indices"),
        ([0, 1], {"size": (20, 15)}, r"0\.png is \(20, 15\) pixels, its image 0\.jpg is \(40, 30\)"),
        ([0], {}, "one class only"),
    ],
)
def test_label_maps_that_would_give_wrong_numbers_are_refused(tmp_path, values, options, message):
    with pytest.raises(InputError, match=message):
        own.prepare(maps(tmp_path / "x", np.array(values), **options), "masks")


def test_an_index_beyond_the_class_list_is_refused_also_in_the_validation_set_only(tmp_path):
    folder = maps(tmp_path / "x", np.array([0, 1]))
    (folder / "classes.txt").write_text("road\ncar\n")
    for split, numbers in (("train", "0123"), ("val", "45")):
        (folder / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(numbers))
    assert own.prepare(folder, "masks").classes == ("road", "car")
    Image.fromarray(np.full((HEIGHT, WIDTH), 2, np.uint8)).save(folder / "masks" / "5.png")
    with pytest.raises(InputError, match=r"5\.png holds the value 2; the classes are 0 to 1 \(road, car"):
        own.prepare(folder, "masks")


def test_palettes_in_another_order_are_refused(tmp_path):
    folder = maps(tmp_path / "x", np.array([0, 1]), palette=[0, 0, 0, 128, 0, 0])
    image = Image.fromarray(np.resize(np.array([0, 1], np.uint8), (HEIGHT, WIDTH)))
    image.putpalette([128, 0, 0, 0, 0, 0])
    image.save(folder / "masks" / "3.png")
    with pytest.raises(
        InputError, match=r"3\.png shows index 0 as \(128, 0, 0\), .* their palettes are in another order"
    ):
        own.prepare(folder, "masks")


# --- class folders


@pytest.mark.parametrize(("parts", "train"), [(("train", "valid"), 4), (("",), 3)])
def test_class_folders_are_taken_with_their_splits_or_split(tmp_path, parts, train):
    for split in parts:
        for name in ("ant", "bee"):
            for number in range(4):
                photo(tmp_path / "x" / split / name / f"{number}.JPG", number)
    found = own.prepare(tmp_path / "x", "classes")
    assert found.classes == ("ant", "bee")
    assert found.counts["train"] == {"images": 2 * train, "classes": 2}
    assert found.counts["val"] == {"images": 8 if len(parts) > 1 else 2, "classes": 2}


def test_folders_of_splits_are_no_classes(tmp_path):
    for split in ("train", "valid"):
        photo(tmp_path / "x" / split / "1.jpg", 1)
    with pytest.raises(InputError, match="holds no class folders"):
        own.prepare(tmp_path / "x", "classes")


def test_a_folder_that_holds_something_else_is_told_what_it_has(tmp_path):
    with pytest.raises(InputError, match=r"holds no label maps .*; it has coco; docs/your-data\.md"):
        own.prepare(coco(tmp_path / "x"), "masks")
    with pytest.raises(InputError, match=r"no folder .*nowhere; give the folder that holds your images"):
        own.prepare(tmp_path / "nowhere", "boxes")


def test_a_suites_benchmark_and_a_row_of_ones_own_take_a_folder_and_their_trials_are_named_by_it(tmp_path):
    folder = coco(tmp_path / "parts")
    (tmp_path / "mine.yaml").write_text(
        "parts_fpn:\n  title: Parts\n  framework: detectron2\n  data: parts\n  metrics: [bbox/AP]\n  headline: bbox/AP\n"
        f"  config: {ROOT}/configs/transfer/detection/mask-rcnn_r50-fpn_8xb2-90k_coco.yaml\n  train: a\n  test: b\n"
    )
    random = {"random": {"backbone": {"name": "resnet", "depth": 18}, "seed": 0}}
    rows = {
        "shipped": {"name": "coco_fpn"},
        "mine": {"name": "coco_fpn", "data": str(folder)},
        "row": {"name": "parts_fpn", "file": str(tmp_path / "mine.yaml")},
    }
    suite = parse(Suite, {"name": "x", "trials": 1, "checkpoints": {"r": random}, "benchmarks": rows})
    found = {item.benchmark: item.job for item in items.plan(suite, tmp_path / "out") if item.job}
    assert [found[label].data for label in rows] == [None, folder, None]
    assert found["mine"].said == Departure(data=str(folder)).said() == [f"--data=parts@{found['mine'].said[0][-12:]}"]
    benchmark = benchmarks.find(f"{tmp_path / 'mine.yaml'}:parts_fpn")
    assert benchmark.data == folder
    measured = trial._measured(found["mine"], benchmark, "hash")
    assert (measured.title, measured.train, measured.test) == ("Parts on parts", "parts/train", "parts/val")
