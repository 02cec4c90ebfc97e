"""ConvNeXt is one network in pre-training, Detectron2 and MMSegmentation: equal features, and files that load whole."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from core import backbones
from core.backbones.convnext import Convnext
from core.checkpoint import save_backbone
from transfer.convert.convert import convert
from transfer.convert.recipe import Recipe
from transfer.frameworks.detectron2 import backbones as detection
from transfer.frameworks.detectron2.compat import quiet
from transfer.frameworks.detectron2.weights import ProvenCheckpointer
from transfer.frameworks.mmseg import backbones as segmentation
from transfer.frameworks.mmseg import compat

CONFIGS = Path(__file__).parents[2] / "configs" / "transfer"
SIZES: dict[str, Any] = {"name": "convnext", "blocks": (1, 2, 2, 1), "width": 8}
IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def randomised(network: nn.Module) -> nn.Module:
    """Give the layer scales weight (they begin at 1e-6, and would hide the blocks) and the norms values of their own."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if name.endswith("layer_scale"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        else:
            tensor.normal_(0, 0.1, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def slim() -> Any:
    return randomised(backbones.build(Convnext.Config.model_validate(SIZES)))


def largest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / a.abs().max())


def test_our_network_is_torchvisions() -> None:
    theirs = randomised(torchvision.models.convnext_tiny())
    ours = Convnext(Convnext.Config()).eval()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("classifier.")})
    with torch.no_grad():
        stages = ours.stages(IMAGES)
        assert torch.equal(stages[-1], theirs.features(IMAGES))
        pooled = ours(IMAGES)
    assert [tuple(stage.shape[1:]) for stage in stages] == [(96, 16, 24), (192, 8, 12), (384, 4, 6), (768, 2, 3)]
    assert ours.feature_dim == pooled.shape[1] == 768
    assert pooled.mean(dim=1).abs().max() < 1e-5  # normalised over channels
    assert (pooled.var(dim=1, correction=0) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("framework", [detection, segmentation])
def test_features_are_equal_in_each_framework(slim: Any, framework: Any) -> None:
    name = framework.__name__.split(".")[-2]
    theirs = framework.FAMILIES["convnext"].build_network(Recipe(**Convnext.facts(slim_config()))).eval()
    theirs.load_state_dict(Convnext.export(slim.state_dict(), name), strict=True)
    with torch.no_grad():
        found, expected = theirs(IMAGES), slim.stages(IMAGES)
    found = list(found.values()) if name == "detectron2" else found
    assert [largest(a, b) < 1e-5 for a, b in zip(expected, found, strict=True)] == [True] * 4


def slim_config() -> Any:
    return Convnext.Config.model_validate(SIZES)


def test_a_converted_file_loads_whole_into_the_shipped_detector(slim: Any, tmp_path: Path) -> None:
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    save_backbone(tmp_path / "a.pth", slim.state_dict(), {"backbone": SIZES})
    convert(tmp_path / "a.pth", tmp_path / "a.pkl", target="detectron2")
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZER = "SGD"  # our key, as tools/train_net.py adds it
    cfg.merge_from_file(str(CONFIGS / "detection" / "mask-rcnn_convnext-t-fpn_8xb2-90k_coco.yaml"))
    small = ["MODEL.CONVNEXT.BLOCKS", [1, 2, 2, 1], "MODEL.CONVNEXT.WIDTH", 8, "MODEL.DEVICE", "cpu"]
    cfg.merge_from_list([*small, "MODEL.ROI_BOX_HEAD.FC_DIM", 8, "MODEL.ROI_MASK_HEAD.CONV_DIM", 8])
    with quiet():
        model = build_model(cfg).eval()
    checkpointer = ProvenCheckpointer(model, str(tmp_path))
    checkpointer.resume_or_load(str(tmp_path / "a.pkl"), resume=False)
    assert checkpointer.checked == len(slim.state_dict()) == 70  # stem 4, six blocks of 9, three downsamplings of 4
    with torch.no_grad():
        bottom = model.backbone.bottom_up(IMAGES)
        expected = model.backbone.bottom_up.out_norms["res5"](slim.stages(IMAGES)[3])
        assert largest(expected, bottom["res5"]) < 1e-5
        assert {name: tuple(p.shape[2:]) for name, p in model.backbone(IMAGES).items()}["p5"] == (2, 3)


def test_the_shipped_detector_is_convnext_tiny() -> None:
    from detectron2.config import get_cfg

    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZER = "SGD"
    cfg.merge_from_file(str(CONFIGS / "detection" / "mask-rcnn_convnext-t-fpn_8xb2-90k_coco.yaml"))
    recipe = Recipe(**Convnext.facts(Convnext.Config()))
    for key, wanted in detection.FAMILIES["convnext"].facts(recipe).items():
        found: Any = cfg
        for part in key.split("."):
            found = found[part]
        assert found == wanted, key
    assert (cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY) == ("AdamW", 1e-4, 0.05)


def test_the_shipped_segmenter_is_convnext_tiny_and_takes_a_converted_file(slim: Any, tmp_path: Path) -> None:
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    cfg = compat.Config.fromfile(str(CONFIGS / "segmentation" / "upernet_convnext-t_4xb4-160k_ade20k-512x512.py"))
    wanted = segmentation.FAMILIES["convnext"].facts(Recipe(**Convnext.facts(Convnext.Config())))
    assert {key: list(v) if isinstance(v := cfg.model.backbone[key], tuple) else v for key in wanted} == wanted
    init_default_scope("mmseg")
    with compat.quiet(), torch.device("meta"):
        network = MODELS.build(copy.deepcopy(cfg.model))
    assert network.decode_head.conv_seg.out_channels == 150
    save_backbone(tmp_path / "a.pth", slim.state_dict(), {"backbone": SIZES})
    convert(tmp_path / "a.pth", tmp_path / "mm.pth", target="mmseg")
    init = {"type": "Pretrained", "checkpoint": str(tmp_path / "mm.pth")}
    backbone = segmentation.ConvNeXt(SIZES["blocks"], SIZES["width"], init_cfg=init)
    with compat.quiet():
        backbone.init_weights()
    expected = Convnext.export(slim.state_dict(), "mmseg")
    state = backbone.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    assert {name.split(".")[0] for name in state if name not in expected} == {"norm0", "norm1", "norm2", "norm3"}


def test_frozen_parts_and_stochastic_depth_are_those_asked_for() -> None:
    network = detection.ConvNeXt((1, 1, 1, 1), 8, freeze_at=2, drop_path=0.3)
    frozen = {name.split(".")[0] for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"stem", "res2"}
    chances = [block.drop_path.p for stage in detection.STAGES for block in getattr(network, stage)]
    assert chances == pytest.approx([0.0, 0.1, 0.2, 0.3])
    theirs = segmentation.ConvNeXt((1, 1, 1, 1), 8, drop_path=0.3)
    assert [stage[0].drop_path.p for stage in theirs.stages] == pytest.approx(chances)


def test_a_small_one_learns_in_pre_training_shapes(slim: Any) -> None:
    network = copy.deepcopy(slim).train()
    network(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())
