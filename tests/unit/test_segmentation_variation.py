"""A tiny segmentation run keeps the network; a held-out part shares no image with what is trained on."""

from pathlib import Path

import pytest
from PIL import Image
from shipped_configs import SEGMENTATION

from core.errors import InputError
from transfer.frameworks._protocol import held
from transfer.frameworks.mmseg import compat, data, heads, protocol

FOLDER = SEGMENTATION[0].parent


def config(stem: str) -> compat.Config:
    return compat.Config.fromfile(str(next(FOLDER.glob(f"{stem}*.py"))))


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Make a VOC folder of 30 training and 3 test images."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for split, names in {"train": [f"t{i}" for i in range(30)], "val": ["v0", "v1", "v2"]}.items():
        (tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            Image.new("RGB", (80, 70)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
            Image.new("L", (80, 70)).save(tmp_path / "SegmentationClass" / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize("path", SEGMENTATION, ids=lambda path: path.stem)
def test_a_tiny_run_keeps_the_network_but_for_its_classes(path: Path, voc: Path) -> None:
    cfg, before = compat.Config.fromfile(str(path)), compat.Config.fromfile(str(path))
    said = protocol.vary(cfg, str(voc), 1.0, 0.0)
    assert said == [f"tiny: 4 iterations on {voc}; this measures nothing"]
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
    assert protocol.vary(cfg, str(voc), 0.5, 0.0)[1:] == ["lr times 0.5"]
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
    assert names[0] | names[1] == {f"t{i}" for i in range(30)}
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


def test_a_folder_in_coco_layout_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    with pytest.raises(InputError, match=r"no folder in VOC layout .*coco-to-voc, or give 'shapes'"):
        protocol.shorten(config("fcn_r50-d8_4xb4-20k"), str(tmp_path))


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
