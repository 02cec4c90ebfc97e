"""Every shipped segmentation config does what its name says; it is fitted to the devices, shortened, and split."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shipped_configs import SEGMENTATION, Name, load_segmentation, shipped

from core.errors import InputError
from core.shapes import CLASSES
from transfer.convert.recipe import Recipe
from transfer.datasets.voc import write_labels
from transfer.frameworks._protocol import harmless, held
from transfer.frameworks.mmseg import compat, data, devices, heads, protocol, weights
from transfer.frameworks.mmseg.data import leaves

FOLDER = SEGMENTATION[0].parent
RESNETS = [path for path in SEGMENTATION if not Name("segmentation", path)["family"]]


def test_there_are_configs_for_each_protocol_of_the_design_for_the_small_network_and_for_each_tiny_set() -> None:
    names = [Name("segmentation", path) for path in SEGMENTATION]
    assert {(name["method"], name["depth"], name["data"], name["length"]) for name in names} >= {
        ("fcn", 50, "voc12aug", 20000), ("fcn", 50, "voc12aug", 40000), ("fcn", 18, "voc12aug", 20000),
        ("fcn-16s", 50, "voc12aug", 30000), ("fcn", 50, "cityscapes", 40000), ("fcn", 50, "cityscapes", 80000),
        ("fcn", 50, "ade20k", 80000), ("upernet", 50, "ade20k", 80000), ("fcn", 18, "shapes", 280),
        ("fcn", 50, "tiny-coco-voc", 200),
    }  # fmt: skip


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
    devices.adapt(cfg, processes=1, cuda=False)
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
    devices.adapt(cfg, processes=1, cuda=False)
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
        [21000, 27000],
        0.1,
        1e-4,
    )


def test_the_classes_of_shapes_are_the_renderers() -> None:
    path = next(path for path in SEGMENTATION if Name("segmentation", path)["data"] == "shapes")
    cfg = load_segmentation(path)
    for dataset in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset):
        assert tuple(dataset.metainfo.classes) == ("background", *CLASSES)
        assert len(dataset.metainfo.palette) == cfg.model.decode_head.num_classes == len(CLASSES) + 1


R50 = Path(__file__).parents[2] / "configs/transfer/segmentation/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py"


def voc_fcn() -> compat.Config:
    cfg = compat.Config.fromfile(str(R50))
    warm_up = {"type": "LinearLR", "start_factor": 0.1, "begin": 0, "end": 100, "by_epoch": False}
    steps = {"type": "MultiStepLR", "milestones": [14000, 18000], "by_epoch": False}
    cfg.param_scheduler = [*cfg.param_scheduler, warm_up, steps]
    return cfg


def test_on_the_published_number_of_devices_nothing_changes() -> None:
    cfg = voc_fcn()
    before = cfg.pretty_text
    recipes, _ = devices.adapt(cfg, processes=4, cuda=True)
    assert recipes["effective"] == recipes["published"]
    assert cfg.pretty_text == before
    assert recipes["published"]["norm"] == "SyncBN"
    assert recipes["published"]["batch"] == 16


def config(stem: str) -> compat.Config:
    return compat.Config.fromfile(str(next(FOLDER.glob(f"{stem}*.py"))))


@pytest.fixture
def voc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder of 30 training and 3 test images, with label maps in VOC's colours."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "root"))
    tmp_path = tmp_path / "set"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for split, names in {"train": [f"t{i}" for i in range(30)], "val": ["v0", "v1", "v2"]}.items():
        (tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            Image.new("RGB", (80, 70)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
            write_labels(tmp_path / "SegmentationClass" / f"{name}.png", np.full((70, 80), 3, dtype=np.uint8))
    return tmp_path


@pytest.mark.parametrize("path", SEGMENTATION, ids=lambda path: path.stem)
def test_a_tiny_run_keeps_the_network_but_for_its_classes(path: Path, voc: Path) -> None:
    cfg, before = compat.Config.fromfile(str(path)), compat.Config.fromfile(str(path))
    said = protocol.vary(cfg, str(voc), 1.0, 0.0)
    assert said[0] == "data: set, 21 classes (background, aeroplane, bicycle, ...)"
    assert said[1:] == [f"tiny: 4 iterations on {voc}; this measures nothing"]
    assert cfg.model.backbone == before.model.backbone
    for (_, head), (_, old) in zip(heads.every(cfg.model), heads.every(before.model), strict=True):
        assert head.num_classes == 21
        changed = {key for key in old if head.get(key) != old[key]}
        assert changed <= {"num_classes", "loss_decode"}
    assert cfg.train_cfg.max_iters == 4
    assert [scheduler.type for scheduler in cfg.param_scheduler][-1] == before.param_scheduler[-1].type
    assert max(scheduler.end for scheduler in cfg.param_scheduler) == 4
    assert cfg.train_dataloader.batch_size == protocol.BATCH


def test_a_sweep_moves_the_lowest_rate_too(voc: Path) -> None:
    cfg, before = config("fcn_r50-d8_1xb4-200i"), config("fcn_r50-d8_1xb4-200i")
    assert protocol.vary(cfg, str(voc), 0.5, 0.0)[-1] == "lr times 0.5"
    assert cfg.optim_wrapper.optimizer.lr == before.optim_wrapper.optimizer.lr / 2
    assert cfg.param_scheduler[-1].eta_min == before.param_scheduler[-1].eta_min / 2


def test_held_out_and_kept_images_are_disjoint_and_complete_and_mmsegmentation_takes_them(voc: Path) -> None:
    from mmengine.registry import init_default_scope
    from mmseg.registry import DATASETS

    cfg = config("fcn_r50-d8_4xb4-20k")
    said = protocol.vary(cfg, str(voc), 1.0, 0.2)
    assert said[-1] == "20% of the training images are held out and tested on instead of the test set"
    init_default_scope("mmseg")
    with compat.quiet():
        kept, held = (DATASETS.build(cfg[f"{name}_dataloader"].dataset) for name in ("train", "val"))
    names = [{Path(part.get_data_info(i)["img_path"]).stem for i in range(len(part))} for part in (kept, held)]
    assert names[0] | names[1] == {f"{number:06d}" for number in range(1, 31)}
    assert not names[0] & names[1]
    assert 2 <= len(names[1]) <= 12
    assert [step["type"] for step in cfg.val_dataloader.dataset.pipeline][1] == "Resize"  # tested as the test set is


def test_a_held_out_part_is_chosen_by_the_names_of_its_images_wherever_they_lie() -> None:
    names = [f"2007_{index:06d}" for index in range(200)]
    assert [held(f"JPEGImages/{name}.jpg", 0.1) for name in names] == [held(name, 0.1) for name in names]
    assert 8 <= sum(held(name, 0.1) for name in names) <= 34


def test_a_part_without_images_is_refused(voc: Path) -> None:
    (voc / "ImageSets" / "Segmentation" / "train.txt").write_text("t1\n")
    with pytest.raises(InputError, match=r"--hold-out 0\.2: 1 images in .* are too few for that part"):
        protocol.vary(config("fcn_r50-d8_4xb4-20k"), str(voc), 1.0, 0.2)


def test_a_folder_without_label_maps_is_refused_with_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "train.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(InputError, match=r"holds no label maps .*; it has coco; docs/your-data\.md shows the layouts"):
        protocol.use_own(config("fcn_r50-d8_4xb4-20k"), str(tmp_path))


def test_a_damaged_image_and_label_map_are_named(voc: Path) -> None:
    from mmengine.registry import init_default_scope
    from mmseg.registry import DATASETS

    cfg = config("fcn_r50-d8_4xb4-20k")
    protocol.use_own(cfg, str(voc))
    data.name_files(cfg)
    init_default_scope("mmseg")
    with compat.quiet():
        found = DATASETS.build(cfg.val_dataloader.dataset)
    for index, key in enumerate(("img_path", "seg_map_path")):
        path = Path(found.get_data_info(index)[key])
        path.unlink()
        path.write_bytes(b"no image")
        with pytest.raises(InputError, match=rf"{path} cannot be used \(.*\); copy it again"):
            found[index]


def test_miou_on_a_users_label_maps_is_that_of_a_numpy_confusion_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a config whose own data counts classes from 1 (``reduce_zero_label``), so that a wrong shift would show."""
    from mmengine.registry import init_default_scope
    from mmseg.registry import DATASETS

    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "root"))
    random, place = np.random.default_rng(0), tmp_path / "set"
    truth = {f"img {i}": random.choice([0, 1, 2, 3, 255], (30, 40)).astype(np.uint8) for i in range(6)}
    for name, labels in truth.items():
        for folder, image in (("images", np.zeros((30, 40, 3), np.uint8)), ("masks", labels)):
            (place / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / folder / f"{name}.png")
    (place / "classes.txt").write_text("road\ncar\ntree\nsky\n")
    cfg = config("fcn_r50-d8_4xb4-80k_ade20k")
    protocol.use_own(cfg, str(place))
    assert [head.num_classes for _, head in heads.every(cfg.model)] == [4, 4]
    init_default_scope("mmseg")
    metric = data.ClassIoU()
    confusion = np.zeros((4, 4))
    with compat.quiet():
        found = DATASETS.build(cfg.val_dataloader.dataset)
        metric.dataset_meta = found.metainfo
        for sample in found:
            labels, size = sample["data_samples"].gt_sem_seg.data, sample["data_samples"].ori_shape
            own_labels = next(one for one in truth.values() if np.array_equal(one, labels[0].numpy()))
            guess = random.integers(0, 4, size)
            guess = np.where(random.random(size) < 0.6, own_labels % 4, guess)
            metric.process({}, [{"pred_sem_seg": {"data": torch.tensor(guess)[None]}, "gt_sem_seg": {"data": labels}}])
            seen = own_labels != 255
            np.add.at(confusion, (own_labels[seen], guess[seen]), 1)
    right = np.diag(confusion)
    expected = 100 * np.mean(right / (confusion.sum(0) + confusion.sum(1) - right))
    assert 20 < expected < 80
    assert metric.compute_metrics(metric.results)["mIoU"] == pytest.approx(expected, abs=1e-9)


def test_a_drawing_that_fails_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    with harmless("drawing a prediction"):
        raise ValueError("palette\nand more")
    said = "warning: drawing a prediction failed (ValueError: palette); the numbers do not depend on it\n"
    assert capsys.readouterr().err == said


def test_a_half_copied_cityscapes_is_refused(tmp_path: Path) -> None:
    cfg = config("fcn_r50-d8_4xb2-40k_cityscapes")
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(tmp_path)
    for split in ("train", "val"):
        for folder, suffix in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelTrainIds")):
            place = tmp_path / folder / split / "ulm"
            place.mkdir(parents=True)
            Image.new("L", (8, 8)).save(place / f"ulm_000000_000019_{suffix}.png")
    assert [path.name for path in data.images(cfg.val_dataloader.dataset)] == ["ulm_000000_000019_leftImg8bit.png"]
    with pytest.raises(InputError, match=r"train has 1 images, 2975 are published"):
        data.check(cfg)
    next((tmp_path / "gtFine" / "train").rglob("*.png")).unlink()
    with pytest.raises(
        InputError, match=r"1 of 1 files in .*leftImg8bit/train are missing, first .*labelTrainIds\.png"
    ):
        data.check(cfg)


@pytest.mark.parametrize(
    ("stem", "dilations"),
    [
        ("fcn-16s_r50-d16_8xb2-30k", [1, 2, 2]),
        ("fcn-16s_r50-d16-slotcon_8xb2-30k", [1, 2, 2]),
        ("fcn-16s_r50-d16-moco_8xb2-30k", [2, 2, 2]),  # "the 3x3 convolutions in conv5 blocks have dilation 2"
        ("fcn-16s_r50-d16-moco_8xb2-90k", [2, 2, 2]),
    ],
)
def test_res5_is_dilated_as_the_text_or_the_release_says(stem: str, dilations: list[int]) -> None:
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    cfg = config(stem)
    devices.adapt(cfg, 1, cuda=False)
    init_default_scope("mmseg")
    with compat.quiet(), torch.device("meta"):
        network = MODELS.build(cfg.model)
    assert [block.conv2.dilation[0] for block in network.backbone.layer4] == dilations
    assert network.decode_head.align_corners is ("slotcon" in stem)


def test_convnexts_rates_fall_from_stage_to_stage_as_in_its_release() -> None:
    """Stem and downsamplings are 0.9^7 of the rate, stage i is 0.9^(6 - i), all else has it whole."""
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    cfg = config("upernet_convnext-t-official")
    devices.adapt(cfg, 1, cuda=False)
    init_default_scope("mmseg")
    with compat.quiet(), torch.device("meta"):
        network = MODELS.build(cfg.model)
        groups = build_optim_wrapper(network, cfg.optim_wrapper).optimizer.param_groups
    found = {id(weight): (group["lr"], group["weight_decay"]) for group in groups for weight in group["params"]}
    for name, weight in network.named_parameters():
        _, part, stage, *_ = name.split(".")
        above = 7 if part == "downsample_layers" else 6 - int(stage) if part == "stages" else 0
        plain = weight.ndim == 1 or name.endswith(".bias")
        assert found[id(weight)] == (pytest.approx(1e-4 * 0.9**above), 0.0 if plain else 0.05), name
    assert (cfg.model.test_cfg.mode, cfg.model.test_cfg.stride) == ("slide", (341, 341))


@pytest.mark.parametrize(("stem", "black"), [("fcn_r50-d8_4xb4-20k_voc12aug", True), ("fcn_r50-d8-pad0", False)])
def test_a_small_image_is_padded_before_or_after_normalisation(stem: str, black: bool) -> None:
    import numpy as np
    from mmcv.transforms import Compose
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    cfg = config(stem)
    init_default_scope("mmseg")
    steps = next(leaves(cfg.train_dataloader.dataset)).pipeline
    kept = [step for step in steps if step["type"] in ("Pad", "PackSegInputs")]
    image = {"img": np.full((400, 500, 3), 255, np.uint8), "gt_seg_map": np.zeros((400, 500), np.uint8)}
    with compat.quiet():
        packed = Compose(kept)({**image, "seg_fields": ["gt_seg_map"], "img_shape": (400, 500)})
        batch = {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}
        pixels = MODELS.build(cfg.model.data_preprocessor)(batch, training=True)["inputs"]
    assert pixels.shape == (1, 3, 512, 512)
    red = -123.675 / 58.395 if black else 0.0
    assert float(pixels[0, 0, 511, 511]) == pytest.approx(red, abs=1e-5)


def test_only_one_convolution_learns_on_frozen_features() -> None:
    from mmengine.registry import init_default_scope
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    cfg = config("linear_r18w16-d32")
    path = FOLDER / "linear_r18w16-d32_1xb16-280i_shapes-64x64.py"
    weights.inject(cfg, weights.Weights(path, {}, Recipe(depth=18, width=16)), path)
    effective = devices.adapt(cfg, 1, cuda=False)[0]["effective"]
    assert (effective["norm"], effective["norm_group"]) == ("frozen", 0)
    init_default_scope("mmseg")
    with compat.quiet():
        network = MODELS.build(cfg.model).train()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        assert [name for name, weight in network.named_parameters() if weight.requires_grad] == [
            *("decode_head.conv_seg.weight", "decode_head.conv_seg.bias")
        ]
        assert network.decode_head.conv_seg.weight.shape == (9, 32 + 64 + 128, 1, 1)
        truth = SegDataSample(gt_sem_seg=PixelData(data=torch.ones(1, 64, 64, dtype=torch.long)))
        batch = {"inputs": [torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8)] * 2, "data_samples": [truth] * 2}
        optimizer = torch.optim.SGD([w for w in network.parameters() if w.requires_grad], lr=1.0)
        network.parse_losses(network(**network.data_preprocessor(batch, training=True), mode="loss"))[0].backward()
        optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"decode_head.conv_seg.weight", "decode_head.conv_seg.bias"}
