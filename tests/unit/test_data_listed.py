"""Sets whose own files list their splits are laid out by these lists, whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from core.data.imagefolder import ImageFolder
from core.errors import InputError
from transfer import benchmarks
from transfer.datasets import listed

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
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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
def test_a_set_is_laid_out_by_its_own_lists_and_read_as_class_folders(download, name: str, tmp_path: Path) -> None:
    counts = listed.lay_out(name, download(name), tmp_path / "root")
    assert counts == {"train": {"images": 4, "classes": 2}, "val": {"images": 2, "classes": 2}}
    data = ImageFolder.Splits(root=tmp_path / "root" / name, test="val").read()
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 0, 1, 1], [0, 1])
    assert data.train.image(0).shape == (3, 8, 8)
    train = {path.resolve() for path in (tmp_path / "root" / name / "train").glob("*/*")}
    assert not train & {path.resolve() for path in (tmp_path / "root" / name / "val").glob("*/*")}


def test_a_list_that_leads_outside_or_names_a_missing_image_is_refused_and_leaves_nothing(download, tmp_path) -> None:
    source = download("pets")
    Image.new("RGB", (8, 8)).save(tmp_path / "secret_1.jpg")
    for line, told in (("../../../secret_1 1 1 1\n", "has no .*secret_1"), ("boxer_9 2 1 1\n", "has no boxer_9.jpg")):
        (source / "annotations" / "test.txt").write_text(line)
        with pytest.raises(InputError, match=told):
            listed.lay_out("pets", source, tmp_path / "root")
        assert not (tmp_path / "root" / "pets").exists()


def test_another_folder_and_another_number_of_images_are_refused(download, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not the unpacked download of dtd \(FileNotFoundError"):
        listed.lay_out("dtd", tmp_path, tmp_path / "root")
    source = download("food101")
    (source / "meta" / "test.txt").write_text("pie/3\n")
    with pytest.raises(InputError, match=r"val has 1 images of 1 classes, 2 of 2 are published"):
        listed.lay_out("food101", source, tmp_path / "root")


def test_each_set_has_a_probe() -> None:
    probes = {name: row for name, row in benchmarks.shipped().items() if name.removesuffix("_linear") in MADE}
    assert {row.sets for row in probes.values()} == {(name,) for name in MADE}
