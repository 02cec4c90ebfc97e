"""Classification reads its data, draws its subsets, proves its backbone frozen, and refuses what it cannot measure."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from core.backbones.resnet import ResNet
from core.config import parse
from core.data import _cifar_batches
from core.data.cifar import Cifar
from core.data.imagefolder import ImageFolder, split_of_files
from core.data.shapes import Shapes
from core.data.tiny_imagenet import TinyImagenet
from core.errors import InputError
from core.provenance import ROOT
from core.shapes import render
from transfer import benchmarks
from transfer.convert.recipe import Recipe
from transfer.frameworks.classification import views
from transfer.frameworks.classification.features import Frozen, FrozenError
from transfer.frameworks.classification.job import check_recipe, read
from transfer.frameworks.classification.tasks.linear import Linear
from transfer.frameworks.classification.views import Subset, Views, ViewSettings

CONFIGS = sorted((ROOT / "configs/transfer/classification").glob("*.yaml"))
ROWS = [row for row in benchmarks.shipped().values() if row.framework == "classification"]


def picture(path, value, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, dtype=np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("ant", "bee")):
            for number in range(count):
                picture(tmp_path / "set" / split / name / f"{name}_{number}.png", 100 * label + number)
    return tmp_path / "set"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_reads_and_belongs_to_a_benchmark(path):
    settings = read(path)
    assert (settings.input.mean, settings.input.std) == (Recipe().mean, Recipe().std)
    assert str(path.relative_to(ROOT)) in {row.config for row in ROWS}


def test_a_contradicting_recipe_is_refused():
    with pytest.raises(InputError, match=r"input.mean is \(123.675, .*, but w.pth was pre-trained with \(0.0, "):
        check_recipe(read(CONFIGS[0]), Recipe(mean=(0.0, 0.0, 0.0)), "w.pth")


def test_class_folders_become_labels_in_the_order_of_their_names(folders):
    data = ImageFolder.Splits(root=folders).read()
    assert data.classes == ("ant", "bee")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test.names[2] == "bee/bee_0.png"
    assert data.test.image(2).shape == (3, 8, 8)
    assert data.test.image(3).unique().tolist() == [101]


def test_a_class_list_keeps_its_classes_in_its_order(folders, tmp_path):
    (tmp_path / "list.txt").write_text("bee  # comment\n")
    data = ImageFolder.Splits(root=folders, class_list=tmp_path / "list.txt").read()
    assert (data.classes, data.train.labels.tolist()) == (("bee",), [0, 0, 0])


def test_missing_data_is_named_with_the_tool_that_makes_it(tmp_path, folders):
    with pytest.raises(InputError, match=r"no .*nowhere/train; unpack the data set with tools/prepare_data.py"):
        ImageFolder.Splits(root=tmp_path / "nowhere").read()
    with pytest.raises(InputError, match=r"cannot read .*wnids.txt .*; unpack it again"):
        TinyImagenet.Splits(root=tmp_path / "nowhere").read()
    picture(folders / "test" / "cat" / "a.png", 0)
    with pytest.raises(InputError, match="only one of train and test has the class cat"):
        ImageFolder.Splits(root=folders).read()


def test_a_damaged_image_is_named(folders):
    (folders / "test" / "ant" / "ant_0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"ant_0.png cannot be decoded"):
        ImageFolder.Splits(root=folders).read().test.image(0)


def test_tiny_imagenet_is_read_in_its_own_layout(tmp_path):
    (tmp_path / "wnids.txt").write_text("n2\nn1\n")
    for wnid in ("n1", "n2"):
        picture(tmp_path / "train" / wnid / "images" / f"{wnid}_0.JPEG", 10)
    picture(tmp_path / "val" / "images" / "val_0.JPEG", 20)
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn2\t0\t0\t1\t1\n")
    data = TinyImagenet.Splits(root=tmp_path).read()
    assert data.classes == ("n1", "n2")
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1], [1])
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn9\n")
    with pytest.raises(InputError, match=r"not a file name and a wnid of wnids.txt"):
        TinyImagenet.Splits(root=tmp_path).read()


def test_published_cifar_is_read_from_its_binary_files(tmp_path, monkeypatch):
    form = _cifar_batches.FORMS[1]._replace(records={"train": 200, "test": 100})
    monkeypatch.setattr(_cifar_batches, "FORMS", [form])
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for split, count in form.records.items():
        records = np.zeros((count, 2 + 3072), dtype=np.uint8)
        records[:, 1] = np.arange(count) % 100
        records[:, 2] = 7
        records.tofile(folder / f"{split}.bin")
    data = Cifar.Splits(root=tmp_path).read()
    assert len(data.classes) == 100
    assert data.train.labels.tolist() == [*range(100), *range(100)]
    image = data.test.image(5)
    assert image.shape == (3, 32, 32)
    assert (image[0, 0, 0], image.sum()) == (7, 7)
    half = views.choose(data.train, Subset(share=0.5), seed=0)
    assert sorted(half.labels.tolist()) == list(range(100))
    assert len(set(half.identity)) == 100


def test_the_embedded_set_labels_a_scene_with_the_class_of_its_object():
    data = Shapes.Splits(train=6, test=3, size=48).read()
    row = data.train.names.index("3000/4")
    scene = render(3000, 4, 48, centred=True)
    assert data.train.labels[row] == scene.objects[0].label
    assert torch.equal(data.train.image(row), torch.from_numpy(scene.image).permute(2, 0, 1))


def test_a_share_takes_exactly_as_many_of_every_class_and_at_least_one():
    labels = [0] * 40 + [1] * 20 + [2] * 4
    rows = views.balanced(labels, 0.1, seed=1)
    assert Counter(labels[row] for row in rows) == {0: 4, 1: 2, 2: 1}
    assert rows == sorted(set(rows))
    assert views.balanced(labels, 0.1, seed=1) == rows
    assert views.balanced(labels, 0.1, seed=2) != rows
    assert views.balanced(labels, 1.0, seed=1) == list(range(64))


def test_a_list_takes_the_images_it_names(folders, tmp_path):
    split, path = ImageFolder.Splits(root=folders).read().train, tmp_path / "one_percent.txt"
    path.write_text("bee_1.png\nant/ant_2.png\n\n")
    chosen = views.choose(split, Subset(list=path), seed=0)
    assert chosen.names == ["ant/ant_2.png", "bee/bee_1.png"]
    assert chosen.labels.tolist() == [0, 1]
    assert chosen.image(1).unique().tolist() == [101]
    path.write_text("wasp.png\n")
    with pytest.raises(InputError, match=r"one_percent.txt: wasp.png is no training image"):
        views.choose(split, Subset(list=path), seed=0)
    with pytest.raises(InputError, match=r"no list of images at none.txt"):
        views.listed(split.names, tmp_path.relative_to(tmp_path) / "none.txt")
    with pytest.raises(ValueError, match="share or list"):
        Subset(list=path, share=0.1)


def test_a_frozen_backbone_that_changes_is_found_out_its_batch_statistics_included():
    network = ResNet(ResNet.Config(depth=18, width=4, stem="cifar"))
    frozen = Frozen(network)
    network(torch.randn(2, 3, 8, 8))
    assert frozen.check() == len(network.state_dict())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    network.train()(torch.randn(2, 3, 8, 8))
    with pytest.raises(FrozenError, match=r"bn1.running_mean of the frozen backbone changed"):
        frozen.check()


def test_a_test_view_is_resized_and_cropped_and_other_sizes_are_refused(tmp_path):
    picture(tmp_path / "wide.png", 50, (16, 40))
    split = split_of_files(tmp_path, [(tmp_path / "wide.png", 0)])
    assert Views(split, ViewSettings(size=8, resize=10))[0].shape == (3, 8, 8)
    with pytest.raises(InputError, match=r"wide.png is 40x16 pixels, not 8x8; set views.resize"):
        Views(split, ViewSettings(size=8, resize=None))[0]


@pytest.mark.parametrize("augment", ["pad_flip", "crop_flip"])
def test_a_training_view_is_a_function_of_its_place_and_leaves_torchs_generator_alone(tmp_path, augment):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    split = split_of_files(tmp_path, [(tmp_path / "a.png", 0)])
    before = torch.get_rng_state()
    settings = ViewSettings(size=16, resize=None)
    found = [Views(split, settings, augment, (3, epoch))[0] for epoch in (0, 0, 1, 2)]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(found[0], found[1])
    assert any(not torch.equal(found[0], other) for other in found[2:])


def test_batches_come_in_the_order_asked_for(folders):
    split = ImageFolder.Splits(root=folders).read().train
    found = list(views.batches(Views(split, ViewSettings(size=8, resize=None)), [5, 0, 3], 2, workers=0))
    assert [rows.tolist() for _, rows in found] == [[5, 0], [3]]
    assert found[0][0][:, 0, 0, 0].tolist() == [102, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"milestones": [5]}, "milestones belong to schedule: steps"),
        ({"schedule": "steps", "milestones": [7, 3]}, r"milestones \[7, 3\] must ascend and lie below epochs \(10\)"),
        ({"schedule": "steps", "milestones": [10]}, "must ascend and lie below epochs"),
        ({"standardise": True, "augment": "crop_flip"}, "standardise needs fixed features"),
        ({"lr": 0}, "lr: Input should be greater than 0"),
    ],
)
def test_a_training_that_makes_no_sense_is_refused_with_the_reason(changes, message):
    with pytest.raises(InputError, match=message):
        parse(Linear.Config, {"lr": 1.0, "epochs": 10, "schedule": "cosine", **changes})
