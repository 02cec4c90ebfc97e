"""The real detection tool on a handful of generated images: train, go on, evaluate, two processes, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import Run

from core.backbones.resnet import ResNet
from core.checkpoint import save_backbone
from core.shapes import CLASSES
from transfer.convert.convert import convert

TOOL = "tools/train_net.py"
CONFIGS = Path(__file__).parents[2] / "configs" / "transfer" / "detection"
SHORT = ("SOLVER.IMS_PER_BATCH", 2, "SOLVER.STEPS", "(2,)", "TEST.PRECISE_BN.NUM_ITER", 1, "SEED", 1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write six images with one bright square each, as the shapes set, and a converted slim backbone."""
    root = tmp_path_factory.mktemp("datasets")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        folder = root / "shapes" / "coco"
        (folder / split).mkdir(parents=True)
        images, annotations = [], []
        for index in range(6):
            pixels = rng.integers(0, 80, (96, 96, 3), dtype=np.uint8)
            x, y = rng.integers(4, 40, 2).tolist()
            pixels[y : y + 40, x : x + 40] = 240
            Image.fromarray(pixels).save(folder / split / f"{index}.png")
            images.append({"id": index, "file_name": f"{index}.png", "height": 96, "width": 96})
            outline = [x, y, x + 40, y, x + 40, y + 40, x, y + 40]
            box = {"bbox": [x, y, 40, 40], "area": 1600, "iscrowd": 0, "segmentation": [outline]}
            annotations.append({"id": index + 1, "image_id": index, "category_id": 1 + index % 2, **box})
        categories = [{"id": index, "name": name} for index, name in enumerate(CLASSES, 1)]
        listing = folder / "annotations" / f"instances_{split}.json"
        listing.parent.mkdir(exist_ok=True)
        listing.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    config = {"name": "resnet", "depth": 18, "width": 16, "stem": "imagenet"}
    save_backbone(root / "backbone.pth", ResNet(ResNet.Config(**config)).state_dict(), {"backbone": config})
    convert(root / "backbone.pth", root / "backbone.pkl", target="detectron2")
    return root


@pytest.fixture
def options(root: Path) -> tuple:
    config = next(CONFIGS.glob("mask-rcnn_r18w16-fpn_*_shapes.yaml"))
    return "--config-file", config, "MODEL.WEIGHTS", root / "backbone.pkl", *SHORT


def read(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_text())


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "journal.jsonl").read_text().splitlines()]


def test_train_go_on_and_evaluate_only(run_tool: Run, root: Path, options: tuple, tmp_path: Path) -> None:
    folder, environment = tmp_path / "run", {"DETECTRON2_DATASETS": str(root)}
    done = run_tool(TOOL, *options, "SOLVER.MAX_ITER", 3, "OUTPUT_DIR", folder, **environment)
    assert "SyncBN becomes BN (one device)" in done.stderr
    assert "100 backbone tensors checked" in done.stdout
    first = read(folder)
    assert first["tensors_checked"] == 100
    assert first["device"] == "cpu"
    assert first["recipe"]["effective"]["norm"] == "BN"
    assert first["recipe"]["published"]["norm"] == "SyncBN"
    assert {"bbox/AP", "bbox/AP50", "segm/AP", f"bbox/AP-{CLASSES[0]}"} <= set(first["metrics"])
    assert first["metrics"][f"bbox/AP-{CLASSES[7]}"] is None  # no ground truth: NaN is null
    assert steps(folder) == [1, 2, 3]
    assert len(list((folder / "predictions").glob("*.png"))) == 4

    run_tool(TOOL, "--resume", *options, "SOLVER.MAX_ITER", 4, "OUTPUT_DIR", folder, **environment)
    trained = read(folder)
    assert trained["tensors_checked"] == 100  # proven when training began
    assert steps(folder) == [1, 2, 3, 4]

    weights = ("MODEL.WEIGHTS", folder / "model_final.pth")
    evaluated = tmp_path / "evaluated"
    run_tool(TOOL, "--eval-only", *options, *weights, "OUTPUT_DIR", evaluated, **environment)
    assert read(evaluated)["metrics"] == trained["metrics"]
    assert read(evaluated)["tensors_checked"] == 100


def test_two_cpu_processes_train_and_evaluate_together(
    run_tool: Run, root: Path, options: tuple, tmp_path: Path
) -> None:
    arguments = ("--num-gpus", 2, *options, "SOLVER.MAX_ITER", 4, "OUTPUT_DIR", tmp_path / "run")
    done = run_tool(TOOL, *arguments, DETECTRON2_DATASETS=str(root))
    assert "SyncBN becomes naiveSyncBN" in done.stderr
    effective = read(tmp_path / "run")["recipe"]["effective"]
    assert (effective["devices"], effective["batch"], effective["iterations"]) == (2, 4, 2)
    assert steps(tmp_path / "run") == [1, 2]


def test_a_missing_dataset_is_one_line_and_exit_2_before_anything_is_written(
    run_tool: Run, options: tuple, tmp_path: Path
) -> None:
    arguments = (*options, "DATASETS.TRAIN", "('coco_2017_train',)", "OUTPUT_DIR", tmp_path / "run")
    done = run_tool(TOOL, *arguments, check=2, DETECTRON2_DATASETS=str(tmp_path / "nowhere"))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "dataset coco_2017_train is not there: no " in errors[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_help_does_not_wait_for_detectron2(run_tool: Run) -> None:
    done = run_tool(TOOL, "--help", PYTHONPROFILEIMPORTTIME="1")
    assert "--eval-only" in done.stdout
    assert "detectron2.engine" not in done.stderr
    assert "torch" not in [line.split("|")[-1].strip() for line in done.stderr.splitlines()]
