"""The training loop against its formulas written out in NumPy, its schedules, and a run that is killed and goes on."""

import math
import signal
import time

import numpy as np
import pytest
import torch

from core.backbones.resnet import ResNet
from core.data import Labelled, Split
from core.errors import InputError
from core.journal import read
from core.stopping import Sitting, stop_signals
from transfer.convert.recipe import Recipe
from transfer.frameworks.classification import training
from transfer.frameworks.classification.job import ClassificationSettings, Job
from transfer.frameworks.classification.tasks.finetune import Finetune
from transfer.frameworks.classification.tasks.knn import Knn
from transfer.frameworks.classification.tasks.linear import Linear
from transfer.frameworks.classification.training import accuracies, fit, new_head
from transfer.frameworks.classification.views import shuffled

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
        "lr": 3.0,
        "momentum": 0.9,
        "weight_decay": 0.01,
        "batch": 7,
        "epochs": 6,
        "schedule": "steps",
        "milestones": [2, 4],
        "factor": 0.1,
    }
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
    assert read(tmp_path / "killed" / "journal.jsonl") == read(tmp_path / "whole" / "journal.jsonl")
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
