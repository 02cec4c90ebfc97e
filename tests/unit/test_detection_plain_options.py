"""The load check also guards who brings Detectron2's own configs and options: C4, dilated C5, FPN, RetinaNet, frozen norms."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from core.backbones.resnet import ResNet
from core.checkpoint import save_backbone
from transfer.convert import recipe
from transfer.convert.convert import convert
from transfer.convert.load_check import LoadError
from transfer.frameworks.detectron2 import weights
from transfer.frameworks.detectron2.compat import quiet
from transfer.frameworks.detectron2.run import read_config
from transfer.frameworks.detectron2.weights import ProvenCheckpointer

SMALL = [
    "MODEL.DEVICE",
    "cpu",
    "MODEL.ROI_BOX_HEAD.FC_DIM",
    "8",
    "MODEL.ROI_MASK_HEAD.CONV_DIM",
    "8",
    "MODEL.MASK_ON",
    "False",
]
PLAIN = {
    "nothing but options": ["MODEL.BACKBONE.FREEZE_AT", "2"],  # Detectron2's defaults are a C4 with frozen norms
    "dilated C5": ["MODEL.RESNETS.OUT_FEATURES", "['res5']", "MODEL.RESNETS.RES5_DILATION", "2",
                   "MODEL.RPN.IN_FEATURES", "['res5']",
                   "MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.ROI_HEADS.IN_FEATURES", "['res5']",
                   "MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", "2",
                   "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", "7"],
    "RetinaNet": ["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone",
                  "MODEL.RESNETS.OUT_FEATURES", "['res3', 'res4', 'res5']", "MODEL.FPN.IN_FEATURES", "['res3', 'res4', 'res5']",
                  "MODEL.FPN.OUT_CHANNELS", "16"],
}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("r50")
    config = {"name": "resnet", "depth": 50, "width": 64, "stem": "imagenet"}
    save_backbone(folder / "r50.pth", ResNet(ResNet.Config(**config)).state_dict(), {"backbone": config})
    convert(folder / "r50.pth", folder / "r50.pkl", target="detectron2")
    return folder / "r50.pkl"


def built(file: Path, options: list[str]) -> tuple[Any, nn.Module]:
    from detectron2.modeling import build_model

    cfg, explicit = read_config("", [*SMALL, *options])
    found = recipe.read(file)
    assert found is not None
    weights.inject(cfg, found, explicit, file)
    with quiet():
        return cfg, build_model(cfg)


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
def test_all_265_tensors_are_found_and_compared(file: Path, tmp_path: Path, options: list[str]) -> None:
    cfg, model = built(file, options)
    assert (cfg.INPUT.FORMAT, cfg.MODEL.RESNETS.STRIDE_IN_1X1) == ("RGB", False)  # not the defaults
    checkpointer = ProvenCheckpointer(model, str(tmp_path))
    checkpointer.resume_or_load(str(file), resume=False)
    assert checkpointer.checked == 265


def test_one_altered_tensor_in_c4s_head_stops_the_run_with_its_name(file: Path, tmp_path: Path) -> None:
    _, model = built(file, PLAIN["nothing but options"])
    checkpointer = ProvenCheckpointer(model, str(tmp_path))
    apply = checkpointer._load_model

    def altered(content: dict[str, Any]) -> Any:
        incompatible = apply(content)
        with torch.no_grad():
            model.roi_heads.res5[2].conv3.weight[0, 0, 0, 0] += 1e-6
        return incompatible

    checkpointer._load_model = altered
    with pytest.raises(LoadError, match=r"^res5\.2\.conv3\.weight differs between the network and .*r50\.pkl"):
        checkpointer.resume_or_load(str(file), resume=False)
