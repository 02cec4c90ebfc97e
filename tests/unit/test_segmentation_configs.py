"""Every shipped segmentation config loads with MMEngine alone and states the facts that the weights rely on."""

import re
from pathlib import Path
from typing import Any

import pytest

from core.shapes import CLASSES
from transfer.recipe import Recipe
from transfer.segmentation import compat, devices, injection
from transfer.segmentation.data import leaves

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "transfer" / "segmentation").glob("*.py"))
NAME = re.compile(
    r"(?P<method>fcn|fcn-16s|upernet)_r(?P<depth>\d+)(?:w(?P<width>\d+))?(?:-d(?P<stride>\d+))?_"
    r"(?P<devices>\d+)xb(?P<batch>\d+)-(?P<count>\d+)(?P<unit>k|i)_"
    r"(?P<data>[a-z0-9-]+)-(?P<height>\d+)x(?P<across>\d+)"
)


def load(path: Path) -> Any:
    return compat.Config.fromfile(str(path))


def named(path: Path) -> dict[str, str]:
    match = NAME.fullmatch(path.stem)
    assert match, f"{path.stem} does not follow the grammar of names"
    return {key: value or "64" for key, value in match.groupdict().items()}


def test_there_is_a_config_for_the_published_protocol_for_the_small_network_and_for_each_tiny_set() -> None:
    assert {(name["depth"], name["data"]) for name in map(named, CONFIGS)} >= {
        ("50", "voc12aug"),
        ("18", "voc12aug"),
        ("18", "shapes"),
        ("50", "tiny-coco-voc"),
    }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_network_is_torchvisions_resnet_with_nothing_frozen(path: Path) -> None:
    model, name = load(path).model, named(path)
    backbone, pixels, recipe = model.backbone, model.data_preprocessor, Recipe()
    assert (backbone.type, backbone.style, backbone.contract_dilation) == ("ResNet", "pytorch", True)
    assert (backbone.frozen_stages, backbone.norm_eval, backbone.norm_cfg.type) == (-1, False, "SyncBN")
    assert (model.pretrained, backbone.get("init_cfg"), backbone.get("pretrained")) == (None, None, None)
    assert (backbone.depth, backbone.base_channels) == (int(name["depth"]), int(name["width"]))
    assert backbone.stem_channels == backbone.base_channels
    assert (tuple(pixels.mean), tuple(pixels.std), pixels.bgr_to_rgb) == (recipe.mean, recipe.std, True)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_batch_and_iterations_are_those_of_the_file_name(path: Path) -> None:
    cfg, name = load(path), named(path)
    iterations = int(name["count"]) * (1000 if name["unit"] == "k" else 1)
    assert cfg.train_dataloader.batch_size == int(name["batch"])
    assert cfg.auto_scale_lr.base_batch_size == int(name["batch"]) * int(name["devices"])
    assert cfg.train_cfg.max_iters == iterations
    assert max(scheduler.end for scheduler in cfg.param_scheduler) == iterations
    assert tuple(cfg.model.data_preprocessor["size"]) == (int(name["height"]), int(name["across"]))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_datasets_lie_under_the_root_of_all_datasets(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", "/elsewhere")
    cfg = load(path)
    sets = [*leaves(cfg.train_dataloader.dataset), *leaves(cfg.val_dataloader.dataset)]
    assert all(dataset.data_root.startswith("/elsewhere/") for dataset in sets)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_config_is_accepted_with_the_weights_it_is_named_for_and_mmsegmentation_builds_it(path: Path) -> None:
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    cfg, name = load(path), named(path)
    recipe = Recipe(depth=int(name["depth"]), width=int(name["width"]))
    injection.inject(cfg, injection.Weights(Path("file.pth"), {}, recipe), path)
    devices.adapt(cfg, processes=1, cuda=False)
    init_default_scope("mmseg")
    with compat.quiet():
        network = MODELS.build(cfg.model)
    assert network.decode_head.conv_seg.out_channels == cfg.model.decode_head.num_classes
    assert not any("SyncBatchNorm" in type(module).__name__ for module in network.modules())


def test_the_classes_of_shapes_are_the_renderers() -> None:
    path = next(path for path in CONFIGS if named(path)["data"] == "shapes")
    cfg = load(path)
    for dataset in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset):
        assert tuple(dataset.metainfo.classes) == ("background", *CLASSES)
        assert len(dataset.metainfo.palette) == cfg.model.decode_head.num_classes == len(CLASSES) + 1
