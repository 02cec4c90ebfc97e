"""Every shipped segmentation config does what its name says, and MMSegmentation builds it (its facts: test_facts.py)."""

import copy
from pathlib import Path

import pytest
import torch
from shipped_configs import SEGMENTATION, Name, load_segmentation, shipped

from core.shapes import CLASSES
from transfer.convert.recipe import Recipe
from transfer.frameworks.mmseg import compat, protocol, weights
from transfer.frameworks.mmseg.data import leaves

FOLDER = SEGMENTATION[0].parent
RESNETS = [path for path in SEGMENTATION if not Name("segmentation", path)["family"]]


def test_there_are_configs_for_each_protocol_of_the_design_for_the_small_network_and_for_each_tiny_set() -> None:
    names = [Name("segmentation", path) for path in SEGMENTATION]
    assert {(name["method"], name["depth"], name["data"], name["length"]) for name in names} >= {
        ("fcn", 50, "voc12aug", 20000),
        ("fcn", 50, "voc12aug", 40000),
        ("fcn", 18, "voc12aug", 20000),
        ("fcn-16s", 50, "voc12aug", 30000),
        ("fcn", 50, "cityscapes", 40000),
        ("fcn", 50, "cityscapes", 80000),
        ("fcn", 50, "ade20k", 80000),
        ("upernet", 50, "ade20k", 80000),
        ("fcn", 18, "shapes", 280),
        ("fcn", 50, "tiny-coco-voc", 200),
    }


@shipped("segmentation", SEGMENTATION)
def test_the_datasets_lie_under_the_root_of_all_datasets(
    path: Path, name: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", "/elsewhere")
    cfg = load_segmentation.__wrapped__(path)  # not the one that was loaded before
    sets = [*leaves(cfg.train_dataloader.dataset), *leaves(cfg.val_dataloader.dataset)]
    assert all(dataset.data_root.startswith("/elsewhere/") for dataset in sets)


@shipped("segmentation", RESNETS)
def test_the_config_is_accepted_with_the_weights_it_is_named_for_and_mmsegmentation_builds_it(
    path: Path, name: Name
) -> None:
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    cfg = copy.deepcopy(load_segmentation(path))
    recipe = Recipe(depth=name["depth"], width=name["width"])
    weights.inject(cfg, weights.Weights(Path("file.pth"), {}, recipe), path)
    protocol.adapt(cfg, processes=1, cuda=False)
    init_default_scope("mmseg")
    with compat.quiet(), torch.device("meta"):  # nothing is computed, and random values take a second
        network = MODELS.build(cfg.model)
    assert network.decode_head.conv_seg.out_channels == cfg.model.decode_head.num_classes
    assert not any("SyncBatchNorm" in type(module).__name__ for module in network.modules())


def test_all_heads_have_as_many_classes_as_the_data() -> None:
    from mmseg.datasets import ADE20KDataset, CityscapesDataset, PascalVOCDataset

    known = {"voc12aug": PascalVOCDataset, "cityscapes": CityscapesDataset, "ade20k": ADE20KDataset}
    for path in SEGMENTATION:
        name, model = Name("segmentation", path), load_segmentation(path).model
        if name["data"] in known:
            count = len(known[name["data"]].METAINFO["classes"])
            heads = [head for key in ("decode_head", "auxiliary_head") if (head := model.get(key))]
            assert [head.num_classes for head in heads] == [count] * len(heads), path.name


def test_the_fcn_16s_head_is_two_convolutions_of_dilation_6_and_a_1x1_at_stride_16() -> None:
    """As MoCo's appendix has it; weights are counted by hand: 2048 x 256 x 9 + 256 x 256 x 9 + norms + 256 x 21 + 21."""
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    path = next(path for path in SEGMENTATION if path.stem == "fcn-16s_r50-d16_8xb2-30k_voc12aug-513x513")
    cfg = copy.deepcopy(load_segmentation(path))
    protocol.adapt(cfg, processes=1, cuda=False)
    init_default_scope("mmseg")
    with compat.quiet():
        network = MODELS.build(cfg.model).eval()
    head = network.decode_head
    assert [(m.kernel_size, m.dilation, m.padding, m.out_channels, m.bias) for m in (c.conv for c in head.convs)] == [
        ((3, 3), (6, 6), (6, 6), 256, None)
    ] * 2
    assert [type(part).__name__ for part in head.convs[0].children()] == ["Conv2d", "BatchNorm2d", "ReLU"]
    parameters = sum(parameter.numel() for parameter in head.parameters())
    assert parameters == 2048 * 256 * 9 + 256 * 256 * 9 + 4 * 256 + 256 * 21 + 21
    assert (head.dropout, network.with_auxiliary_head) == (None, False)
    with torch.no_grad():
        stages = network.backbone(torch.zeros(1, 3, 65, 65))
        assert [tuple(stage.shape[2:]) for stage in stages] == [(17, 17), (9, 9), (5, 5), (5, 5)]
        assert head(stages).shape == (1, 21, 5, 5)
    schedule = cfg.param_scheduler[0]
    assert (schedule.milestones, schedule.gamma, cfg.optim_wrapper.optimizer.weight_decay) == (
        [168000, 216000],
        0.1,
        1e-4,
    )


def test_the_classes_of_shapes_are_the_renderers() -> None:
    path = next(path for path in SEGMENTATION if Name("segmentation", path)["data"] == "shapes")
    cfg = load_segmentation(path)
    for dataset in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset):
        assert tuple(dataset.metainfo.classes) == ("background", *CLASSES)
        assert len(dataset.metainfo.palette) == cfg.model.decode_head.num_classes == len(CLASSES) + 1
