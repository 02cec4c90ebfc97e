"""What a step may not cost: looks at the device's numbers, graph breaks; and the choice of memory format."""

import contextlib
import copy
import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from running import small_run
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from core.backbones.resnet import ResNet
from core.checkpoint import load
from core.errors import InputError
from pretrain import form
from pretrain.form import Form
from pretrain.heads import Encoder
from pretrain.loader import loader
from pretrain.setup import make_trainer

CONFIG = small_run(log_every=3)
CPU = torch.device("cpu")
SMALL_GRID = ["branches.filled.mask.cells=2"]
READS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__")
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")


DRAWN_ON_THE_CPU = (
    "/pretrain/masks/",
    "/pretrain/views.py",
    "/core/provenance.py",
)  # from generators, before the device


def _on_the_device() -> bool:
    """Tell whether the call comes from code that works on the device's tensors."""
    frame = sys._getframe(2)
    while frame is not None:
        if any(part in frame.f_code.co_filename for part in DRAWN_ON_THE_CPU):
            return False
        frame = frame.f_back
    return True


class Waits(TorchDispatchMode):
    """Counts operations whose result the host must wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__.split(".")[-1]
        if name in WAITS and _on_the_device():
            self.seen[name] += 1
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def counted(monkeypatch):
    """Count, inside, everything by which the host reads a tensor's numbers."""
    with monkeypatch.context() as patch, Waits() as waits:
        for name in READS:
            original = getattr(torch.Tensor, name)

            def reading(self, *args, name=name, original=original, **kwargs):
                if _on_the_device():
                    waits.seen[name] += 1
                return original(self, *args, **kwargs)

            patch.setattr(torch.Tensor, name, reading)
        yield waits.seen


@pytest.fixture
def trainer(tmp_path):
    """Make a trainer from overrides, ready for its first step."""

    def make(*overrides):
        (tmp_path / "small.yaml").write_text(CONFIG)
        made = make_trainer(
            tmp_path / "small.yaml", [f"run.folder={tmp_path / 'run'}", "run.overwrite=true", *overrides]
        )
        made._prepare()
        return made

    return make


def test_the_counter_counts(monkeypatch):
    with counted(monkeypatch) as seen:
        value = torch.ones(2)
        value.sum().item()
        value.tolist()
        if value.sum() > 0:
            (value > 0).nonzero()
    assert seen["item"] == seen["tolist"] == seen["__bool__"] == seen["nonzero"] == 1


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optimizer.name=lars", "optimizer.clip_norm=1", "train.accumulate=2"],
        ["optimizer.name=adamw", "method.split_bn=2", "method.symmetric=true"],
    ],
    ids=["sgd", "lars, clipped, accumulated", "adamw, split, symmetric"],
)
def test_no_step_between_logged_ones_waits_for_the_device(trainer, monkeypatch, overrides):
    made = trainer(*overrides)
    batches = iter(loader(made.pairs, made.order, 0, pin=False))
    first, second = next(batches), next(batches)
    with counted(monkeypatch) as seen:
        made._step(first)
        made.step += 1
        made._step(second)
    assert dict(seen) == {}


def test_only_logged_steps_are_looked_at(trainer, monkeypatch):
    made = trainer("train.log_every=2", "data.count=40")  # five steps: logged are 2, 4 and the last
    looks = []
    values = made._values
    monkeypatch.setattr(made, "_values", lambda outcome: looks.append(made.step) or values(outcome))
    made.run()
    assert looks == [2, 4, 5]


def test_split_encoders_compile_without_graph_breaks_too(trainer):
    made = trainer("method.split_bn=2")
    torch._dynamo.reset()
    found = torch._dynamo.explain(made.objective.method.query_encoder)(torch.randn(8, 3, 32, 32))
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


def test_a_compiled_run_learns_the_same_and_is_copied_for_its_statistics(trainer, monkeypatch):
    """With the compiler's eager backend, which keeps every bit; a graph break would be an error.

    What the default backend makes of it differs by rounding.
    """
    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_(self, backend="eager", fullgraph=True))
    torch._dynamo.reset()
    states = []
    for switch in ("false", "true"):
        made = trainer(f"run.compile={switch}", "train.precise_bn=1", "data.count=8", "views.size=16", *SMALL_GRID)
        made.run()
        assert made.step == 1
        states.append(load(made.folder / "checkpoints" / "last.pth")["method"])
    assert states[0].keys() == states[1].keys()
    assert [name for name, value in states[0].items() if not torch.equal(value, states[1][name])] == []


def task(rows: int = 64, size: int = 64, compiled: bool = False) -> form.Task:
    network = Encoder(ResNet(ResNet.Config(depth=18, width=4)), nn.Identity())
    return form.Task(network, rows, 2, size, compiled)


def test_settings_that_leave_no_choice_are_taken_without_measuring(monkeypatch):
    monkeypatch.setattr(form, "_time", None)
    assert form.choose((True, "bf16"), task(), CPU) == (Form(True, "bf16"), {})


def test_the_fastest_form_is_chosen_on_copies_and_said_in_one_line(monkeypatch, capsys):
    took = {Form(False, "fp32"): 0.5, Form(True, "fp32"): 0.3, Form(False, "bf16"): 9.0, Form(True, "bf16"): 0.4}
    passes = []
    asked = task()

    def timed(one, encoder, images):
        passes.append((one, tuple(images.shape), encoder is asked.encoder))
        return took[one]

    monkeypatch.setattr(form, "_pass", timed)
    monkeypatch.setattr(form, "computes_bf16", lambda device: True)
    chosen, seconds = form.choose(("auto", "auto"), asked, torch.device("meta"))
    assert chosen == Form(True, "fp32")
    assert seconds == {
        "contiguous fp32": 0.5,
        "channels-last fp32": 0.3,
        "channels-last bf16": 0.4,
    }  # the slowest is left
    assert {shape for _, shape, _ in passes} == {(4, 3, 64, 64), (64, 3, 64, 64)}
    assert not any(same for *_, same in passes)
    said = capsys.readouterr().err
    assert said == (
        "chose channels-last fp32: contiguous fp32 0.5 s, channels-last fp32 0.3 s, channels-last bf16 0.4 s "
        "for 64 images of 64 px\n"
    )


@pytest.mark.parametrize(
    ("native", "size", "precisions"), [(True, 64, {"fp32", "bf16"}), (True, 16, {"fp32"}), (False, 64, {"fp32"})]
)
def test_a_cpu_times_few_images_and_bf16_only_where_it_computes_it_and_rightly(monkeypatch, native, size, precisions):
    passes = []
    monkeypatch.setattr(form, "_pass", lambda one, encoder, images: passes.append((one, len(images))) or 1.0)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    form.choose(("auto", "auto"), task(size=size), CPU)
    assert {one for one, _ in passes} == {Form(last, precision) for last in (False, True) for precision in precisions}
    assert max(rows for _, rows in passes) == form.CPU_ROWS


def test_a_form_without_memory_enough_is_left_out_and_none_at_all_is_refused(monkeypatch, capsys):
    def timed(one, encoder, images):
        if one.channels_last or every:
            raise torch.OutOfMemoryError("out of memory")
        return 1.0

    monkeypatch.setattr(form, "_pass", timed)
    every = False
    assert form.choose(("auto", "fp32"), task(), CPU)[0] == Form(False, "fp32")
    assert "channels-last fp32 does not fit into the memory of cpu" in capsys.readouterr().err
    every = True
    with pytest.raises(InputError, match=r"8 images of 64 px do not fit .*; raise train\.accumulate"):
        form.choose(("auto", "fp32"), task(), CPU)


def test_synchronised_norms_are_timed_alone_and_compiled_networks_compiled(monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    compiled: list[nn.Module] = []
    asked = task(compiled=True)
    asked = asked._replace(encoder=nn.SyncBatchNorm.convert_sync_batchnorm(asked.encoder))
    form.choose(("auto", "fp32"), asked, CPU)  # SyncBatchNorm itself refuses a CPU
    assert len(compiled) == 2
    assert asked.encoder not in compiled


def test_fp32_is_not_rounded_to_tf32_unless_asked_for():
    for precision, rounding in (("tf32", "tf32"), ("fp32", "ieee"), ("bf16", "ieee")):
        Form(False, precision).set_backends(deterministic=False)
        assert torch.backends.cuda.matmul.fp32_precision == rounding
        assert torch.backends.cudnn.conv.fp32_precision == rounding
        assert torch.backends.cudnn.benchmark
    assert not Form(False, "tf32").autocast(CPU)._enabled


def test_deterministic_runs_choose_no_kernels_by_time():
    try:
        Form(False, "fp32").set_backends(deterministic=True)
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
    finally:
        torch.use_deterministic_algorithms(False)


def test_bf16_is_refused_on_a_cpu_where_its_gradients_are_wrong(trainer):
    with pytest.raises(
        InputError, match=r"run\.precision=bf16 on a CPU: .* 16 px images; set run\.precision=fp32, or larger"
    ):
        trainer("run.precision=bf16", "views.size=16", "branches.filled.mask.cells=2")
    network = ResNet(ResNet.Config(depth=18, width=4))
    form.check_bf16("bf16", network, 32, CPU)
    form.check_bf16("fp32", network, 16, CPU)
    assert network.training


@pytest.mark.parametrize("other", [False, True])
def test_the_choice_is_kept_for_the_rest_of_the_run(trainer, tmp_path, monkeypatch, other):
    monkeypatch.setattr(form, "_time", lambda forms, *rest: {one: float(one.channels_last == other) for one in forms})
    made = trainer("run.channels_last=auto")
    made.asked_by = 15
    made.run()
    assert made.form == Form(not other, "fp32")
    assert load(tmp_path / "run" / "checkpoints" / "last.pth")["progress"]["form"] == (not other, "fp32")
    monkeypatch.setattr(form, "_time", lambda forms, *rest: {one: float(one.channels_last != other) for one in forms})
    rest = make_trainer(tmp_path / "small.yaml", [f"run.folder={tmp_path / 'run'}", "run.channels_last=auto"])
    rest.run()
    assert rest.form == Form(not other, "fp32")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["form"] == str(rest.form)


def test_measuring_changes_nothing(trainer):
    states = []
    for setting in ("false", "auto"):
        made = trainer(f"run.channels_last={setting}", "views.size=16", "branches.filled.mask.cells=2")
        states.append(made.objective.method.state_dict() | {"rng": torch.get_rng_state()})
    assert [name for name, value in states[0].items() if not torch.equal(value, states[1][name])] == []


def test_the_choice_and_what_it_was_measured_on_stand_in_the_runs_environment(trainer, tmp_path, monkeypatch, capsys):
    took = {Form(False, "fp32"): 0.25, Form(True, "fp32"): 0.125}
    monkeypatch.setattr(form, "_time", lambda forms, *rest: {one: took[one] for one in forms})
    made = trainer("run.channels_last=auto")
    assert "chose channels-last fp32: contiguous fp32 0.25 s, channels-last fp32 0.125 s" in capsys.readouterr().err
    noted = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert noted["form"] == {
        "chosen": str(made.form),
        "device": noted["processor"],
        "seconds": {"contiguous fp32": 0.25, "channels-last fp32": 0.125},
    }
    assert noted["packages"]["torch"]  # what stood there before still does


def test_fused_steps_are_right_in_channels_last_too(trainer):
    """A fused step reads memory in its own order, whatever a tensor's strides say."""
    made = trainer("run.channels_last=true")
    plain = copy.deepcopy(made.objective.method)
    other = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, foreach=False)
    assert made.optimizer.defaults["fused"]
    for batch in list(loader(made.pairs, made.order, 0, pin=False))[:2]:
        method = made.objective.method
        update = made._update
        made._update = lambda rates, method=method, update=update: (
            _give_gradients(method, plain, other) or update(rates)
        )
        made._step(batch)
        made._update = update
    found, wanted = made.objective.method.query_encoder.state_dict(), plain.query_encoder.state_dict()
    layers = [name for name, value in found.items() if value.ndim == 4 and "conv" in name]
    assert any(found[name].is_contiguous(memory_format=torch.channels_last) for name in layers)
    for name in layers:
        torch.testing.assert_close(found[name], wanted[name])
        assert not torch.equal(found[name], torch.zeros_like(found[name]))


def _give_gradients(method, plain, optimizer):
    for ours, theirs in zip(method.parameters(), plain.parameters(), strict=True):
        theirs.grad = None if ours.grad is None else ours.grad.clone(memory_format=torch.preserve_format)
    optimizer.step()


def test_the_benchmark_compares_two_steps_of_the_same_arithmetic(tmp_path, monkeypatch):
    """Losses agree over three steps, so that update, momentum encoder and queue are the same too."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    import compared_steps

    shape = compared_steps.Shape(18, 32, 8, width=4)
    with monkeypatch.context() as patch:
        patch.setattr(form, "_time", lambda forms, *rest: {one: float(not one.channels_last) for one in forms})
        made = compared_steps.make(shape, tmp_path, 1, [compared_steps.mixed(shape)])
    release, ours = compared_steps.ReleaseStep(made), compared_steps.OurStep(made)
    views = [torch.randn(8, 3, 32, 32) for _ in range(2)]
    losses = [(release(*views), ours(*views)) for _ in range(3)]
    assert made.form == Form(True, "fp32")
    assert [theirs for theirs, _ in losses] == pytest.approx([mine for _, mine in losses], rel=1e-4)
    assert len({round(theirs, 3) for theirs, _ in losses}) == 3  # the weights did move


@pytest.mark.parametrize(
    ("seconds", "theirs", "verdict"),
    [
        ((1.20, 1.0, 0.99, 1.20), 0.97, "limit"),  # all that the encoders gain is gained
        ((1.20, 1.0, 0.99, 1.40), 0.97, "missed"),  # the encoders alone gain more
        ((1.20, 1.0, 0.99, 1.20), 0.90, "missed"),  # a tenth of the step is not the encoders'
        ((1.30, 1.0, 0.80, 0.96), 0.90, "met"),
    ],
)
def test_a_missed_goal_is_a_limit_only_where_the_encoders_leave_nothing_to_win(monkeypatch, seconds, theirs, verdict):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    import pretrain_step

    named = dict(zip(("release", "ours", "encoders", "their encoders"), ([one] * 3 for one in seconds), strict=True))
    profiles = [{"convolution backward": 0.6, "batch norm": theirs - 0.6, "optimizer": 1 - theirs}] * 3
    ratio, share, _ = pretrain_step.compared("x: y", named, "release", "channels-last fp32", 1.3, profiles)
    assert ratio.verdict == verdict
    assert share.value == pytest.approx(100 * theirs)
    if verdict == "limit":
        assert ratio.limit == (
            "in fp32 the encoders alone gain only 1.21x from our memory format here, and are 97 % of our step, "
            "of which 60% is the backward pass of convolutions"
        )
