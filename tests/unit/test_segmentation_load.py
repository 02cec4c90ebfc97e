"""The whole backbone comes from the file, no file runs code, and what is missing is said before training."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from core.errors import InputError
from core.files import FileError
from transfer.convert.load_check import LoadError
from transfer.frameworks.mmseg import compat, data, hooks
from transfer.frameworks.mmseg.weights import Weights, check_backbone, load_backbone


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
    from mmengine.runner.checkpoint import CheckpointLoader

    target, file = tmp_path / "ran", tmp_path / "iter_1.pth"
    content = {"state_dict": {}, "meta": kind(target)}
    if zipped:
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(FileError, match=r"iter_1\.pth"):
        CheckpointLoader.load_checkpoint(str(file), map_location="cpu")
    assert not target.exists()


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
