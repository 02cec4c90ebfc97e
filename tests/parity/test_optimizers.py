"""Optimizers and schedules step by step against slow transcriptions, and how they are built from settings."""

import copy
import math

import numpy as np
import pytest
import torch
import yaml
from pairs import moco
from running import small_run
from torch import nn

from core.config import parse
from core.errors import InputError
from pretrain import optimizers
from pretrain.config import PretrainSettings
from pretrain.form import Form
from pretrain.loader import collate
from pretrain.methods import Method
from pretrain.optimizers import AdamW, Lars, OptimizerSettings, Schedule, Sgd
from pretrain.setup import make_trainer

# ---- optimizers equal their papers' formulas written as loops over numbers ----


STEPS = 4


def gradients(method: nn.Module, step: int) -> list[np.ndarray]:
    """Give every parameter of the query encoder a gradient that depends on the step only."""
    generator = torch.Generator().manual_seed(step)
    found = []
    for parameter in method.query_encoder.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        found.append(parameter.grad.numpy().copy())
    return found


def trained(settings: OptimizerSettings, rates: list[float]) -> tuple[list[np.ndarray], list[np.ndarray], list]:
    """Return the parameters before and after the steps, and each step's gradients."""
    method = moco()
    before = [p.detach().numpy().copy() for p in method.query_encoder.parameters()]
    optimizer = optimizers.make(settings, method, 256)
    seen = []
    for step, rate in enumerate(rates):
        seen.append(gradients(method, step))
        optimizers.set_lr(optimizer, settings.lr, rate / settings.lr)
        optimizer.step()
    return before, [p.detach().numpy() for p in method.query_encoder.parameters()], seen


def norm(values: np.ndarray) -> float:
    """Return the Euclidean norm by a sum."""
    return math.sqrt(sum(float(v) ** 2 for v in values.ravel()))


RATES = [0.5, 0.4, 0.2, 0.1]


def test_sgd_adds_the_decay_to_the_gradient_and_gathers_momentum() -> None:
    before, after, seen = trained(Sgd(lr=0.5, momentum=0.9, weight_decay=0.01), RATES)
    for index, start in enumerate(before):
        weight, buffer = start.copy(), np.zeros_like(start)
        for rate, grads in zip(RATES, seen, strict=True):
            buffer = 0.9 * buffer + grads[index] + 0.01 * weight
            weight = weight - rate * buffer
        np.testing.assert_allclose(after[index], weight, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("exclude", ["norm_bias", "none"])
def test_lars_scales_each_tensors_step_by_its_norm_and_leaves_norms_and_biases_to_sgd(exclude: str) -> None:
    settings = Lars(lr=0.5, momentum=0.9, weight_decay=0.01, trust_coefficient=0.002, exclude=exclude)
    before, after, seen = trained(settings, RATES)
    assert {start.ndim for start in before} >= {1, 2, 4}
    for index, start in enumerate(before):
        adapted = start.ndim > 1 or exclude == "none"
        weight, buffer = start.copy(), np.zeros_like(start)
        for rate, grads in zip(RATES, seen, strict=True):
            change = grads[index] + (0.01 * weight if adapted else 0)
            if adapted and norm(weight) > 0:  # a tensor of zeros has no scale to step by
                change = change * 0.002 * norm(weight) / (norm(grads[index]) + 0.01 * norm(weight))
            buffer = 0.9 * buffer + change
            weight = weight - rate * buffer
        np.testing.assert_allclose(after[index], weight, rtol=1e-6, atol=1e-9)


def test_adamw_decays_weights_apart_from_the_gradient_and_not_biases_and_norms() -> None:
    settings = AdamW(lr=0.5, weight_decay=0.1, betas=(0.8, 0.95))
    before, after, seen = trained(settings, RATES)
    for index, start in enumerate(before):
        weight, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
        for step, (rate, grads) in enumerate(zip(RATES, seen, strict=True), start=1):
            if start.ndim > 1:
                weight = weight * (1 - rate * 0.1)
            first = 0.8 * first + 0.2 * grads[index]
            second = 0.95 * second + 0.05 * grads[index] ** 2
            step_size = first / (1 - 0.8**step) / (np.sqrt(second / (1 - 0.95**step)) + 1e-8)
            weight = weight - rate * step_size
        np.testing.assert_allclose(after[index], weight, rtol=1e-10, atol=1e-12)


# ---- groups, rates, schedules, micro-batches and clipping, as a run uses them ----


CONFIG = small_run()


@pytest.fixture
def trainer(tmp_path):
    """Make a trainer from overrides."""
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)

    def make(*overrides):
        made = make_trainer(path, [f"run.folder={tmp_path / 'run'}", "run.overwrite=true", *overrides])
        made.objective.train()
        made.form = Form(False, "fp32")
        return made

    return make


def batch(trainer, epoch=0):
    return collate([trainer.pairs[(epoch, index)] for index in range(trainer.settings.train.batch_size)])


class Steady(Method):
    """A method with a part that keeps its rate."""

    constant_lr = ("query_encoder.predictor",)

    def __init__(self):
        super().__init__()
        self.query_encoder = nn.Module()
        self.query_encoder.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.query_encoder.predictor = nn.Linear(4, 4)
        self.key_encoder = nn.Linear(3, 4).requires_grad_(False)

    encode_query = encode_key = loss = None


Steady.__abstractmethods__ = frozenset()


def test_parameters_are_grouped_by_exclusion_and_constant_rate_and_none_is_lost():
    method = Steady()
    groups = optimizers.groups(method, "norm_bias")
    shapes = {(g["excluded"], g["constant"]): [tuple(p.shape) for p in g["params"]] for g in groups}
    assert shapes == {
        (False, False): [(4, 3)], (False, True): [(4, 4)], (True, False): [(4,), (4,), (4,)], (True, True): [(4,)],
    }  # fmt: skip
    assert [g.get("weight_decay") for g in groups] == [None, None, 0.0, 0.0]


def test_a_constant_part_keeps_the_base_rate_through_warm_up_and_cosine():
    optimizer = optimizers.make(Sgd(lr=0.2), Steady(), 64)
    assert optimizers.set_lr(optimizer, 0.2, 0.25) == 0.05
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.2]


def test_plain_sgd_has_one_group_in_the_order_of_the_parameters(trainer):
    made = trainer()
    assert len(made.optimizer.param_groups) == 1
    expected = [p for p in made.objective.parameters() if p.requires_grad]
    assert all(a is b for a, b in zip(made.optimizer.param_groups[0]["params"], expected, strict=True))


def test_the_linear_rule_gives_the_rate_for_256_images():
    assert Lars(lr=0.3, scale_lr="linear").base_lr(4096) == pytest.approx(4.8)
    assert Lars(lr=0.3).base_lr(4096) == 0.3


def test_a_setting_of_another_optimizer_is_refused_with_its_path():
    values = yaml.safe_load(CONFIG) | {"optimizer": {"name": "adamw", "momentum": 0.9}}
    with pytest.raises(InputError, match=r"optimizer\.momentum: no such setting"):
        parse(PretrainSettings, values)
    with pytest.raises(InputError, match="no optimizer 'adam'; did you mean adamw"):
        parse(PretrainSettings, values | {"optimizer": {"name": "adam"}})


def test_steps_fall_at_their_milestones_after_the_warm_up():
    schedule = Schedule(name="step", milestones=(0.6, 0.8), warmup_epochs=20).over(200)
    factors = [schedule.factor(epoch / 200) for epoch in (0, 10, 20, 119, 120, 159, 160, 199)]
    assert factors == pytest.approx([0, 0.5, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["schedule.warmup_epochs=1"], r"warmup_epochs=1 leaves nothing of train\.epochs=1"),
        (["schedule.warmup_epochs=1", "schedule.warmup=0.1"], "both set the warm-up; keep one"),
        (["schedule.milestones=[0.8,0.6]"], "must rise"),
        (["train.accumulate=3"], r"batch_size=8 cannot be cut into train\.accumulate=3 micro-batches"),
        (
            ["train.accumulate=4", "method.split_bn=2"],
            "leave fewer than 2 to normalise together in method.split_bn=2 parts",
        ),
        (["train.accumulate=8"], "leave fewer than 2 to normalise together;"),
    ],
)
def test_rates_and_micro_batches_that_cannot_be_are_refused(trainer, overrides, message):
    with pytest.raises(InputError, match=message):
        trainer(*overrides)


def test_two_micro_batches_are_two_passes_whose_gradients_are_averaged_before_one_step(trainer):
    made = trainer("train.accumulate=2", "optimizer.momentum=0", "optimizer.weight_decay=0", "method.key_momentum=0.5")
    other = copy.deepcopy(made.objective)
    made.step = 1  # away from step 0, so that masks depend on it
    drawn = batch(made)
    outcome = made._step(drawn)

    first, second = made._views(drawn)
    method = other.method
    method.begin_step(1 / 3)
    losses = []
    for rows in (slice(0, 4), slice(4, 8)):
        scored = other(first[rows], second[rows], 1, rows.start)
        losses.append(scored.loss.item())
        scored.loss.backward()  # gradients add up
        method.end_step(scored.keys[0])
    assert outcome.values["loss"].item() == pytest.approx(sum(losses) / 2)
    for (name, ours), theirs in zip(method.named_parameters(), made.objective.method.parameters(), strict=True):
        if ours.grad is not None:
            expected = ours.detach() - outcome.lr * ours.grad / 2
            torch.testing.assert_close(theirs.detach(), expected, rtol=1e-5, atol=1e-7, msg=name)
    assert torch.equal(method.queue, made.objective.method.queue)
    assert made.objective.method.queue_pointer == 8
    assert made._forwards == {"query": 2, "key": 1}


def test_a_micro_batch_hides_the_same_cells_as_the_whole_batch_does(trainer, monkeypatch):
    seen = {}
    for parts in (1, 2):
        made = trainer(f"train.accumulate={parts}")
        masks, mix = [], made.objective.branches["filled"].mix
        monkeypatch.setattr(
            made.objective.branches["filled"],
            "mix",
            lambda *a, mix=mix, masks=masks: masks.append(mix(*a)) or masks[-1],
        )
        made._step(batch(made))
        seen[parts] = torch.cat([mixed.mask for mixed in masks])
    assert seen[1].shape == seen[2].shape
    assert torch.equal(seen[1], seen[2])


def test_clipping_limits_the_norm_of_the_whole_gradient_and_reports_it_as_it_was(trainer):
    plain = ["optimizer.momentum=0", "optimizer.weight_decay=0"]
    changes, norms = [], []
    for limit in ("1000", "0.01"):
        made = trainer(*plain, f"optimizer.clip_norm={limit}")
        before = [p.detach().clone() for p in made.objective.method.query_encoder.parameters()]
        outcome = made._step(batch(made))
        after = made.objective.method.query_encoder.parameters()
        moved = sum(((a.detach() - b) ** 2).sum() for a, b in zip(after, before, strict=True)).sqrt()
        changes.append(moved.item() / outcome.lr)
        norms.append(outcome.grad_norm.item())
    assert norms[0] == norms[1] > 0.01
    assert changes == pytest.approx([norms[0], 0.01], rel=1e-3)


@pytest.mark.parametrize(
    "settings", [["name=lars", "lr=1"], ["name=adamw", "lr=0.001"], ["name=sgd", "exclude=norm_bias"]]
)
def test_every_optimizer_trains_stops_and_goes_on_to_the_same_bits(trainer, settings, tmp_path):
    settings = [f"optimizer.{part}" for part in settings]
    whole = trainer(*settings, "train.accumulate=2", "views.size=16", "branches.filled.mask.cells=2")
    whole.run()
    half = trainer(*settings, "train.accumulate=2", "views.size=16", "branches.filled.mask.cells=2")
    half.asked_by = 15
    half.run()
    assert half.step == 1
    rest = make_trainer(
        tmp_path / "small.yaml",
        [
            f"run.folder={tmp_path / 'run'}",
            *settings,
            "train.accumulate=2",
            "views.size=16",
            "branches.filled.mask.cells=2",
        ],
    )
    assert rest.step == 1
    rest.run()
    ours, theirs = whole.objective.method.state_dict(), rest.objective.method.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("settings", ["{name: sgd}", "{name: adamw, lr: 0.001}"])
def test_what_an_optimizer_remembers_in_another_memory_format_is_laid_out_as_the_weights(trainer, settings):
    whole, other = (trainer(f"optimizer={settings}", "run.channels_last=true") for _ in range(2))
    for made in (whole, other):
        made.form = Form(True, "fp32")
        made._prepare()
        made._step(batch(made))
    remembered = [value for state in other.optimizer.state.values() for value in state.values()]
    assert any(not value.is_contiguous() for value in remembered)
    for state in other.optimizer.state.values():
        state.update({name: value.contiguous() for name, value in state.items()})
    optimizers.align(other.optimizer)
    for made in (whole, other):
        made._step(batch(made, epoch=1))
    ours, theirs = (made.objective.method.query_encoder.state_dict() for made in (whole, other))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_gradient_scaler_changes_no_step_is_kept_and_skips_what_overflows(trainer):
    """On the CPU, where settings refuse fp16, with the scaler that fp16 gets on a GPU."""
    plain = ["optimizer.clip_norm=0.5", "train.accumulate=2"]
    made, scaled = trainer(*plain), trainer(*plain)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    drawn = batch(made)
    norms = [one._step(drawn).grad_norm.item() for one in (made, scaled)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    both = zip(made.objective.method.parameters(), scaled.objective.method.parameters(), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in both)

    before = copy.deepcopy(scaled.objective.method.query_encoder.state_dict())
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    scaled._step(drawn)
    after = dict(scaled.objective.method.query_encoder.named_parameters())
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert scaled.scaler.state_dict()["scale"] == 2.0**126


def test_a_loss_that_is_not_finite_in_one_micro_batch_is_named_with_the_step_it_began_at(trainer, tmp_path):
    made = trainer("train.accumulate=2", "train.log_every=3")
    step, losses = made._step, made.objective.method.losses

    def poisoned(drawn):
        calls = iter(range(99))
        nan = torch.tensor(float("nan"))
        # each micro-batch scores the clean view and, with both keys at once, the mixed one: here the second's mixed one
        made.objective.method.losses = lambda *given: [
            one + (nan if made.step == 1 and number == 1 else 0) for number in [next(calls)] for one in losses(*given)
        ]
        return step(drawn)

    made._step = poisoned
    with pytest.raises(
        InputError, match=r"loss/filled is not finite at step 2; there is no checkpoint from before; lower"
    ):
        made.run()
    assert not (tmp_path / "run" / "checkpoints" / "last.pth").exists()  # one epoch, and its end was never reached
