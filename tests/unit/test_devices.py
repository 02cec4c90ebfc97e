"""A published recipe on 8, 4, 2 and 1 devices is the original's, key by key and rate by rate; what cannot be kept is said."""

import copy
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from transfer import benchmarks, frameworks
from transfer.frameworks._protocol import describe, spread
from transfer.frameworks.detectron2 import devices as detectron2
from transfer.frameworks.detectron2 import trainer
from transfer.frameworks.detectron2.run import read_config
from transfer.frameworks.mmseg import compat
from transfer.frameworks.mmseg import devices as mmseg

ORIGINALS = {
    name: row
    for name, row in yaml.safe_load((Path(__file__).parent / "originals.yaml").read_text()).items()
    if not name.startswith("_")
}
DEVICES = (8, 4, 2, 1)
SHORT = 100  # a run is shortened by


def config(name: str) -> Any:
    row = benchmarks.find(name)
    if row.framework == "detectron2":
        return read_config(str(row.config_file), [])[0]
    return compat.Config.fromfile(str(row.config_file))


def adapted(cfg: Any, count: int, **asked: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the effective recipe on ``count`` GPUs and what was said; a Detectron2 config is copied, an MMEngine one changed."""
    if isinstance(cfg, compat.Config):
        recipes, said = mmseg.adapt(cfg, count, cuda=True, **asked)
        return recipes["effective"], said
    fitted, said = detectron2.adapt(cfg, count, cuda=True, **asked)
    return detectron2.summary(fitted, count), said


def learned(cfg: Any) -> dict[str, Any]:
    """Return what else of a config decides the numbers, under the table's names."""
    if isinstance(cfg, compat.Config):
        sets = {"train": cfg.train_dataloader.dataset, "test": cfg.test_dataloader.dataset}
        pipelines = {}
        for name, part in sets.items():
            while "pipeline" not in part:
                part = part.dataset if "dataset" in part else part.datasets[0]
            pipelines[name] = {step.type: step for step in part.pipeline}
        scaled, tested, optimizer = pipelines["train"]["RandomResize"], cfg.model.test_cfg, cfg.optim_wrapper.optimizer
        return {
            **{
                "optimizer": optimizer.type,
                "momentum": optimizer.get("momentum", 0),
                "weight_decay": optimizer.weight_decay,
            },
            **{"scale": list(scaled.scale), "ratios": list(scaled.ratio_range)},
            "crop": list(pipelines["train"]["RandomCrop"].crop_size),
            "test_scale": list(pipelines["test"].get("Resize", {}).get("scale", [])),
            "layer_decay": (cfg.optim_wrapper.get("paramwise_cfg") or {}).get("decay_rate", 1.0),
            "slide": [tested.crop_size[0], tested.stride[0]] if tested.mode == "slide" else [],
        }
    solver, images = cfg.SOLVER, cfg.INPUT
    return {
        **{"optimizer": solver.OPTIMIZER, "momentum": solver.MOMENTUM if solver.OPTIMIZER == "SGD" else 0},
        **{"weight_decay": solver.WEIGHT_DECAY, "layer_decay": solver.LAYER_DECAY},
        **{
            "short_sides": list(images.MIN_SIZE_TRAIN),
            "longest": images.MAX_SIZE_TRAIN,
            "test_side": images.MIN_SIZE_TEST,
        },
        "cropped": images.CROP.SHARE if images.CROP.ENABLED else 0,
    }


def test_the_table_has_every_protocol_that_trains_on_gpus() -> None:
    trained = {name for name, row in benchmarks.shipped().items() if row.framework in ("detectron2", "mmseg")}
    assert set(ORIGINALS) == {name for name in trained if not name.startswith(("tiny_", "shapes_"))}
    assert all(row["source"] for row in ORIGINALS.values())


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_recipe_is_the_originals_on_any_number_of_devices(name: str) -> None:
    row, original, cfg = benchmarks.find(name), ORIGINALS[name], config(name)
    for count in DEVICES:
        fitted = cfg
        if isinstance(cfg, compat.Config):
            mmseg.adapt(fitted := copy.deepcopy(cfg), count, cuda=True)
        else:
            fitted, _ = detectron2.adapt(cfg, count, cuda=True)
        found = learned(fitted)
        assert found == {key: original[key] for key in found}, count
        found = frameworks.of(row).summary(row.config_file, count)
        for key in ("batch", "lr", "warm_up", "steps", "iterations", "norm_group", "precise_bn_images"):
            assert found[key] == pytest.approx(original[key], rel=1e-12), (count, key)
        one = original["norm"] in ("SyncBN", "naiveSyncBN") and count == 1
        assert found["norm"] == ("BN" if one else original["norm"])
        assert (found["devices"], found["accumulate"]) == (count, 1)


def original_rates(original: dict[str, Any]) -> list[float]:
    """Return the rate of each iteration of the shortened original, from its table alone."""
    rates, length = [], original["iterations"] // SHORT
    rise, steps = original["warm_up"] // SHORT, [step // SHORT for step in original["steps"]]
    for t in range(length):
        if original["schedule"] == "step":
            rate = original["lr"] * original.get("drop", 0.1) ** sum(t >= step for step in steps)
        else:
            begin = original["warm_up"] // SHORT
            left = 1 - (max(t, begin) - begin) / (length - begin - 1)  # MMEngine's last rate is the floor
            rate = original["floor"] + (original["lr"] - original["floor"]) * left ** original["power"]
        if t < rise:
            share = t / (rise - 1 if original["schedule"] == "poly" else rise)  # MMEngine's warm-up ends one earlier
            rate *= original["warm_from"] + (1 - original["warm_from"]) * share
        rates.append(rate)
    return rates


def shortened_rates(name: str, count: int) -> list[float]:
    """Return the rates that the framework's own scheduler gives the fitted and shortened protocol."""
    cfg, weight = config(name), nn.Parameter(torch.zeros(1))
    if isinstance(cfg, compat.Config):
        from mmengine.registry import PARAM_SCHEDULERS

        mmseg.adapt(cfg, count, cuda=True)
        optimizer = torch.optim.SGD([weight], lr=cfg.optim_wrapper.optimizer.lr)
        for scheduler in cfg.param_scheduler:
            for key in ("begin", "end"):
                scheduler[key] //= SHORT
            if "milestones" in scheduler:
                scheduler.milestones = [step // SHORT for step in scheduler.milestones]
        schedulers = [PARAM_SCHEDULERS.build({**s, "optimizer": optimizer}) for s in cfg.param_scheduler]
        length = cfg.train_cfg.max_iters // SHORT
    else:
        from detectron2.solver import build_lr_scheduler

        solver = detectron2.adapt(cfg, count, cuda=True)[0].SOLVER
        solver.MAX_ITER, solver.WARMUP_ITERS = solver.MAX_ITER // SHORT, solver.WARMUP_ITERS // SHORT
        solver.STEPS = tuple(step // SHORT for step in solver.STEPS)
        optimizer = torch.optim.SGD([weight], lr=solver.BASE_LR)
        schedulers = [build_lr_scheduler(types.SimpleNamespace(SOLVER=solver), optimizer)]
        length = solver.MAX_ITER
    rates = []
    for _ in range(length):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_rates_of_a_shortened_run_are_the_originals(name: str) -> None:
    with compat.quiet():
        assert shortened_rates(name, 1) == pytest.approx(original_rates(ORIGINALS[name]), rel=1e-6)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ((16, 2, 8, 16), (2, 1, 1)),  # as published
        ((16, 2, 1, 16), (16, 1, 1)),  # one device sees what eight synchronised saw
        ((16, 2, 1, 2), (2, 8, 1)),  # norms of their own a device: the same groups, one after the other
        ((16, 2, 4, 2), (2, 2, 1)),
        ((16, 2, 3, 16), (2, 1, 6 / 16)),  # three do not share sixteen
        ((16, 2, 16, 2), (2, 1, 2)),  # a group cannot be split
    ],
)
def test_images_are_spread_so_that_norms_see_as_many(given: tuple[int, ...], found: tuple[float, ...]) -> None:
    spread_ = spread(*given, holds=lambda images: True, linear=False)
    assert (spread_.forward, spread_.accumulate, spread_.scale) == found
    assert bool(spread_.said) == (spread_.accumulate > 1 or spread_.scale != 1)


@pytest.mark.parametrize(
    ("group", "found", "said"),
    [
        (0, (4, 4, 1), "gradients of 4 x 4 images a step"),
        (16, (4, 1, 1 / 4), "4 images an iteration for 16 (a device holds 4 of 16, and a norm over 16 cannot be had"),
        (2, (2, 8, 1), "gradients of 8 x 2 images a step"),
    ],
)
def test_what_memory_does_not_hold_is_accumulated_or_scaled_and_said(group: int, found: tuple, said: str) -> None:
    result = spread(16, 2, 1, group, lambda images: images <= 5, False)
    assert (result.forward, result.accumulate, result.scale) == found
    assert result.said.startswith(said)
    assert spread(16, 2, 1, group, lambda images: True, True).scale == 1 / 8


@pytest.mark.parametrize("name", ["voc0712_detection", "voc12_segmentation"])
def test_linear_scaling_keeps_images_seen_and_rate_per_image_and_what_the_user_gave(name: str) -> None:
    original = ORIGINALS[name]
    for count in (1, 2, 4):
        cfg = config(name)
        found, said = adapted(cfg, count, linear=True)
        share = found["batch"] / 16
        assert (found["iterations"], found["warm_up"]) == (original["iterations"] / share, original["warm_up"] / share)
        assert found["lr"] == pytest.approx(original["lr"] * share)
        assert found["steps"] == [step / share for step in original["steps"]]
        assert found["precise_bn_images"] == original["precise_bn_images"]
        assert found["norm_group"] == found["batch"]
        if share != 1:
            assert f"{found['batch']} images an iteration for 16 (asked for)" in said[-1]
    cfg = config(name)
    if isinstance(cfg, compat.Config):
        cfg.train_cfg.max_iters = 12
        found, _ = adapted(cfg, 1, linear=True, given=("train_cfg.max_iters", "optim_wrapper.optimizer.lr"))
    else:
        cfg.SOLVER.MAX_ITER = 12
        found, _ = adapted(cfg, 1, linear=True, given=("SOLVER.MAX_ITER", "SOLVER.BASE_LR"))
    assert (found["iterations"], found["lr"]) == (12, original["lr"])


def test_a_short_trial_finds_what_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def trial(cfg: Any, images: int) -> bool:
        tried.append(images)
        return images <= 8

    for name, smallest in (("voc0712_detection", 2), ("voc12_segmentation", 4)):
        tried.clear()
        found, said = adapted(config(name), 1, trial=trial)
        assert (found["batch"], found["norm_group"], found["lr"]) == (8, 8, ORIGINALS[name]["lr"] / 2)
        assert "a device holds 8 of 16" in said[-1]
        assert tried == [16, 8]
        assert adapted(config(name), 16 // smallest, trial=lambda *_: False)[0]["batch"] == 16  # published: no trial
    for module in (detectron2, mmseg):

        def full(cfg: Any, images: int) -> None:
            if images > 1:
                raise torch.OutOfMemoryError

        monkeypatch.setattr(module, "_step", full)
        assert (module.fits(None, 1), module.fits(None, 2)) == (True, False)  # type: ignore[arg-type, attr-defined]


def test_the_trial_is_a_training_step_of_the_network() -> None:
    cfg = config("shapes_detection")
    cfg.MODEL.DEVICE, cfg.INPUT.MAX_SIZE_TRAIN = "cpu", 128
    cfg = detectron2.adapt(cfg, 1, cuda=False)[0]
    with compat.quiet():
        assert detectron2.fits(cfg, 2)
        seg = config("shapes_segmentation")
        mmseg.adapt(seg, 1, cuda=False)
        assert mmseg.fits(seg, 2)


def test_a_network_without_batch_norm_is_accumulated_and_reported_so() -> None:
    cfg = config("coco_fpn")
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.FPN.NORM = "FrozenBN", "GN"
    found, said = adapted(cfg, 1, limit=4)
    assert (found["batch"], found["accumulate"], found["norm_group"], found["norm"]) == (16, 4, 0, "FrozenBN")
    assert said == ["gradients of 4 x 4 images a step"]
    cfg.MODEL.RESNETS.NORM = "BN"  # as eight devices without synchronisation
    found, _ = adapted(cfg, 1)
    assert (found["batch"], found["accumulate"], found["norm_group"], found["precise_bn_images"]) == (16, 8, 2, 400)


def test_both_recipes_stand_one_under_the_other() -> None:
    cfg = config("voc0712_detection")
    fitted, _ = detectron2.adapt(cfg, 1, cuda=False, limit=2)
    assert describe(detectron2.summary(cfg, 8), detectron2.summary(fitted, 1)) == [
        "published: 8 x 2 images, lr 0.02, warm-up 100, steps 18000/22000, 24000 iterations, SyncBN over 16",
        "effective: 1 x 2 images, lr 0.0025, warm-up 800, steps 144000/176000, 192000 iterations, BN over 2",
    ]
    recipes, said = mmseg.adapt(config("voc12_segmentation"), 1, cuda=False)
    assert describe(recipes["published"], recipes["effective"]) == [
        "published: 4 x 4 images, lr 0.01, 20000 iterations, SyncBN over 16",
        "effective: 1 x 16 images, lr 0.01, 20000 iterations, BN over 16",
    ]
    assert said == ["SyncBN becomes BN (one device)"]
    recipes, gloo = mmseg.adapt(config("voc12_segmentation"), 2, cuda=False)
    assert gloo == ["SyncBN becomes BN (SyncBN needs CUDA; statistics stay per process)"]
    assert recipes["effective"]["norm_group"] == 8


def slow_step(weight: torch.Tensor, images: torch.Tensor, rate: float) -> torch.Tensor:
    """Descend on the mean of (weight x)^2 over all images at once, its gradient by hand."""
    return weight - rate * (2 * weight * images**2).mean()


def test_parts_of_an_iteration_give_the_step_of_the_whole_in_detectron2() -> None:
    images = torch.tensor([1.0, 2.0, 3.0, 5.0])
    network = nn.Linear(1, 1, bias=False).double()
    before = network.weight.detach().clone()

    def losses(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss_a": (network(batch.double()[:, None]) ** 2).mean()}

    parts = iter(images.split(1))
    inner = types.SimpleNamespace(model=losses, _data_loader_iter=parts)
    found = trainer._Summed(inner, 4)(next(parts))
    found["loss_a"].backward()
    assert next(parts, None) is None
    assert float(found["loss_a"].detach()) == pytest.approx(float((before**2 * images**2).mean()))
    assert before - 0.1 * network.weight.grad == pytest.approx(slow_step(before, images, 0.1))


def test_parts_of_an_iteration_give_the_steps_of_the_whole_in_mmsegmentation() -> None:
    from mmengine.optim import OptimWrapper

    images = torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=torch.float64)
    weight = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))
    wrapper = OptimWrapper(torch.optim.SGD([weight], lr=0.01), accumulative_counts=4)

    def train_step(part: dict[str, Any], optim_wrapper: Any) -> dict[str, Any]:
        loss = (weight * torch.stack(list(part["inputs"]))).pow(2).mean()
        optim_wrapper.update_params(loss)
        return {"loss": loss}

    loop = object.__new__(mmseg.AccumulatingLoop)
    loop._iter, loop._max_iters, loop.parts = 0, 3, 4
    model = types.SimpleNamespace(train_step=train_step)
    loop._runner = types.SimpleNamespace(model=model, optim_wrapper=wrapper, call_hook=lambda *_, **__: None)
    wrapper.initialize_count_status(nn.Linear(1, 1), 0, 12)
    wanted = torch.tensor(3.0, dtype=torch.float64)
    for count in range(3):
        loop.run_iter({"inputs": list(images)})
        wanted = slow_step(wanted, images, 0.01)
        assert float(weight.detach()) == pytest.approx(float(wanted)), count
    assert loop._iter == 3
