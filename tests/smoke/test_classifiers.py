"""The classification benchmarks through the real tools, on a folder of generated images."""

import json

import numpy as np
import pytest
from PIL import Image

from core.errors import InputError
from core.provenance import ROOT
from transfer.convert import random_init
from transfer.convert.convert import convert
from transfer.datasets import voc
from transfer.frameworks.classification.run import run

CONFIGS = "configs/transfer/classification"
KINDS = {
    "knn": (
        "knn_cifar10.yaml",
        ["task.neighbours=[1,5]"],
        {"knn1/top1", "knn5/top1", "knn1-0.1/top1", "knn5-0.1/top1"},
    ),
    "cached": ("linear-cached-100ep_cifar10.yaml", [], {"linear/top1", "linear/best_top1"}),
    "fresh": (
        "linear-sgd-100ep_imagenet.yaml",
        ["task.epochs=2", "task.milestones=[1]", "views.size=16", "views.resize=20", "task.lr=1"],
        {"linear/top1", "linear/best_top1"},
    ),
    "lars": (
        "linear-lars-90ep_imagenet.yaml",
        ["task.epochs=2", "views.size=16", "views.resize=20"],
        {"linear/top1", "linear/best_top1"},
    ),
    "semi": (
        "semi10-small_cifar10.yaml",
        ["subset.share=0.5", "task.epochs=2"],
        {"finetune/top1", "finetune/best_top1"},
    ),
    "finetune": (
        "finetune-20ep_imagenet.yaml",
        ["task.epochs=2", "task.milestones=[1]", "views.size=16", "views.resize=20", "amp=bfloat16"],
        {"finetune/top1", "finetune/best_top1"},
    ),
}


@pytest.fixture
def folder(tmp_path):
    """Make 40 training images, dim and bright noise, the first 20 of them for testing too, in the layouts of both data sets."""
    for label, name in enumerate(("bright", "dim")):
        rng = np.random.default_rng(label)
        for number in range(20):
            image = Image.fromarray(rng.integers(0, 90, (32, 32, 3), dtype=np.uint8) + (1 - label) * 120)
            for split in ("train", "test") if number < 10 else ("train",):
                path = tmp_path / "cifar10" / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "train").symlink_to(tmp_path / "cifar10" / "train")
    (tmp_path / "imagenet" / "val").symlink_to(tmp_path / "cifar10" / "test")
    random_init.make(tmp_path / "random.pth", {"depth": 18, "width": 4, "stem": "cifar"}, seed=0)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_benchmark_runs_and_learns_to_tell_dim_from_bright(folder, monkeypatch, kind):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(folder))
    convert(folder / "random.pth", folder / "w.pth", target="classification")
    config, options, names = KINDS[kind]
    found = run(ROOT / CONFIGS / config, folder / "w.pth", folder / "run", 1000, options=["workers=0", *options])
    assert set(found["metrics"]) == names
    assert found["tensors_checked"] == 100
    assert json.loads((folder / "run" / "evaluation.json").read_text())["metrics"] == found["metrics"]
    effective, published = found["recipe"]["effective"], found["recipe"]["published"]
    assert (effective == published) == (kind == "cached")
    (folder / "run" / "last_checkpoint").touch()
    for message in ("different: --seed", "different: no settings.json tells them"):
        with pytest.raises(InputError, match=rf"run holds a run of other settings \({message}\); choose another"):
            run(ROOT / CONFIGS / config, folder / "w.pth", folder / "run", 1001, options=["workers=0", *options])
        (folder / "run" / "settings.json").unlink(missing_ok=True)
    if kind in ("knn", "cached"):  # the nearest image is the image itself
        assert found["metrics"]["knn1/top1" if kind == "knn" else "linear/top1"] == 100.0


@pytest.mark.parametrize(("kind", "name"), [("svm", "svm/mAP"), ("svm-lowshot", "lowshot16/mAP")])
def test_svms_tell_dim_from_bright_on_a_tiny_folder_in_vocs_layout(folder, kind, name):
    root = folder / "tiny"
    for split, number in (("train", 20), ("val", 10)):
        images = [(label, n) for label in ("bright", "dim") for n in range(number)]
        for label, n in images:
            (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
            with Image.open(folder / "cifar10" / "train" / label / f"{n}.png") as image:
                image.save(root / "JPEGImages" / f"{split}{label}{n}.jpg")
            voc.make_folders(root)
            box = voc.Box(label, 0, 0, 9, 9)
            voc.write_boxes(root / "Annotations" / f"{split}{label}{n}.xml", "", 32, 32, [box])
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        listed = "".join(f"{split}{label}{n}\n" for label, n in images)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(listed)
    convert(folder / "random.pth", folder / "w.pth", target="classification")
    config = ROOT / CONFIGS / f"{kind}_voc07.yaml"
    found = run(config, folder / "w.pth", folder / "run", 1000, tiny=str(root))
    assert found["metrics"][name] == pytest.approx(100)
    assert found["recipe"]["effective"]["costs"] == [1.0, 10.0]
    assert found["recipe"]["published"]["views"] == "224 px, stretched"


def test_the_tool_measures_a_checkpoint_with_the_cifar_stem(folder, run_tool):
    arguments = ["random.pth", "--benchmark", "cifar10_knn", "--out", "out", "--options", "task.neighbours=[1]"]
    done = run_tool("tools/run_benchmark.py", *arguments, DETECTRON2_DATASETS=str(folder))
    result = json.loads((folder / "out" / "result.json").read_text())
    assert result["metrics"] == {"knn1/top1": 100.0, "knn1-0.1/top1": 100.0}
    assert (result["framework"], result["tensors_checked"]) == ("classification", 100)
    assert "knn1/top1   100.00" in done.stdout


def test_missing_data_stops_the_trial_in_one_line(folder, run_tool):
    arguments = ["random.pth", "--benchmark", "cifar100_linear", "--out", "out"]
    done = run_tool("tools/run_benchmark.py", *arguments, check=2, DETECTRON2_DATASETS=str(folder))
    assert "cifar100/train; unpack the data set with tools/prepare_data.py" in done.stderr
    assert [line.partition(":")[0] for line in done.stderr.splitlines()[1:]] == ["error"]  # below the log's place
