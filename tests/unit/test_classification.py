"""Classification reads its data, proves its backbone frozen, trains as its formulas say, and goes on when it was killed."""

import dataclasses
import itertools
import math
import signal
import time
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from core import journal
from core.backbones.resnet import ResNet
from core.config import parse
from core.data import Labelled, Split, cifar
from core.data.cifar import Cifar
from core.data.imagefolder import ImageFolder, split_of_files
from core.data.shapes import Shapes
from core.data.tiny_imagenet import TinyImagenet
from core.data.voc import Voc
from core.errors import InputError
from core.provenance import ROOT, derive
from core.shapes import render
from core.stopping import Sitting, stop_signals
from transfer import benchmarks
from transfer.convert.recipe import Recipe
from transfer.datasets import voc
from transfer.frameworks.classification import features, training, views
from transfer.frameworks.classification.features import Frozen, FrozenError
from transfer.frameworks.classification.job import ClassificationSettings, Job, check_recipe, read
from transfer.frameworks.classification.tasks import svm
from transfer.frameworks.classification.tasks.finetune import Finetune
from transfer.frameworks.classification.tasks.knn import Knn
from transfer.frameworks.classification.tasks.linear import Linear
from transfer.frameworks.classification.training import accuracies, fit, new_head
from transfer.frameworks.classification.views import Subset, Views, ViewSettings, shuffled

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


def test_class_folders_of_cifar_lie_below_the_folder_of_data_sets_even_where_that_is_relative(folders, monkeypatch):
    monkeypatch.chdir(folders.parent.parent)
    monkeypatch.setenv("DETECTRON2_DATASETS", folders.parent.name)
    assert Cifar.Splits(root="set").read().classes == ("ant", "bee")


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
    form = cifar.FORMS[1]._replace(records={"train": 200, "test": 100})
    monkeypatch.setattr(cifar, "FORMS", [form])
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
    picture(tmp_path / "left.png", 50, (16, 40))
    with Image.open(tmp_path / "left.png") as image:
        image.paste((250, 250, 250), (0, 0, 10, 16))
        image.save(tmp_path / "left.png")
    left = split_of_files(tmp_path, [(tmp_path / "left.png", 0)])
    whole = Views(left, ViewSettings(size=8, resize="stretch"))[0].float().mean(dim=(0, 1))
    assert whole[[0, 3, 7]].tolist() == pytest.approx([250, 50, 50], abs=5)  # a quarter of the width stays one
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


MEAN, STD = Recipe().mean, Recipe().std
FINETUNE = {"name": "finetune", "head_lr": 0.5, "augment": "pad_flip", "batch": 8, "epochs": 4, "schedule": "cosine"}
LINEAR = {"name": "linear", "batch": 8, "epochs": 4, "schedule": "cosine"}


def pictures(count, seed):
    """Make dim and bright noise: two classes that differ in brightness."""
    generator = torch.Generator().manual_seed(seed)
    labels = [row % 2 for row in range(count)]
    images = torch.randint(0, 100, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    images += 60 * torch.tensor(labels, dtype=torch.uint8).view(-1, 1, 1, 1)
    names = [f"{seed}/{row}" for row in range(count)]
    return Split(names, labels, lambda index: images[index], names)


def job(folder, task, resume=False, seed=5):
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    settings = ClassificationSettings.model_validate(
        {
            "input": {"mean": MEAN, "std": STD},
            "views": {"size": 16, "resize": None},
            "data": {"name": "shapes"},
            "task": task,
            "chunk": 7,
        }
    )
    network = ResNet(ResNet.Config(depth=18, width=4, stem="cifar"))
    device = torch.device("cpu")
    data = Labelled(("dim", "bright"), pictures(30, 1), pictures(10, 2))
    sitting = Sitting(folder, time.monotonic(), resume)
    return Job(network, Recipe(), "weights", data, settings, seed, folder, device, resume, sitting)


def slow_sgd(rows, labels, weight, config, seed):
    """Follow SGD with momentum on the softmax's cross-entropy: v = m v + (g + wd w), w = w - lr v."""
    bias = np.zeros(len(weight))
    speed = [np.zeros_like(weight), np.zeros_like(bias)]
    for epoch in range(config["epochs"]):
        drop = sum(epoch >= milestone for milestone in config["milestones"])
        lr = config["lr"] * config["batch"] / 256 * config["factor"] ** drop
        order = shuffled(len(rows), seed, epoch).numpy()
        for start in range(0, len(rows), config["batch"]):
            x, y = rows[order[start : start + config["batch"]]], labels[order[start : start + config["batch"]]]
            scores = np.exp(x @ weight.T + bias)
            error = scores / scores.sum(axis=1, keepdims=True)
            error[np.arange(len(y)), y] -= 1
            for part, values, gradient in ((0, weight, error.T @ x / len(y)), (1, bias, error.mean(axis=0))):
                speed[part] = config["momentum"] * speed[part] + gradient + config["weight_decay"] * values
                values -= lr * speed[part]
    return weight, bias


def test_a_linear_probe_equals_sgd_written_out(tmp_path):
    config = {
        "lr": 3.0, "momentum": 0.9, "weight_decay": 0.01, "batch": 7, "epochs": 6, "schedule": "steps",
        "milestones": [2, 4], "factor": 0.1,
    }  # fmt: skip
    here = job(tmp_path / "run", {"name": "linear", "standardise": True, "augment": "flip_copies", **config})
    Linear(here.settings.task).measure(here)
    found = torch.load(here.folder / "last.pth", weights_only=True)["parts"]["head"]
    with torch.no_grad():
        images = torch.stack([here.data.train.image(row) for row in range(30)])
        rows = here.network(here.normalised(torch.cat([images, images.flip(-1)]))).double().numpy()
    rows = (rows - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0) + 1e-5)
    labels = np.tile(here.data.train.labels.numpy(), 2)
    weight, bias = slow_sgd(rows, labels, new_head(32, 2, 5).weight.detach().double().numpy(), config, 5)
    np.testing.assert_allclose(found["weight"].numpy(), weight, atol=2e-5)
    np.testing.assert_allclose(found["bias"].numpy(), bias, atol=2e-5)


def test_one_lars_step_moves_each_tensor_by_a_share_of_its_own_norm():
    settings = Linear.Config(optimizer="lars", lr=0.1, momentum=0.0, batch=4096, epochs=2, schedule="cosine")
    weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    optimizer = settings.build([{"params": [weight]}])
    group = optimizer.param_groups[0]
    assert group["peak"] == pytest.approx(1.6)  # 0.1 * 4096 / 256
    group["lr"] = group["peak"]
    weight.grad = torch.tensor([[0.0, 50.0]])
    optimizer.step()
    # lr * 0.001 * |w| / |g| * g = 1.6 * 0.001 * 5 in the gradient's direction
    torch.testing.assert_close(weight.detach(), torch.tensor([[3.0, 4.0 - 0.008]]))


def test_schedules_follow_their_formulas():
    steps = Linear.Config(lr=30.0, epochs=100, schedule="steps", milestones=(60, 80))
    assert [steps.share(epoch) for epoch in (0, 59, 60, 79, 80, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    cosine = Linear.Config(lr=0.1, epochs=90, schedule="cosine")
    assert [cosine.share(epoch) for epoch in (0, 45, 89)] == pytest.approx(
        [1, 0.5, (1 + math.cos(math.pi * 89 / 90)) / 2]
    )
    warm = Linear.Config(lr=0.1, epochs=10, schedule="cosine", warm_up=1)
    assert [warm.share(0), warm.share(1)] == [0.5, 1.0]


def test_top5_is_told_only_where_there_are_more_than_ten_classes():
    logits = torch.arange(12.0).repeat(4, 1)  # class 11 scores highest, then 10, ...
    assert accuracies(logits, torch.tensor([11, 10, 7, 6]), "linear") == {"linear/top1": 25.0, "linear/top5": 75.0}
    assert accuracies(logits[:, :10], torch.tensor([9, 8, 7, 6]), "linear") == {"linear/top1": 25.0}


@pytest.mark.parametrize("settings", [{**LINEAR, "lr": 2.0, "augment": "pad_flip"}, {**FINETUNE, "lr": 0.1}])
def test_a_killed_training_goes_on_and_ends_as_if_it_had_not_been(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    task = {"linear": Linear, "finetune": Finetune}[settings["name"]]

    def measure(folder, resume=False):
        here = job(folder, settings, resume)
        return task(here.settings.task).measure(here), torch.load(folder / "last.pth", weights_only=True)["parts"]

    whole, states = measure(tmp_path / "whole")
    log = training.Journal.log

    def dies(self, step, **values):
        if self.path.parent.name == "killed" and step == 3:
            raise KeyboardInterrupt
        log(self, step, **values)

    with monkeypatch.context() as killing:
        killing.setattr(training.Journal, "log", dies)
        with pytest.raises(KeyboardInterrupt):
            measure(tmp_path / "killed")
    resumed, again = measure(tmp_path / "killed", resume=True)
    assert resumed == whole
    assert journal.read(tmp_path / "killed" / "journal.jsonl") == journal.read(tmp_path / "whole" / "journal.jsonl")
    for part in ("head", "network") if "network" in states else ("head",):
        assert all(torch.equal(value, again[part][name]) for name, value in states[part].items())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_in_the_middle_of_an_epoch_saves_and_the_training_goes_on_from_the_next_batch(
    tmp_path, monkeypatch, number
):
    settings = {**FINETUNE, "lr": 0.1, "augment": "pad_flip", "batch": 8}
    whole = job(tmp_path / "whole", settings)
    metrics = Finetune(whole.settings.task).measure(whole)
    here = job(tmp_path / "stopped", settings)
    log = training.Journal.log

    def asks(self, step, **values):
        log(self, step, **values)
        signal.raise_signal(number)

    with monkeypatch.context() as patch, stop_signals(here.sitting.stop):
        patch.setattr(training.Journal, "log", asks)
        with pytest.raises(SystemExit) as end:
            Finetune(here.settings.task).measure(here)
    assert end.value.code == 128 + number
    state = torch.load(here.folder / "last.pth", weights_only=True)
    assert (state["done"], state["batches"]) == (1, 1)
    again = job(tmp_path / "stopped", settings, resume=True)
    assert Finetune(again.settings.task).measure(again) == metrics
    assert again.sitting.resumed == 1
    ended = [
        torch.load(folder / "last.pth", weights_only=True)["parts"]["network"]
        for folder in (whole.folder, again.folder)
    ]
    assert all(torch.equal(value, ended[1][name]) for name, value in ended[0].items())


def test_the_last_epoch_is_the_headline_and_the_best_stands_beside_it(tmp_path):
    here = job(tmp_path / "run", {**LINEAR, "lr": 1.0})
    head = new_head(2, 2, 0)
    parts = {"head": head, "optimizer": here.settings.task.build([{"params": list(head.parameters())}])}
    right = iter([3, 8, 6, 5])
    labels = torch.zeros(10, dtype=torch.long)

    def test():
        hits = next(right)
        return torch.tensor([[1.0, 0.0]] * hits + [[0.0, 1.0]] * (10 - hits)), labels

    metrics = fit(here, here.settings.task, "linear", parts, lambda *_: [(head(torch.ones(10, 2)), labels)], test)
    assert metrics == pytest.approx({"linear/top1": 50.0, "linear/best_top1": 80.0})


def test_a_state_of_another_seed_is_not_gone_on_with(tmp_path):
    here = job(tmp_path / "run", {**LINEAR, "lr": 1.0})
    Linear(here.settings.task).measure(here)
    other = job(tmp_path / "run", {**LINEAR, "lr": 1.0}, resume=True, seed=6)
    with pytest.raises(InputError, match=r"last.pth is of other weights, settings or seed; remove .*run"):
        Linear(other.settings.task).measure(other)


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path):
    here = job(tmp_path / "run", {**FINETUNE, "lr": 1e30})
    with pytest.raises(InputError, match=r"the loss is not finite in epoch \d; lower task.lr"):
        Finetune(here.settings.task).measure(here)


def slow_precision(scores, truth):
    """Follow the devkit: for each recall, the best precision at that recall or beyond it."""
    kept = [(score, -row, there) for row, (score, there) in enumerate(zip(scores, truth, strict=True)) if there != 0]
    ranked = [there == 1 for _, _, there in sorted(kept, reverse=True)]
    points = [(sum(ranked[: n + 1]) / sum(ranked), sum(ranked[: n + 1]) / (n + 1)) for n in range(len(ranked))]

    def best(recall):
        return max((p for r, p in points if r >= recall - 1e-9), default=0.0)

    steps = [number / sum(ranked) for number in range(1, sum(ranked) + 1)]
    return sum(best(recall) for recall in steps) / len(steps), sum(best(n / 10) for n in range(11)) / 11


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_average_precision_is_the_devkits_by_both_rules(count):
    rng = np.random.default_rng(count)
    for _ in range(50):
        truth = rng.choice([1, -1, 0], count, p=[0.3, 0.5, 0.2])
        truth[rng.integers(count)] = 1
        scores = rng.integers(0, 8, count) / 4.0  # with ties
        assert svm.precision(scores, truth) == pytest.approx(slow_precision(scores, truth))


def slow_features(here, split):
    """Average the last map over its windows one pixel apart, then divide by the norm."""
    with torch.no_grad():
        images = here.normalised(torch.stack([split.image(row) for row in range(len(split))]))
        maps = here.network.stages(images)[-1].double().numpy()
    _, _, height, width = maps.shape
    rows = np.stack(
        [maps[:, :, y : y + height - 1, x : x + width - 1].mean(axis=(2, 3)) for y in (0, 1) for x in (0, 1)], axis=2
    ).reshape(len(maps), -1)
    return rows / (np.sqrt((rows**2).sum(axis=1, keepdims=True)) + 1e-5)


def test_cells_are_averages_of_the_last_map_over_windows_one_pixel_apart(tmp_path):
    here = job(tmp_path / "run", {"name": "svm"})
    images = torch.randint(0, 256, (2, 3, 56, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    split = Split(["a", "b"], [0, 1], lambda index: images[index], ["a", "b"])
    with torch.no_grad():
        found = features.forward(here, images, 2).numpy()
    np.testing.assert_allclose(svm.normalised(found), slow_features(here, split), rtol=1e-4, atol=1e-7)


def several(split, seed):
    """Give images of two classes a third, which is there, hidden or not by chance."""
    chance = np.random.default_rng(seed).choice([1, 0, -1], len(split))
    labels = [
        [1 if label == 0 else -1, 1 if label else -1, int(third)]
        for label, third in zip(split.labels, chance, strict=True)
    ]
    return Split(split.names, labels, split.image, split.identity)


@pytest.mark.filterwarnings("ignore:Liblinear failed to converge")  # nor does VISSL at large costs
@pytest.mark.parametrize("shots", [[], [2, 4]])
def test_svms_are_those_of_vissl_written_out(tmp_path, shots):
    here = job(tmp_path / "run", {"name": "svm", "costs": [0.01, 1.0, 100.0], "shots": shots, "samples": 2})
    data = Labelled(("dim", "bright", "third"), several(here.data.train, 1), several(here.data.test, 2))
    here = dataclasses.replace(here, data=data)
    found = svm.Svm(here.settings.task).measure(here)
    train, test = (slow_features(here, split) for split in (data.train, data.test))
    labels, truth = data.train.labels.numpy(), data.test.labels.numpy()

    def fitted(number, cost, rows, wanted):
        seed = derive(5, "svm", number) % 2**32
        return LinearSVC(C=cost, class_weight={1: 2, -1: 1}, max_iter=2000, random_state=seed).fit(
            train[rows], wanted[rows]
        )

    if not shots:
        scores = []
        for number in range(3):
            wanted, of_costs = np.where(labels[:, number] == 1, 1, -1), []
            for cost in (0.01, 1.0, 100.0):
                folds = [
                    average_precision_score(
                        wanted[held], fitted(number, cost, kept, wanted).decision_function(train[held])
                    )
                    for kept, held in StratifiedKFold(3).split(train, wanted)
                ]
                of_costs.append((np.mean(folds), -cost))
            cost = -max(of_costs)[1]
            chosen = fitted(number, cost, range(len(train)), wanted).decision_function(test)
            scores.append(slow_precision(chosen, truth[:, number]))
        assert found["svm/mAP"] == pytest.approx(100 * np.mean([area for area, _ in scores]))
        assert found["svm/mAP11"] == pytest.approx(100 * np.mean([eleven for _, eleven in scores]))
        assert found["svm/AP-third"] == pytest.approx(100 * scores[2][0])
        return
    for k in shots:
        table = np.zeros((3, 2, 3))
        for sample, number, (place, cost) in itertools.product(range(2), range(3), enumerate((0.01, 1.0, 100.0))):
            rows = svm.drawn(labels[:, number], k, 3, derive(5, "shots", k, sample, number))
            chosen = fitted(number, cost, rows, labels[:, number]).decision_function(test)
            table[place, sample, number] = slow_precision(chosen, truth[:, number])[0]
        assert found[f"lowshot{k}/mAP"] == pytest.approx(100 * table.mean(axis=(1, 2)).max())


def test_a_class_that_no_test_image_has_is_named_before_anything_is_trained(tmp_path):
    here = job(tmp_path / "run", {"name": "svm"})
    data = here.data._replace(test=here.data.test.part(range(0, 10, 2)))
    with pytest.raises(InputError, match="no test image has a bright that counts; take the class out"):
        svm.Svm(here.settings.task).measure(dataclasses.replace(here, data=data))


def test_shots_are_independent_draws_of_as_many_positives_and_their_share_of_negatives():
    labels = np.array([1] * 9 + [-1] * 50 + [0] * 5)
    draws = [svm.drawn(labels, 4, 6, seed) for seed in range(40)]
    assert all(Counter(labels[rows].tolist()) == {1: 4, -1: 20} for rows in draws)
    assert all((rows == np.unique(rows)).all() for rows in draws)
    assert {row for rows in draws for row in rows} == set(range(59))
    assert (svm.drawn(labels, 4, 6, 7) == draws[7]).all()
    assert Counter(labels[svm.drawn(labels, 20, 6, 0)].tolist()) == {1: 9, -1: 50}  # all that there are


def test_vocs_objects_become_labels_of_several_classes_difficult_ones_are_ignored(tmp_path):
    scenes = {"a": ["cat", "dog*"], "b": ["dog", "dog*"], "c": [], "d": ["cat*"]}
    voc.make_folders(tmp_path)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    for name, objects in scenes.items():
        picture(tmp_path / "JPEGImages" / f"{name}.jpg", 9)
        boxes = [voc.Box(thing.strip("*"), 0, 0, 5, 5) for thing in objects]
        hard = [thing.endswith("*") for thing in objects]
        voc.write_boxes(tmp_path / "Annotations" / f"{name}.xml", f"{name}.jpg", 8, 8, boxes, hard)
    for split, names in (("trainval", "a\nb\nc\n"), ("test", "d\n")):
        (tmp_path / "ImageSets" / "Main" / f"{split}.txt").write_text(names)
    data = Voc.Splits(root=tmp_path).read()
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [[1, 0], [-1, 1], [-1, -1]]
    assert data.test.labels.tolist() == [[0, -1]]
    assert data.train.part([1]).labels.tolist() == [[-1, 1]]
    assert data.test.image(0).shape == (3, 8, 8)
    with pytest.raises(InputError, match="these have several"):
        views.choose(data.train, Subset(share=0.5), 0)
    voc.write_boxes(tmp_path / "Annotations" / "d.xml", "d.jpg", 8, 8, [voc.Box("cow", 0, 0, 5, 5)])
    with pytest.raises(InputError, match=r"d.jpg has a 'cow', which no image of trainval has"):
        Voc.Splits(root=tmp_path).read()
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(InputError, match=r"trainval.txt lists .*b.jpg, which is missing; fetch it with"):
        Voc.Splits(root=tmp_path).read()


def test_features_are_made_once_and_a_damaged_cache_is_made_again(tmp_path, monkeypatch):
    knn = {"name": "knn", "neighbours": [3], "temperatures": [0.07, 0.5]}
    first = job(tmp_path / "run", knn)
    metrics = Knn(first.settings.task).measure(first)
    assert set(metrics) == {"knn3/top1", "knn3-0.5/top1"}
    assert (first.folder / "last_checkpoint").is_file()
    second = job(tmp_path / "run", knn)
    with monkeypatch.context() as patch:
        patch.setattr(ResNet, "forward", None)  # the cache has all that is needed
        assert Knn(second.settings.task).measure(second) == metrics
    cache = next((tmp_path / "run" / "features" / "train").glob("*.pth"))
    cache.write_bytes(cache.read_bytes()[:100])
    third = job(tmp_path / "run", knn)
    assert Knn(third.settings.task).measure(third) == metrics
    many = job(tmp_path / "run", {**knn, "neighbours": [31]})
    with pytest.raises(InputError, match="asks for 31 of 30 training images"):
        Knn(many.settings.task).measure(many)


def test_features_that_are_not_finite_are_refused(tmp_path):
    here = job(tmp_path / "run", {"name": "knn", "neighbours": [3]})
    with torch.no_grad():
        here.network.layer4[1].bn2.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="a feature is NaN or infinite"):
        Knn(here.settings.task).measure(here)
