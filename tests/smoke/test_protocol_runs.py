"""tools/run_benchmark.py from a checkpoint to result.json: the documentation's worked example, and a killed run that goes on."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from running import Run, end_when

from core.backbones.resnet import ResNet
from core.checkpoint import save_backbone
from transfer.suite import process

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "add-a-benchmark.md"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a ResNet-18 and a slim one, and a small folder that is in VOC layout for detection and for segmentation."""
    world = tmp_path_factory.mktemp("world")
    for name, width in (("r18", 64), ("slim", 16)):
        config = {"name": "resnet", "depth": 18, "width": width, "stem": "imagenet"}
        save_backbone(world / f"{name}.pth", ResNet(ResNet.Config(**config)).state_dict(), {"backbone": config})
    voc = world / "voc"
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    for split, names in {"train": "abcdef", "val": "gh"}.items():
        for kind in ("Main", "Segmentation"):
            (voc / "ImageSets" / kind / f"{split}.txt").write_text("\n".join(names) + "\n")
        for index, name in enumerate(names):
            x = 10 + 5 * index
            image, mask = Image.new("RGB", (96, 80)), Image.new("P", (96, 80))
            image.paste((250, 240, 90), (x, 10, x + 40, 60))
            mask.paste(8, (x, 10, x + 40, 60))
            image.save(voc / "JPEGImages" / f"{name}.jpg")
            mask.save(voc / "SegmentationClass" / f"{name}.png")
            box = f"<xmin>{x + 1}</xmin><ymin>11</ymin><xmax>{x + 40}</xmax><ymax>60</ymax>"
            (voc / "Annotations" / f"{name}.xml").write_text(
                "<annotation><size><width>96</width><height>80</height><depth>3</depth></size><object><name>cat</name>"
                f"<pose/><truncated>0</truncated><difficult>0</difficult><bndbox>{box}</bndbox></object></annotation>"
            )
    return world


def command(root: Path, world: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(root / "tools" / "run_benchmark.py"), *arguments, "--tiny", str(world / "voc")]


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def test_the_worked_example_takes_one_row_and_one_config_and_runs(world: Path, tmp_path: Path) -> None:
    for part in ("core", "transfer", "tools", "configs"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    written = re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE.read_text(), re.S)
    assert [Path(name).suffix for name, _ in written] == [".yaml", ".yaml"]
    for name, content in written:
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(content)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "DETECTRON2_DATASETS": str(world)}
    arguments = command(
        tmp_path, world, str(world / "r18.pth"), "--benchmark", "voc07_fpn_r18", "--out", str(tmp_path / "out")
    )
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    found = result(tmp_path / "out")
    assert (found["benchmark"], found["protocol"]["title"]) == ("voc07_fpn_r18", "VOC07 FPN R18 (tiny)")
    assert found["tensors_checked"] == 100
    assert {"bbox/AP", "bbox_11point/AP50", "bbox_area/AP50", "bbox/AP-cat"} <= set(found["metrics"])
    assert found["recipe"]["published"]["iterations"] == 9000
    assert found["recipe"]["effective"]["iterations"] == 4
    curves = json.loads((tmp_path / "out" / "run" / "curves.json").read_text())
    assert len(curves["bbox"]["50"]) == 101


def test_a_killed_benchmark_goes_on_from_its_last_checkpoint(
    world: Path, tmp_path: Path, run_tool: Run, warm_place: dict[str, str]
) -> None:
    folder = tmp_path / "out"
    asked = (str(world / "slim.pth"), "--benchmark", "shapes_segmentation", "--out", str(folder))
    arguments, environment = command(ROOT, world, *asked), {"DETECTRON2_DATASETS": str(world)}
    place = {**environment, **warm_place, **process.tag(folder)}
    assert end_when(folder / "run" / "last_checkpoint", signal.SIGKILL, arguments, place) == -signal.SIGKILL
    while process.members(folder):  # what trains saves, and ends by itself; until then the folder is its own
        time.sleep(0.1)
    assert not (folder / "result.json").exists()
    run_tool(*arguments[1:], **environment)
    found = result(folder)
    assert found["tensors_checked"] == 100
    assert found["protocol"]["options"] == [f"--tiny={world / 'voc'}"]
    lines = [json.loads(line)["step"] for line in (folder / "run" / "journal.jsonl").read_text().splitlines()]
    assert lines == [1, 2, 3, 4]
    run_tool(*arguments[1:], **environment)
    assert result(folder) == found  # nothing is measured twice
