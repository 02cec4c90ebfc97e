"""Precise batch norm: the statistics of the kept files are those of a population, computed here image by image."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.checkpoint import load, query_backbone
from pretrain.batchnorm import split
from pretrain.precise_norm import population_statistics
from pretrain.setup import make_trainer
from pretrain.trainer import Trainer
from transfer.convert.convert import convert

CONFIG = """
backbone: {name: resnet, depth: 18, width: 4}
data: {name: shapes, count: 24, size: 32}
views: {size: 32}
method: {name: moco, queue: 32, dim: 8}
branches:
  filled: {name: mixmask, mask: {name: block, cells: 4, ratio: 0.5}}
train: {epochs: 2, batch_size: 8, workers: 0, log_every: 1, keep_every: 1}
optimizer: {lr: 0.01}
"""


@pytest.fixture
def trained(tmp_path):
    """Run the tiny config with overrides and return the trainer."""

    def run(name: str, *overrides: str) -> Trainer:
        (tmp_path / "small.yaml").write_text(CONFIG)
        trainer = make_trainer(tmp_path / "small.yaml", [f"run.folder={tmp_path / name}", *overrides])
        trainer.run()
        return trainer

    return run


def stem(weight: Tensor, views: Tensor) -> np.ndarray:
    """Return what enters the first batch norm, in float64: [batch, channels, height, width]."""
    return F.conv2d(views.double(), weight.double(), stride=2, padding=3).numpy()


def population(inputs: list[np.ndarray], channel: int) -> tuple[float, float]:
    """Return mean and variance of one channel over all numbers of all batches, by two passes over a list."""
    values = [float(v) for batch in inputs for v in batch[:, channel].ravel()]
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((v - mean) ** 2 for v in values) / len(values)


def test_the_converted_file_holds_the_statistics_of_clean_views_of_the_next_epoch(trained, tmp_path):
    trainer = trained("run", "train.precise_bn=2")
    last = tmp_path / "run" / "checkpoints" / "last.pth"
    convert(last, tmp_path / "out.pth", target="mmseg")
    written = torch.load(tmp_path / "out.pth", weights_only=True)
    tensors = written.get("state_dict", written)

    order = trainer._order()
    order.epoch, order.first = 2, order.steps - 2  # two epochs are trained: these views were never seen
    inputs = []
    for keys in order:
        samples = [trainer.pairs[key] for key in keys]
        crops = torch.stack([crops[0] for crops, *_ in samples])
        colours = torch.stack([colours[0] for _, colours, *_ in samples])
        from pretrain.views import colour

        inputs.append(stem(tensors["conv1.weight"], colour(crops, colours, trainer.settings.views)))
    assert len(inputs) == 2
    for channel in range(4):
        mean, variance = population(inputs, channel)
        assert tensors["bn1.running_mean"][channel].item() == pytest.approx(mean, rel=1e-4, abs=1e-6)
        assert tensors["bn1.running_var"][channel].item() == pytest.approx(variance, rel=1e-4)
    running = trainer.objective.method.query_encoder.backbone.bn1.running_mean
    assert not torch.allclose(tensors["bn1.running_mean"], running, rtol=1e-3)


def test_only_statistics_of_the_query_encoder_and_only_of_kept_files_differ(trained, tmp_path):
    with_it = trained("with", "train.precise_bn=2")
    trained("without")
    folders = [tmp_path / name / "checkpoints" for name in ("with", "without")]
    for file in ("epoch_0001.pth", "epoch_0002.pth", "last.pth"):
        ours, plain = (load(folder / file)["method"] for folder in folders)
        changed = {name for name, value in ours.items() if not torch.equal(value, plain[name])}
        norms = {n for n in ours if n.startswith("query_encoder.") and n.endswith(("running_mean", "running_var"))}
        assert changed == norms, file
    assert with_it.objective.method.query_encoder.training


def test_a_run_that_stops_and_goes_on_ends_with_the_same_file(trained, tmp_path):
    trained("whole", "train.precise_bn=2")
    (tmp_path / "small.yaml").write_text(CONFIG)
    overrides = [f"run.folder={tmp_path / 'parts'}", "train.precise_bn=2"]
    first = make_trainer(tmp_path / "small.yaml", overrides)
    steps: Callable = first._step

    def until_the_fourth(batch):
        if first.step == 3:  # after an epoch file with precise statistics
            first.asked_by = 15
        return steps(batch)

    first._step = until_the_fourth
    first.run()
    assert first.step == 4
    make_trainer(tmp_path / "small.yaml", overrides).run()
    ours, theirs = (query_backbone(load(tmp_path / n / "checkpoints" / "last.pth")) for n in ("parts", "whole"))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_all_layers_equal_moments_gathered_one_layer_at_a_time_in_training_mode():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(80, 6),
        nn.BatchNorm1d(6),
    ).eval()  # fmt: skip
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batches = [torch.randn(4, 3, 8, 8) * (1 + number) for number in range(3)]
    found = population_statistics(network, iter(batches))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not network.training

    inputs = [[], [], []]
    for batch in batches:
        x = F.conv2d(batch, before["0.weight"], before["0.bias"])
        inputs[0].append(x.numpy())
        x = F.conv2d(by_its_own_batch(x).relu(), before["3.weight"], before["3.bias"])
        inputs[1].append(x.numpy())
        x = F.linear(by_its_own_batch(x).flatten(1), before["6.weight"], before["6.bias"])
        inputs[2].append(x[:, :, None].numpy())
    for name, seen, channels in zip(("1", "4", "7"), inputs, (4, 5, 6), strict=True):
        for channel in range(channels):
            mean, variance = population(seen, channel)
            assert found[f"{name}.running_mean"][channel].item() == pytest.approx(mean, rel=1e-4, abs=1e-5)
            assert found[f"{name}.running_var"][channel].item() == pytest.approx(variance, rel=1e-4)


def by_its_own_batch(x: Tensor) -> Tensor:
    """Normalise [batch, channels, height, width] as training does, with scale 1 and shift 0."""
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    return (x - mean) / (((x - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True) + 1e-5).sqrt()


def test_parts_normalised_apart_give_the_statistics_of_all_rows():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    batch = torch.cat([torch.randn(2, 3, 8, 8), 3 + torch.randn(2, 3, 8, 8)])
    whole = population_statistics(network, [batch])
    split(network, 2)
    parts = population_statistics(network, [batch])
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
