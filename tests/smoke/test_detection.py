"""The real detection tool on a handful of generated images: train, go on, evaluate, two processes, and what it refuses."""

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import Run, end_when, refused, same, truncated

from core.backbones.resnet import ResNet
from core.checkpoint import save_backbone
from core.shapes import CLASSES
from transfer.convert.convert import convert

ROOT = Path(__file__).parents[2]
TOOL = "tools/train_net.py"
CONFIGS = ROOT / "configs" / "transfer" / "detection"
SCHEDULE = ("SOLVER.STEPS", "(2,)", "SOLVER.WARMUP_ITERS", 1)
SHORT = ("SOLVER.IMS_PER_BATCH", 2, *SCHEDULE, "TEST.PRECISE_BN.NUM_ITER", 1, "SEED", 1)


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


def logged(folder: Path, key: str = "step") -> list[float]:
    return [json.loads(line)[key] for line in (folder / "journal.jsonl").read_text().splitlines()]


def test_killed_and_gone_on_with_equals_undisturbed_bit_for_bit_and_is_evaluated_alike(
    run_tool: Run, root: Path, options: tuple, tmp_path: Path, warm_place: dict[str, str]
) -> None:
    environment = {"DETECTRON2_DATASETS": str(root)}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = (*options, "SOLVER.MAX_ITER", 5, "SOLVER.CHECKPOINT_PERIOD", 2)
    done = run_tool(TOOL, *options, "OUTPUT_DIR", whole, **environment)
    assert "SyncBN becomes BN (one device)" in done.stderr
    assert "100 backbone tensors checked" in done.stdout
    first = read(whole)
    assert (first["tensors_checked"], first["device"], first["resumed"]) == (100, "cpu", 0)
    assert first["recipe"]["effective"]["norm"] == "BN"
    assert first["recipe"]["published"]["norm"] == "SyncBN"
    assert {"bbox/AP", "bbox/AP50", "segm/AP", f"bbox/AP-{CLASSES[0]}"} <= set(first["metrics"])
    assert first["metrics"][f"bbox/AP-{CLASSES[7]}"] is None  # no ground truth: NaN is null
    assert logged(whole) == [1, 2, 3, 4, 5]
    assert logged(whole, "lr") == pytest.approx([2e-6, 2e-3, *[2e-4] * 3])  # each step's own
    assert len(list((whole / "predictions").glob("*.png"))) == 4

    command = [sys.executable, str(ROOT / TOOL), *map(str, options), "OUTPUT_DIR", str(killed)]
    assert end_when(killed / "last_checkpoint", signal.SIGTERM, command, {**environment, **warm_place}) == 143
    with truncated(root / "shapes" / "coco" / "val" / "3.png") as image:
        failed = run_tool(TOOL, *options, "OUTPUT_DIR", killed, check=2, **environment).stderr
    assert f"the evaluation failed, the trained model is kept in {killed}: the same command evaluates it" in failed
    assert failed.splitlines()[-1].startswith(f"error: {image} cannot be used (OSError: ")
    run_tool(TOOL, *options, "OUTPUT_DIR", killed, **environment)
    again = read(killed)
    assert again["metrics"] == first["metrics"]
    assert (again["tensors_checked"], again["resumed"]) == (100, 2)  # proven when training began
    assert again["seconds"] == pytest.approx(sum(json.loads((killed / "sittings.json").read_text())), abs=1)
    assert logged(killed) == logged(whole)
    same(whole / "model_final.pth", killed / "model_final.pth")

    changed = (TOOL, *options, "SOLVER.BASE_LR", 0.001, "OUTPUT_DIR", killed)
    refused(run_tool, changed, "SOLVER.BASE_LR", killed, **environment)
    other = ("SOLVER.MAX_ITER", 12, "SOLVER.BASE_LR", 0.001, "SOLVER.IMS_PER_BATCH", 1, "OUTPUT_DIR", killed)
    said = run_tool(TOOL, "--resume", *options, *other, **environment).stderr
    assert "SOLVER.BASE_LR" in said
    assert "going on at iteration 10 of 1 images: 5 of 2 are done" in said
    assert logged(killed) == [1, 2, 3, 4, 5, 11, 12]
    assert logged(killed, "lr")[5:] == pytest.approx([1e-4] * 2)  # the rate that was said, not the checkpoint's

    weights = ("MODEL.WEIGHTS", whole / "model_final.pth")
    evaluated = tmp_path / "evaluated"
    run_tool(TOOL, "--eval-only", *options, *weights, "OUTPUT_DIR", evaluated, **environment)
    assert read(evaluated)["metrics"] == first["metrics"]
    assert read(evaluated)["tensors_checked"] == 100


@pytest.mark.parametrize(("norm", "found"), [("SyncBN", (4, 1, "naiveSyncBN", 4)), ("FrozenBN", (4, 2, "FrozenBN", 0))])
def test_two_cpu_processes_train_and_evaluate_together(
    run_tool: Run, root: Path, options: tuple, tmp_path: Path, norm: str, found: tuple
) -> None:
    """Synchronised norms see the images of both; without batch norm, gradients of two images each are added up one by one."""
    one_by_one = ("--images-per-device", 1) if norm == "FrozenBN" else ()
    neck = ("MODEL.FPN.NORM", "SyncBN" if norm == "SyncBN" else "LN")
    norms = ("SOLVER.IMS_PER_BATCH", 4, "MODEL.RESNETS.NORM", norm, *neck)
    arguments = ("--num-gpus", 2, *one_by_one, *options, *norms, "SOLVER.MAX_ITER", 3, "OUTPUT_DIR", tmp_path / "run")
    done = run_tool(TOOL, *arguments, DETECTRON2_DATASETS=str(root))
    assert ("SyncBN becomes naiveSyncBN" in done.stderr) == (norm == "SyncBN")
    effective = read(tmp_path / "run")["recipe"]["effective"]
    assert tuple(effective[key] for key in ("batch", "accumulate", "norm", "norm_group")) == found
    assert (effective["devices"], effective["iterations"]) == (2, 3)
    assert logged(tmp_path / "run") == [1, 2, 3]


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
