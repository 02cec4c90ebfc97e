"""What the weights decide is written into a config or refused; the whole backbone arrives and gives the features it had."""

import importlib.util
import pickle
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from mmengine.logging import MessageHub
from mmengine.model import initialize
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from PIL import Image
from torch import Tensor, nn

from core import run_folder
from core.errors import InputError
from core.files import FileError
from transfer.convert.load_check import LoadError
from transfer.convert.recipe import Recipe
from transfer.frameworks.mmseg import compat, data, hooks
from transfer.frameworks.mmseg.hooks import LoadBackbone
from transfer.frameworks.mmseg.run import read_config, take_checkpoint
from transfer.frameworks.mmseg.weights import Weights, check_backbone, inject, load_backbone, read_weights

CONFIGS = Path(__file__).parents[2] / "configs" / "transfer" / "segmentation"
R50 = CONFIGS / "fcn_r50-d8_4xb4-20k_voc12aug-512x512.py"


def of_recipe(**facts: Any) -> Weights:
    return Weights(Path("file.pth"), {}, Recipe(**facts))


def config(*options: str) -> compat.Config:
    return read_config(R50, options)


def test_what_the_config_leaves_unset_comes_from_the_weights_file() -> None:
    cfg = config()
    cfg.model.data_preprocessor = {"type": "SegDataPreProcessor", "size": (64, 64)}
    for key in ("depth", "base_channels", "stem_channels", "style", "contract_dilation"):
        del cfg.model.backbone[key]
    del cfg.model.decode_head["in_channels"], cfg.model.auxiliary_head["in_channels"]
    inject(cfg, of_recipe(depth=18, width=16), R50)
    backbone, pixels = cfg.model.backbone, cfg.model.data_preprocessor
    assert (backbone.depth, backbone.base_channels, backbone.stem_channels) == (18, 16, 16)
    assert (backbone.style, backbone.contract_dilation) == ("pytorch", True)
    assert (pixels["mean"], pixels["std"]) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    assert pixels["bgr_to_rgb"] is True
    assert (cfg.model.decode_head.in_channels, cfg.model.auxiliary_head.in_channels) == (128, 64)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.backbone.type=ResNetV1c", "model.backbone.type is 'ResNetV1c', but it must be 'ResNet'"),
        ("model.backbone.style=caffe", "model.backbone.style is 'caffe', but it must be 'pytorch'"),
        ("model.backbone.frozen_stages=1", "model.backbone.frozen_stages is 1, but it must be -1"),
        ("model.backbone.norm_eval=True", "model.backbone.norm_eval is True, but it must be False"),
        ("model.backbone.contract_dilation=False", "model.backbone.contract_dilation is False, but it must be True"),
        ("model.backbone.depth=18", "model.backbone.depth is 18, but it must be 50"),
        ("model.backbone.base_channels=16", "model.backbone.base_channels is 16, but it must be 64"),
        ("model.data_preprocessor.mean=[0,0,0]", "model.data_preprocessor.mean is [0, 0, 0], but it must be [123.675"),
        (
            "model.data_preprocessor.bgr_to_rgb=False",
            "model.data_preprocessor.bgr_to_rgb is False, but it must be True",
        ),
        ("model.decode_head.in_channels=512", "model.decode_head.in_channels is 512, but it must be 2048"),
        (
            "model.pretrained=torchvision://resnet50",
            "model.pretrained is 'torchvision://resnet50', but it must be None",
        ),
        ("load_from=other.pth", "load_from is 'other.pth', but it must be None"),
    ],
)
def test_a_contradiction_is_refused_with_the_key_and_both_values(option: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        inject(config(option), of_recipe(), R50)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"stem": "cifar"}, "its recipe has stem 'cifar'"),
        ({"width": 32}, "model.backbone.base_channels is 64, but it must be 32 (file.pth says so)"),
    ],
)
def test_weights_for_another_network_are_refused(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        inject(config(), of_recipe(**facts), R50)


CONVNEXT: dict[str, Any] = {
    "family": "convnext", "depth": 18, "width": 96, "stem": "patch", "norm": "LN", "blocks": (3, 3, 9, 3),
}  # fmt: skip
UPERNET = CONFIGS / "upernet_convnext-t_4xb4-160k_ade20k-512x512.py"


def test_convnext_weights_fit_their_own_config_and_fill_what_it_leaves_open() -> None:
    cfg = read_config(UPERNET, [])
    before = cfg.model.to_dict()
    inject(cfg, of_recipe(**CONVNEXT), UPERNET)
    assert cfg.model.to_dict() == before
    inject(cfg, None, UPERNET)  # random weights
    del cfg.model.backbone["blocks"], cfg.model.backbone["width"], cfg.model.decode_head["in_channels"]
    slim = {**CONVNEXT, "blocks": (1, 1, 2, 1), "width": 8, "depth": 5}
    cfg.model.auxiliary_head.in_channels = 32
    inject(cfg, of_recipe(**slim), UPERNET)
    assert (cfg.model.backbone.blocks, cfg.model.decode_head.in_channels) == ([1, 1, 2, 1], [8, 16, 32, 64])


def test_weights_of_one_family_in_the_config_of_another_are_refused() -> None:
    with pytest.raises(InputError, match=r"model\.backbone\.type is 'ResNet', but it must be 'ConvNeXt'"):
        inject(config(), of_recipe(**CONVNEXT), R50)
    with pytest.raises(InputError, match=r"model\.backbone\.type is 'ConvNeXt', but it must be 'ResNet'"):
        inject(read_config(UPERNET, []), of_recipe(), UPERNET)
    with pytest.raises(
        InputError, match=r"its recipe has family 'vit'; MMSegmentation has convnext, resnet, timm here"
    ):
        inject(config(), of_recipe(family="vit"), R50)


def test_an_option_below_no_known_key_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"--cfg-options max_iters: no 'max_iters' in .*train_cfg"):
        config("max_iters=5")
    with pytest.raises(InputError, match=r"cannot read --cfg-options 'train_cfg'; write key=value"):
        config("train_cfg")


def test_a_pretrained_checkpoint_in_init_cfg_is_taken_out_so_that_mmengine_never_opens_it() -> None:
    cfg = config("model.backbone.init_cfg.type=Pretrained", "model.backbone.init_cfg.checkpoint=here.pth")
    assert take_checkpoint(cfg) == Path("here.pth")
    assert cfg.model.backbone.init_cfg is None
    address = "model.backbone.init_cfg.checkpoint=http://127.0.0.1:9/w.pth"
    with pytest.raises(InputError, match=r"w\.pth is an address in a config, .*; give it as --weights"):
        take_checkpoint(config("model.backbone.init_cfg.type=Pretrained", address))


def test_a_file_with_other_names_is_refused_with_the_tool_that_makes_the_right_one(tmp_path: Path) -> None:
    file = tmp_path / "d2.pth"
    torch.save({"model": {"stem.conv1.weight": torch.zeros(1)}}, file)
    with pytest.raises(FileError, match=r"d2\.pth has no backbone under torchvision's names.*convert_to_mmseg"):
        read_weights(file)


def network() -> nn.Module:
    from mmseg.models.backbones import ResNet

    return ResNet(depth=18, base_channels=8, stem_channels=8)


def weights() -> Weights:
    torch.manual_seed(3)
    return Weights(Path("file.pth"), dict(network().state_dict()), None)


def test_every_tensor_of_resnet18_is_loaded_and_counted() -> None:
    fresh, file = network(), weights()
    assert load_backbone(fresh, file) == 100
    assert torch.equal(fresh.state_dict()["layer4.1.conv2.weight"], file.tensors["layer4.1.conv2.weight"])


def test_the_load_check_names_an_altered_tensor() -> None:
    fresh, file = network(), weights()
    load_backbone(fresh, file)
    with torch.no_grad():
        fresh.layer3[1].conv1.weight[0, 0, 0, 0] += 1e-6
    with pytest.raises(LoadError, match=r"backbone\.layer3\.1\.conv1\.weight differs"):
        check_backbone(fresh, file)


def test_a_file_that_lacks_a_stage_or_has_another_width_is_refused() -> None:
    file = weights()
    without = {name: tensor for name, tensor in file.tensors.items() if not name.startswith("layer4")}
    with pytest.raises(InputError, match=r"file.pth lacks \d+ of the backbone's 100 tensors, first layer4"):
        load_backbone(network(), Weights(file.path, without, None))
    wider = file.tensors | {"conv1.weight": torch.zeros(16, 3, 7, 7)}
    with pytest.raises(LoadError, match=r"backbone\.conv1\.weight has shape \(8, 3, 7, 7\)"):
        load_backbone(network(), Weights(file.path, wider, None))


class Malicious:
    """Would create a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


class MaliciousThroughGetattr(Malicious):
    """Would do the same by way of the one risky name that MMEngine's checkpoints need."""

    def __reduce__(self) -> tuple:
        return getattr(self.target, "touch"), ()  # noqa: B009 - pickled as getattr(path, "touch")


@pytest.mark.parametrize("kind", [Malicious, MaliciousThroughGetattr])
@pytest.mark.parametrize("zipped", [True, False])
def test_mmengine_refuses_a_checkpoint_that_would_run_code(tmp_path: Path, zipped: bool, kind: type[Malicious]) -> None:
    target, file = tmp_path / "ran", tmp_path / "iter_1.pth"
    content = {"state_dict": {}, "meta": kind(target)}
    if zipped:
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content, protocol=2))
    for road in ROADS:
        with pytest.raises(FileError, match=r"iter_1\.pth"):
            road(str(file))
    assert not target.exists()


ROADS = [
    lambda name: CheckpointLoader.load_checkpoint(name, map_location="cpu"),
    lambda name: mmengine_checkpoint._load_checkpoint(name),
    lambda name: mmengine_checkpoint._load_checkpoint_with_prefix("backbone", name),
    lambda name: initialize(nn.Conv2d(3, 3, 1), {"type": "Pretrained", "checkpoint": name}),
]


@pytest.mark.parametrize(
    "scheme", ["http", "https", "s3", "torchvision", "open-mmlab", "mmcls", "petrel", "pavi", "file"]
)
def test_mmengine_fetches_nothing(scheme: str) -> None:
    for road in ROADS:
        with pytest.raises(FileError, match=f"{scheme}://127.0.0.1:9/w.pth is an address; download it"):
            road(f"{scheme}://127.0.0.1:9/w.pth")


def test_the_checkpoint_to_resume_from_is_found_when_the_pointer_is_cut_short_or_the_folder_moved(
    tmp_path: Path,
) -> None:
    assert compat.latest_checkpoint(tmp_path) is None
    for step in (80, 160):
        (tmp_path / f"iter_{step}.pth").touch()
    assert compat.latest_checkpoint(tmp_path) == tmp_path / "iter_160.pth"
    (tmp_path / "last_checkpoint").write_text("/elsewhere/iter_80.pth")
    assert compat.latest_checkpoint(tmp_path) == tmp_path / "iter_80.pth"
    (tmp_path / "last_checkpoint").write_text("")
    assert compat.latest_checkpoint(tmp_path) == tmp_path / "iter_160.pth"


def dataset(root: Path) -> compat.Config:
    one = {
        "data_root": str(root),
        "data_prefix": {"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
        "ann_file": "ImageSets/Segmentation/train.txt",
    }
    both = {"type": "ConcatDataset", "datasets": [one, one]}
    return compat.Config({"train_dataloader": {"dataset": both}, "val_dataloader": {"dataset": one}})


def test_a_checkpoint_of_another_run_than_its_folder_tells_is_not_gone_on_from(tmp_path: Path) -> None:
    hub = MessageHub.get_instance(tmp_path.name)
    runner = SimpleNamespace(iter=0, work_dir=str(tmp_path), _load_from="iter_3.pth", message_hub=hub)
    run_folder.open_folder(tmp_path, {"lr": 0.1}, True, "--work-dir")
    LoadBackbone(None, "").before_train(runner)
    runner.iter = 3
    LoadBackbone(None, "").before_train(runner)
    (tmp_path / "settings.json").write_text('{"lr": "0.2"}')
    with pytest.raises(InputError, match=r"iter_3\.pth is of another run than .*settings\.json tells"):
        LoadBackbone(None, "").before_train(runner)


def test_what_a_dataset_lacks_is_named_one_step_after_the_other(tmp_path: Path) -> None:
    root = tmp_path / "VOC2012"
    cfg = dataset(root)
    with pytest.raises(FileError, match=r"no dataset folder .*VOC2012; .*prepare_data.*DETECTRON2_DATASETS"):
        data.check(cfg)
    (root / "JPEGImages").mkdir(parents=True)
    with pytest.raises(FileError, match=r"no folder .*SegmentationClass"):
        data.check(cfg)
    (root / "SegmentationClass").mkdir()
    with pytest.raises(FileError, match=r"no list of images .*train\.txt"):
        data.check(cfg)
    listing = root / "ImageSets" / "Segmentation" / "train.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("")
    with pytest.raises(FileError, match=r"train\.txt lists no image"):
        data.check(cfg)
    listing.write_text("a\nb\n")
    Image.new("RGB", (8, 8)).save(root / "JPEGImages" / "a.jpg")
    with pytest.raises(FileError, match=r"1 of 2 files in .*train\.txt are missing, first .*b\.jpg"):
        data.check(cfg)
    Image.new("RGB", (8, 8)).save(root / "JPEGImages" / "b.jpg")
    for name in "ab":
        Image.new("L", (8, 8)).save(root / "SegmentationClass" / f"{name}.png")
    data.check(cfg)
    assert len(list(data.leaves(cfg.train_dataloader.dataset))) == 2


def test_a_head_with_another_number_of_classes_is_refused() -> None:
    with pytest.raises(InputError, match="num_classes is 21, but its dataset has 3 classes"):
        data.check_classes(("a", "b", "c"), 21, Path("config.py"))


def test_class_scores_are_mmsegmentations_unrounded_and_nan_becomes_none() -> None:
    from transfer.frameworks.mmseg.data import ClassIoU, for_json

    metric = ClassIoU(iou_metrics=["mIoU"])
    metric.dataset_meta = {"classes": ("background", "cat", "dog")}
    truth = torch.tensor([[0, 0, 0], [1, 1, 255]])
    guess = torch.tensor([[0, 0, 1], [1, 0, 0]])
    scores = for_json(metric.compute_metrics([ClassIoU.intersect_and_union(guess, truth, 3, 255)]))
    assert scores["seg/IoU-background"] == pytest.approx(50.0)  # 2 of 3 + 1
    assert scores["seg/IoU-cat"] == pytest.approx(100 / 3)
    assert scores["seg/IoU-dog"] is None
    assert scores["seg/mIoU"] == pytest.approx((50 + 100 / 3) / 2)
    assert scores["seg/aAcc"] == pytest.approx(60.0)
    assert scores["seg/mAcc"] == pytest.approx((200 / 3 + 50) / 2)


def test_a_drawing_holds_image_truth_and_prediction_in_the_palettes_colours(tmp_path: Path) -> None:
    Image.new("RGB", (4, 2), (10, 20, 30)).save(tmp_path / "a.png")
    truth, guess = torch.tensor([[0, 1, 1, 255]] * 2), torch.zeros(2, 4, dtype=torch.long)
    sheet = np.asarray(hooks.panels(tmp_path / "a.png", truth, guess, [[0, 0, 0], [128, 0, 0]]))
    assert sheet.shape == (2, 20, 3)
    assert sheet[0, 0].tolist() == [10, 20, 30]
    assert sheet[0, 8:12].tolist() == [[0, 0, 0], [128, 0, 0], [128, 0, 0], [255, 255, 255]]
    assert sheet[0, 16:].tolist() == [[0, 0, 0]] * 4


def randomised(network: nn.Module) -> nn.Module:
    """Give norms other statistics than 0 and 1, so that leaving one out would show."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if "running_var" in name or ("bn" in name and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif "running_mean" in name or name.endswith("bias"):
            tensor.normal_(0, 0.1, generator=generator)
    return network.eval()


def torchvision_stages(network: nn.Module, images: Tensor) -> list[Tensor]:
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    stages = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        stages.append(x)
    return stages


# torchvision dilates bottleneck networks only.
@pytest.mark.parametrize(("depth", "dilated"), [(18, False), (34, False), (50, False), (50, True)])
def test_all_four_stages_agree_with_torchvision(depth: int, dilated: bool) -> None:
    from mmseg.models.backbones import ResNet

    torch.manual_seed(0)
    options = {"replace_stride_with_dilation": [False, True, True]} if dilated else {}
    ours = randomised(getattr(torchvision.models, f"resnet{depth}")(**options))
    shape = {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)} if dilated else {}
    network = ResNet(depth=depth, style="pytorch", contract_dilation=True, norm_eval=False, **shape)
    network.load_state_dict({k: v for k, v in ours.state_dict().items() if not k.startswith("fc.")}, strict=True)
    network.eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        pairs = list(zip(torchvision_stages(ours, images), network(images), strict=True))
    differences = [float((a - b).abs().max()) for a, b in pairs]
    assert max(differences) < 1e-5, differences
    assert min(float(a.abs().max()) for a, _ in pairs) > 0.1  # not equal because all is zero


def test_without_contract_dilation_the_dilated_network_is_another_one() -> None:
    from mmseg.models.backbones import ResNet

    torch.manual_seed(0)
    ours = randomised(torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True]))
    network = ResNet(depth=50, style="pytorch", contract_dilation=False, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    network.load_state_dict({k: v for k, v in ours.state_dict().items() if not k.startswith("fc.")}, strict=True)
    network.eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        differences = [
            float((a - b).abs().max()) for a, b in zip(torchvision_stages(ours, images), network(images), strict=True)
        ]
    assert max(differences[:2]) < 1e-5
    assert differences[2] > 1e-2


# Where the pinned frameworks' code could run what a file says, and why no file of a user comes there.
COULD_RUN = {
    "mmengine/config/config.py": "configs of MMSegmentation, which are programs",
    "mmengine/dataset/base_dataset.py": "its own memory", "mmengine/dist/dist.py": "what processes send each other",
    "mmengine/fileio/handlers/pickle_handler.py": "compat replaces it",
    "mmengine/fileio/handlers/yaml_handler.py": "run.read_config takes .py only",
    "mmengine/runner/checkpoint.py": "compat replaces its loaders",
    "mmengine/utils/dl_utils/hub.py": "checkpoint.py's load_url, which compat replaces",
    "mmseg/utils/class_names.py": "names of functions of its own", "mmseg/utils/io.py": "compat replaces its pickle",
    "mmcv/cnn/rfsearch/search.py": "names of layers in a config", "mmcv/ops/nms.py": "names of functions in a config",
    "detectron2/checkpoint/detection_checkpoint.py": "weights.ProvenCheckpointer overrides it",
    "detectron2/config/lazy.py": "configs that are programs, which run.read_config does not take",
    "detectron2/data/build.py": "MODEL.LOAD_PROPOSALS, which is refused",
    "detectron2/data/common.py": "its own memory", "detectron2/export/caffe2_modeling.py": "not used",
    "detectron2/utils/tracing.py": "text of its own",
    "fvcore/common/checkpoint.py": "weights.ProvenCheckpointer overrides it",
    "fvcore/common/config.py": "run.read_config reads YAML itself",
}  # fmt: skip


def test_the_frameworks_have_no_other_place_that_could_run_what_a_file_says() -> None:
    calls = re.compile(r"(?<![\w.])(torch\.load|pickle\.loads?|yaml\.(?:unsafe_)?load|eval|exec)\(")
    site = Path(str(importlib.util.find_spec("mmengine").origin)).parents[1]
    files = (
        file
        for name in ("mmengine", "mmseg", "mmcv", "detectron2", "fvcore", "iopath")
        for file in (site / name).rglob("*.py")
    )
    found = {file.relative_to(site).as_posix() for file in files if calls.search(file.read_text(errors="replace"))}
    assert {name for name in found if "/.mim/" not in name} == set(COULD_RUN)
