"""Networks of timm go through both frameworks: converted, proven, trained for two iterations and evaluated."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor

from core.backbones.timm import TORCHVISION, Timm, last_module, stages_of
from core.errors import InputError
from core.weights_file import read_weights_file
from transfer.convert.convert import convert
from transfer.convert.recipe import read as recipe_of

MODELS = (
    *("resnet50d", "wide_resnet50_2", "resnext50_32x4d", "regnety_032", "efficientnet_b0", "mobilenetv2_100"),
    *("mobilenetv3_large_100", "mobilenetv4_conv_small", "convnext_tiny", "convnextv2_tiny", "densenet121"),
)
DETECTION = "configs/transfer/detection/mask-rcnn_{}-fpn_8xb2-90k_coco.yaml"
SEGMENTATION = "configs/transfer/segmentation/upernet_{}_4xb4-160k_ade20k-512x512.py"
IMAGE = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that saves a model of timm's with seeded weights, as timm itself would."""
    folder = tmp_path_factory.mktemp("timm")

    def made(model: str) -> Path:
        file = folder / f"{model}.pth"
        if not file.exists():
            torch.manual_seed(0)
            torch.save(timm.create_model(model, pretrained=False).state_dict(), file)
        return file

    return made


def stepped(model: Any, losses: Any) -> list[float]:
    """Train for two iterations; return both losses."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    found = []
    for _ in range(2):
        total = sum(losses().values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        found.append(float(total.detach()))
    return found


def detects(network: Any) -> None:
    """Train a detector for two iterations on one triangle, and evaluate it."""
    from detectron2.structures import Boxes, Instances, PolygonMasks
    from detectron2.utils.events import EventStorage

    truth = Instances((64, 64), gt_boxes=Boxes([[8.0, 8.0, 40.0, 40.0]]), gt_classes=torch.tensor([1]))
    truth.gt_masks = PolygonMasks([[torch.tensor([8.0, 8, 40, 8, 40, 40]).numpy()]])
    given = [{"image": IMAGE, "instances": truth, "height": 64, "width": 64}]
    with EventStorage():
        assert all(0 < loss < 100 for loss in stepped(network.train(), lambda: network(given * 2)))
    with torch.no_grad():
        [found] = network.eval()(given)
    assert found["instances"].image_size == (64, 64)


@pytest.mark.parametrize("model", MODELS)
def test_a_network_of_timm_is_carried_into_detectron2_trained_and_evaluated(
    tmp_path: Path, checkpoint: Any, model: str
) -> None:
    from transfer.frameworks.detectron2 import devices, run, weights  # isort: skip - first: it prepares Detectron2's import
    from detectron2.modeling import build_model

    proof = convert(checkpoint(model), tmp_path / "a.pkl", target="detectron2")
    assert (proof.tensors_mapped, max(proof.max_abs_feature_difference.values())) == (proof.tensors_expected, 0.0)
    config = DETECTION.format("convnext-t" if model == "convnext_tiny" else "timm")
    cfg, explicit = run.read_config(config, ["MODEL.ROI_HEADS.NUM_CLASSES", "3"])
    weights.inject(cfg, recipe_of(tmp_path / "a.pkl") or pytest.fail("no recipe"), explicit, "a.pkl")
    cfg, _ = devices.adapt(cfg, 1, False)
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 20
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 8
    network = build_model(cfg)
    checkpointer = weights.ProvenCheckpointer(network, str(tmp_path))
    checkpointer.resume_or_load(str(tmp_path / "a.pkl"), resume=False)
    assert checkpointer.checked == proof.tensors_expected
    detects(network)


@pytest.mark.parametrize("model", MODELS)
def test_a_network_of_timm_is_carried_into_mmsegmentation_trained_and_evaluated(
    tmp_path: Path, checkpoint: Any, model: str
) -> None:
    from transfer.frameworks.mmseg import compat, devices, run, weights  # isort: skip - first: it prepares the mm* packages
    from mmengine.registry import init_default_scope
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS as REGISTRY
    from mmseg.structures import SegDataSample

    proof = convert(checkpoint(model), tmp_path / "a.pth", target="mmseg")
    assert (proof.tensors_mapped, max(proof.max_abs_feature_difference.values())) == (proof.tensors_expected, 0.0)
    config = Path(SEGMENTATION.format("convnext-t" if model == "convnext_tiny" else "timm"))
    cfg = run.read_config(config, [])
    file = weights.read_weights(tmp_path / "a.pth")
    weights.inject(cfg, file, config)
    devices.adapt(cfg, 1, False)
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.channels, head.num_classes = 16, 3
    init_default_scope("mmseg")
    with compat.quiet():
        network = REGISTRY.build(cfg.model)
    assert weights.load_backbone(network.backbone, file) == proof.tensors_expected
    sample = SegDataSample(metainfo={"img_shape": (64, 64), "ori_shape": (64, 64), "pad_shape": (64, 64)})
    sample.gt_sem_seg = PixelData(data=IMAGE[:1].long() % 3)
    images = IMAGE[None].float().repeat(2, 1, 1, 1) / 255
    assert all(loss == loss for loss in stepped(network.train(), lambda: scalars(network.loss(images, [sample] * 2))))
    with torch.no_grad():
        [found] = network.eval().predict(images[:1], [sample])
    assert found.pred_sem_seg.data.shape == (1, 64, 64)


def scalars(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in losses.items() if "loss" in name}


def test_stem_and_first_stages_stay_as_they_are_when_frozen_and_c4_ends_in_the_networks_own_last_stage() -> None:
    from transfer.frameworks.detectron2 import run, weights  # isort: skip - first: it prepares Detectron2's import
    from detectron2.modeling import build_model

    options = ["MODEL.TIMM.NAME", "resnet50d", "MODEL.TIMM.OUT_FEATURES", "['res4']", "MODEL.BACKBONE.FREEZE_AT", "2"]
    options += ["MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.ROI_HEADS.NAME", "TimmRes5ROIHeads"]
    options += ["MODEL.RPN.POST_NMS_TOPK_TRAIN", "20", "MODEL.RPN.POST_NMS_TOPK_TEST", "10"]
    options += ["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8"]
    cfg, _ = run.read_config(
        "configs/transfer/detection/mask-rcnn_r50-c4_8xb2-90k_coco.yaml", [*options, "MODEL.DEVICE", "cpu"]
    )
    weights.refuse_impossible(cfg)
    network = build_model(cfg).train()
    trunk = network.backbone
    assert not any(name.startswith("network.layer4.") for name in trunk.state_dict())
    learning = {name for name, parameter in trunk.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith(("network.conv1.", "network.bn1.", "network.layer1.")) for name in learning)
    assert any(name.startswith("network.layer2.") for name in learning)
    assert (trunk.network.bn1.training, trunk.network.layer2[0].bn1.training) == (False, True)
    whole = weights.backbone(network.state_dict())
    assert whole.keys() == {n for n in Timm(Timm.Config(model="resnet50d")).state_dict() if "num_batches" not in n}
    before = {name: parameter.clone() for name, parameter in trunk.named_parameters()}
    detects(network)
    moved = {name for name, parameter in trunk.named_parameters() if not torch.equal(parameter, before[name])}
    assert {name for name in learning if ".conv" in name} <= moved <= learning
    with pytest.raises(InputError, match=r"last stage of timm's efficientnet_b0 is no module of its own"):
        last_module("efficientnet_b0")


def test_the_script_pre_trains_one_and_its_checkpoint_is_converted(tmp_path: Path, run_tool: Any) -> None:
    (tmp_path / "timm.yaml").write_text(
        "backbone: {name: timm, model: mobilenetv2_050}\ndata: {name: shapes, count: 16, size: 64}\nviews: {size: 64}\n"
        "method: {name: moco, queue: 32, dim: 8}\n"
        "branches: {filled: {name: mixmask, mask: {name: block, cells: 4, ratio: 0.5}}}\n"
        "train: {epochs: 1, batch_size: 8, workers: 0, log_every: 1}\noptimizer: {lr: 0.01}\n"
    )
    run_tool("pretrain/run.py", "timm.yaml", "run.folder=run")
    steps = [json.loads(line)["loss"] for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    assert len(steps) == 2
    assert all(0 < loss < 20 for loss in steps)
    last = tmp_path / "run" / "checkpoints" / "last.pth"
    proof = convert(last, tmp_path / "a.pkl", target="detectron2")
    assert (proof.source, proof.arch, proof.recipe["pretrain"]["steps"]) == ("ours", "mobilenetv2_050", 2)
    assert proof.tensors_mapped == proof.tensors_expected == len(Timm.names("mobilenetv2_050"))


def test_strides_channels_and_pixels_come_from_timms_own_configuration() -> None:
    assert stages_of("regnety_032")[1] == (72, 216, 576, 1512)
    facts = Timm.facts(Timm.Config(model="mobilenetv2_100"))
    own = timm.get_pretrained_cfg("mobilenetv2_100").to_dict()
    assert facts["mean"] == tuple(round(255 * value, 4) for value in own["mean"])
    assert facts["input_size"] == tuple(own["input_size"][1:])
    for name, reason in (
        ("vit_tiny_patch16_224", "no feature maps of strides 4, 8"),
        ("resnet5O", "did you mean resnet50"),
    ):
        with pytest.raises(InputError, match=reason):
            stages_of(name)


@pytest.mark.parametrize("target", [("timm", "x.safetensors"), ("classification", "x.pth")], ids=lambda t: t[0])
def test_timm_and_classification_take_them_and_a_name_reads_what_no_table_knows(
    tmp_path: Path, checkpoint: Any, target: tuple[str, str]
) -> None:
    file = checkpoint("vgg11_bn")
    with pytest.raises(InputError, match="holds no backbone in a known layout"):
        convert(file, tmp_path / target[1], target=target[0])
    proof = convert(file, tmp_path / target[1], target=target[0], arch="vgg11_bn")
    assert (proof.arch, proof.recipe["model"], proof.recipe["channels"]) == (
        "vgg11_bn",
        "vgg11_bn",
        [256, 512, 512, 512],
    )
    back = convert(tmp_path / target[1], tmp_path / "back.safetensors", target="safetensors")
    assert (back.tensors_sha256, back.arch) == (proof.tensors_sha256, "vgg11_bn")
    held = read_weights_file(tmp_path / "back.safetensors")["state_dict"]
    assert held.keys() <= timm.create_model("vgg11_bn", pretrained=False).state_dict().keys()


@pytest.mark.parametrize("theirs", ["mobilenet_v2", "efficientnet_b0", "efficientnet_b2"])
def test_a_network_of_torchvisions_is_read_as_timms_with_the_same_features(tmp_path: Path, theirs: str) -> None:
    ours = TORCHVISION[theirs]
    network = getattr(torchvision.models, theirs)(weights=None).eval()
    for name, value in network.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    proof = convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", target="timm")
    assert (proof.arch, proof.naming) == (ours, "torchvision")
    same = timm.create_model(ours, pretrained=False, num_classes=0)
    timm.models.load_checkpoint(same, str(tmp_path / "ours.safetensors"), strict=False)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = list(itertools.accumulate(network.features[:-1], lambda seen, part: part(seen), initial=images))
        found = same.eval().forward_intermediates(images, indices=list(stages_of(ours)[0]), intermediates_only=True)
    assert [any(torch.equal(features, one) for one in maps) for features in found] == [True] * 4
