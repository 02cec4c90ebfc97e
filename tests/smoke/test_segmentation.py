"""tools/train_seg.py as a user runs it: a few iterations on a generated VOC folder, resumed, and on two processes."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import end_when, refused, same, truncated

from core.backbones.resnet import ResNet
from core.shapes import CLASSES
from transfer.convert.recipe import Recipe

ROOT = Path(__file__).parents[2]
TOOL = "tools/train_seg.py"
CONFIG = next((ROOT / "configs" / "transfer" / "segmentation").glob("fcn_r18w16-*shapes*.py"))
STEPS = 4
SHORT = [
    f"train_cfg.max_iters={STEPS}", "train_cfg.val_interval=1000", "train_dataloader.batch_size=2",
    "auto_scale_lr.base_batch_size=2", "default_hooks.logger.interval=1", "default_hooks.checkpoint.interval=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a VOC-layout set of six plain images in place of ``shapes``, and a converted backbone."""
    root = tmp_path_factory.mktemp("world")
    voc, generator = root / "shapes" / "VOC", np.random.default_rng(0)
    lists = {"train": ["a", "b", "c", "d"], "val": ["e", "f"]}
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    for split, names in lists.items():
        (voc / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            label, mask = int(generator.integers(1, len(CLASSES) + 1)), np.zeros((128, 128), np.uint8)
            mask[30:90, 40:100] = label
            pixels = generator.integers(0, 80, (128, 128, 3), dtype=np.uint8) + (mask * 20)[..., None]
            Image.fromarray(pixels).save(voc / "JPEGImages" / f"{name}.jpg")
            Image.fromarray(mask).save(voc / "SegmentationClass" / f"{name}.png")
    torch.manual_seed(0)
    tensors = ResNet(ResNet.Config(depth=18, width=16, stem="imagenet")).state_dict()
    state = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    recipe = Recipe(depth=18, width=16, source="ours").to_dict()
    torch.save({"state_dict": state, "meta": {}, "recipe": recipe}, root / "backbone.pth")
    return root


def command(world: Path, work_dir: Path, *arguments: str) -> list[str]:
    known = [str(CONFIG), "--work-dir", str(work_dir), "--weights", str(world / "backbone.pth"), "--seed", "7"]
    return [*known, *arguments, "--cfg-options", *SHORT]


def journal(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def own_norms(world: Path, folder: Path, work_dir: Path, *arguments: str) -> list[str]:
    """Return the command of an original that has norms of its own on each of two devices of one image each."""
    config, norm = folder / "own_norms.py", "norm_cfg=dict(type='BN')"
    settings = "train_dataloader = dict(batch_size=1)\nauto_scale_lr = dict(base_batch_size=2)\n"
    config.write_text(
        f"_base_ = [{str(CONFIG)!r}]\nmodel = dict(backbone=dict({norm}), decode_head=dict({norm}))\n{settings}"
    )
    sizes = {"train_dataloader.batch_size=2", "auto_scale_lr.base_batch_size=2"}
    return [str(config), *(given for given in command(world, work_dir, *arguments)[1:] if given not in sizes)]


def test_killed_and_resumed_equals_undisturbed_bit_for_bit(
    world: Path, tmp_path: Path, run_tool: Callable, warm_place: dict[str, str]
) -> None:
    whole, killed, environment = tmp_path / "whole", tmp_path / "killed", {"DETECTRON2_DATASETS": str(world)}
    done = run_tool(TOOL, *own_norms(world, tmp_path, whole), **environment)
    assert "gradients of 2 x 1 images a step" in done.stdout  # one after the other, as the two devices saw them
    assert done.stdout.count("4 iterations") == 1  # published is what the config says, not the command line
    first = json.loads((whole / "evaluation.json").read_text())
    assert (first["tensors_checked"], first["device"], first["recipe"]["effective"]["norm"]) == (100, "cpu", "BN")
    assert set(first["metrics"]) == {
        *("seg/mIoU", "seg/mAcc", "seg/aAcc", "seg/IoU-background"),
        *(f"seg/IoU-{name}" for name in CLASSES),
    }
    assert first["metrics"]["seg/mIoU"] > 0
    pictures = sorted((whole / "predictions").glob("*.png"))
    assert [picture.stem for picture in pictures] == ["e"]  # both images are in one batch; its first is drawn
    with Image.open(pictures[0]) as picture:
        assert picture.size == (3 * 128 + 8, 128)

    arguments = [sys.executable, str(ROOT / TOOL), *own_norms(world, tmp_path, killed)]
    assert (
        end_when(killed / "last_checkpoint", signal.SIGKILL, arguments, {**environment, **warm_place})
        == -signal.SIGKILL
    )
    with truncated(world / "shapes" / "VOC" / "JPEGImages" / "f.jpg") as image:
        failed = run_tool(TOOL, *own_norms(world, tmp_path, killed), check=2, **environment).stderr
    assert f"the evaluation failed, the trained model is kept in {killed}: the same command evaluates it" in failed
    assert failed.splitlines()[-1].startswith(f"error: {image} cannot be used (")
    run_tool(TOOL, *own_norms(world, tmp_path, killed), **environment)
    again = json.loads((killed / "evaluation.json").read_text())
    assert again["metrics"] == first["metrics"]
    assert (again["resumed"], again["tensors_checked"]) == (2, 100)
    assert [line["step"] for line in journal(killed)] == [1, 2, 3, 4]
    assert [(line["loss"], line["lr"]) for line in journal(killed)] == [
        (line["loss"], line["lr"]) for line in journal(whole)
    ]
    assert [path.name for path in killed.glob("iter_*.pth")] == [f"iter_{STEPS}.pth"]
    same(whole / f"iter_{STEPS}.pth", killed / f"iter_{STEPS}.pth")

    changed = [TOOL, *own_norms(world, tmp_path, killed), "optim_wrapper.optimizer.lr=0.0025"]
    refused(run_tool, changed, "optim_wrapper.optimizer.lr", killed, **environment)
    other = own_norms(world, tmp_path, killed, "--resume", "--scaling", "linear")
    other = [argument.replace(f"max_iters={STEPS}", "max_iters=9") for argument in other]
    told = run_tool(TOOL, *other, "optim_wrapper.optimizer.lr=0.0025", **environment)
    said = told.stdout
    assert "going on at iteration 8 of 1 images: 4 of 2 are done" in told.stderr
    assert "different from before: auto_scale_lr.base_batch_size, " in said
    rise = [0.1 + 0.9 * step / 19 for step in range(4)]  # MMEngine's warm-up of 20 iterations
    rates = [
        *(0.005 * share for share in rise),
        0.0025 * (0.1 + 0.9 * 8 / 39),
    ]  # as said, twice as long for half the images
    assert [line["step"] for line in journal(killed)] == [1, 2, 3, 4, 9]
    assert [line["lr"] for line in journal(killed)] == pytest.approx(rates)


def test_two_gloo_processes_train_and_measure_together(world: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    arguments = command(world, tmp_path, "--launcher", "pytorch")
    arguments[arguments.index("train_dataloader.batch_size=2")] = "train_dataloader.batch_size=1"
    environment = {**os.environ, "DETECTRON2_DATASETS": str(world), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, str(ROOT / TOOL), *arguments], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SyncBN becomes BN (SyncBN needs CUDA; statistics stay per process)") == 1
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert evaluation["recipe"]["effective"]["batch"] == 2
    assert evaluation["recipe"]["effective"]["devices"] == 2
    assert evaluation["tensors_checked"] == 100
    assert evaluation["metrics"]["seg/mIoU"] > 0
    assert [line["step"] for line in journal(tmp_path)] == [1, 2, 3, 4]


def test_what_is_missing_takes_one_line(world: Path, tmp_path: Path, run_tool: Callable) -> None:
    elsewhere = "train_dataloader.dataset.data_root=nowhere"
    no_data = run_tool(TOOL, *command(world, tmp_path / "a"), elsewhere, check=2, DETECTRON2_DATASETS=str(world))
    assert no_data.stderr.startswith("error: no dataset folder nowhere; ")
    assert no_data.stderr.count("\n") == 1
    arguments = command(world, tmp_path / "b")
    arguments[arguments.index("--weights") + 1] = "nowhere.pth"
    no_weights = run_tool(TOOL, *arguments, check=2, DETECTRON2_DATASETS=str(world))
    assert no_weights.stderr.strip() == "error: no checkpoint at nowhere.pth; check the path"
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
