"""Batch norm in groups, and precise statistics, equal slow transcriptions."""

import math
from collections.abc import Callable

import numpy as np
import pairs
import pytest
import references as slow
import torch
import torch.nn.functional as F
from running import small_run
from torch import Tensor, nn

from core.checkpoint import load, query_backbone
from pretrain.batchnorm import SplitBatchNorm2d, population_statistics, split
from pretrain.losses import unit
from pretrain.setup import make_trainer
from pretrain.trainer import Trainer
from transfer.convert.convert import convert


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_each_part_is_normalised_by_its_own_statistics(parts: int) -> None:
    images = 3 * pairs.pair(count=8, size=6)[0] + 1
    norm = SplitBatchNorm2d(3).double()
    norm.parts = parts
    found = norm(images).detach().numpy()
    wanted = [slow.batch_norm(part, norm.eps) for part in np.split(images.numpy(), parts)]
    np.testing.assert_allclose(found, np.concatenate(wanted), atol=1e-10)


def test_output_gradients_and_running_statistics_equal_separate_batches() -> None:
    images = pairs.pair(count=8, size=6)[0]
    weights = torch.randn(8, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together = nn.Sequential(nn.BatchNorm2d(3)).double()
    apart = [nn.BatchNorm2d(3).double() for _ in range(4)]
    split(together, 4)
    for _ in range(3):
        (together(images) * weights).sum().backward()
        for norm, part, weight in zip(apart, images.chunk(4), weights.chunk(4), strict=True):
            (norm(part) * weight).sum().backward()
    norm = together[0]
    torch.testing.assert_close(norm.weight.grad, sum(one.weight.grad for one in apart))
    torch.testing.assert_close(norm.bias.grad, sum(one.bias.grad for one in apart))
    torch.testing.assert_close(norm.running_mean, torch.stack([one.running_mean for one in apart]).mean(dim=0))
    torch.testing.assert_close(norm.running_var, torch.stack([one.running_var for one in apart]).mean(dim=0))
    assert norm.num_batches_tracked.item() == 3


def test_evaluation_uses_the_running_statistics_whatever_the_parts() -> None:
    images = pairs.pair(count=5, size=6)[0]  # five rows cannot be split, and need not be
    plain, parted = nn.BatchNorm2d(3).double(), nn.Sequential(nn.BatchNorm2d(3)).double()
    split(parted, 2)
    for norm in (plain, parted[0]):
        norm.running_mean.fill_(0.4)
        norm.running_var.fill_(2.0)
    torch.testing.assert_close(parted.eval()(images), plain.eval()(images))


def test_tensor_names_do_not_change() -> None:
    plain, parted = pairs.Tiny(), pairs.Tiny()
    split(parted, 2)
    assert list(parted.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_split_keys_are_those_of_the_rows_that_the_shuffle_puts_together(seed: int) -> None:
    images = pairs.pair(count=6)[0]
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    assert not torch.equal(order, order.argsort())  # or undoing the shuffle could not be told from doing it again
    wanted = np.zeros((6, 4))
    for part in order.view(2, 3).tolist():
        wanted[part] = pairs.features(pairs.moco().key_encoder, images[part])
    method = pairs.shipped_moco(split_bn=2)
    found = unit(method.encode_key(images.float(), method.order(6, [torch.Generator().manual_seed(seed)])))
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


def test_split_queries_are_normalised_in_the_order_they_come() -> None:
    images = pairs.pair(count=4)[0]
    found = unit(pairs.shipped_moco(split_bn=2).embed(images.float())).detach().numpy()
    wanted = [pairs.features(pairs.moco().query_encoder, part) for part in images.chunk(2)]
    np.testing.assert_allclose(found, np.concatenate(wanted), atol=1e-6)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "off"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
def test_parts_normalised_at_once_are_those_normalised_one_by_one(form, dtype, off) -> None:
    """Outputs, gradients of input, scale and shift, and running statistics; errors are shares of the largest value."""
    torch.manual_seed(0)
    images, slopes = (2 * torch.randn(12, 5, 6, 4) + 1).to(dtype), torch.randn(12, 5, 6, 4).to(dtype)
    found = []
    for way in (SplitBatchNorm2d.forward, SplitBatchNorm2d.at_once):
        norm = SplitBatchNorm2d(5).to(torch.promote_types(dtype, torch.float32))
        norm.parts = 3
        torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
        torch.nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(2))
        input = images.contiguous(memory_format=form).requires_grad_()
        out = way(norm, input)
        assert (out.dtype, out.is_contiguous(memory_format=form)) == (dtype, True)
        torch.relu_(out).backward(slopes)
        found.append([out.detach(), input.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var])
        assert norm.num_batches_tracked == 1
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() <= off * one.abs().max()


CONFIG = small_run(epochs=2, keep_every=1)


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
