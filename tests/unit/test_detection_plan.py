"""What tools/train_net.py refuses before anything is trained, and what it calls published."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from core.errors import InputError
from core.provenance import ROOT
from transfer.datasets import shapes
from transfer.frameworks.detectron2 import compat, datasets, run

sys.path.insert(0, str(ROOT / "tools"))
from train_net import parser

CONFIG = ROOT / "configs/transfer/detection/mask-rcnn_r18w16-fpn_1xb4-400_shapes.yaml"


def prepare(folder: Path, *arguments: str) -> run.Plan:
    asked = ["--config-file", str(CONFIG), *arguments, "OUTPUT_DIR", str(folder)]
    with compat.quiet():
        return run.prepare(parser().parse_args(asked))


def test_published_is_what_the_config_file_says_whatever_the_command_line_changed(tmp_path: Path) -> None:
    plan = prepare(tmp_path, "SOLVER.BASE_LR", "0.5", "SOLVER.MAX_ITER", "7")
    found = {name: (recipe["lr"], recipe["iterations"]) for name, recipe in plan.protocols.items()}
    assert found == {"published": (0.002, 400), "effective": (0.5, 7)}


def test_a_finished_run_is_not_overwritten_by_one_of_other_settings(tmp_path: Path) -> None:
    assert not prepare(tmp_path).resume
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    assert prepare(tmp_path).resume
    assert prepare(tmp_path, "DATALOADER.NUM_WORKERS", "3").resume  # how, not what
    with pytest.raises(InputError, match=r"different: SOLVER\.BASE_LR, SOLVER\.WARMUP_ITERS\)"):
        prepare(tmp_path, "SOLVER.BASE_LR", "0.5", "SOLVER.WARMUP_ITERS", "3")
    assert prepare(tmp_path, "--resume", "SOLVER.BASE_LR", "0.5").resume


def test_no_processes_and_no_training_set_are_refused_with_the_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--num-gpus is 0"):
        prepare(tmp_path, "--num-gpus", "0")
    with pytest.raises(InputError, match=r"DATASETS\.TRAIN is empty; give --config-file"):
        run.prepare(parser().parse_args(["MODEL.WEIGHTS", "x.pkl"]))


def test_a_head_with_another_number_of_classes_than_the_annotations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shapes_val has 8 classes \(.*\), but MODEL\.ROI_HEADS\.NUM_CLASSES is 3"):
        prepare(tmp_path, "MODEL.ROI_HEADS.NUM_CLASSES", "3")
    assert not (tmp_path / "settings.json").exists()


def test_sets_of_other_classes_are_refused_with_the_first_that_differs(tmp_path: Path) -> None:
    shapes.ensure(tmp_path)
    root: Any = tmp_path / "shapes" / "coco"
    file = root / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    content["categories"][2]["name"] = "zebra"
    (root / "annotations" / "instances_other.json").write_text(json.dumps(content))
    (root / "other").symlink_to(root / "val")
    names = (f"coco:{root}:train", f"coco:{root}:other")
    datasets.check(names)
    cfg, _ = run.read_config(str(CONFIG), [])
    with pytest.raises(InputError, match=r":other have other classes \(triangle and zebra\)"):
        datasets.check_classes(cfg, names)
