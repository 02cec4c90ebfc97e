"""Time one optimizer step against what else there is, in one run, interleaved: the MixMask release, lightly, solo-learn.

    python benchmarks/pretrain_step.py [--quick] [--repeats 4] [--threads N]

Ours is the trainer's own step, in the memory format that it measures to be the faster one; the release's is written anew from
what it does and must start from the same loss; lightly's and solo-learn's own code runs in a process of its own. All have the
same backbone, batch, queue, dtype and threads. The encoders alone, in our format and in the others', say how much any step
could gain, and a plain matrix product how fast this machine multiplies at all. ``--quick`` leaves out ResNet-50 at 224 px.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import figures
import peers
import torch
from compared_steps import EncodersOnly, OurStep, PeerStep, ReleaseStep, Shape, make, mixed, random_views, whole_step
from cost_model import FORWARDS, counted
from figures import Figure
from torch.profiler import ProfilerActivity, profile, record_function

from pretrain.trainer import Trainer

LARGE, SMALL = Shape(50, 224, 8), Shape(18, 32, 32)
GOALS = {LARGE: 1.3, SMALL: 1.0}  # over the release; over the others it is 1.0
PEER_GOAL = 1.0
SHARE_GOAL = 95.0  # percent of the step that is the encoders' own, for the large network
NEAR = 0.95  # of what the encoders alone gain: the share of a step that is theirs
NEAR_PRODUCT = 90.0  # percent of a matrix product's rate, below which no limit excuses our convolutions
ENCODERS = (  # kinds of ``costs`` that the networks themselves are
    "convolution backward", "convolution forward", "batch norm", "ReLU", "residual sums, and gradients of both views added up",
    "gradients of both views added up", "pooling", "projector",
)  # fmt: skip
PROFILES = 3
SAME = 1e-3  # relative difference of the first losses that rounding in another memory format may leave
SMALL_REPEATS = 4  # times as many, since a step takes a tenth of a second
SOLO = ("solo-learn==1.0.2",)
SIDE, PRODUCTS = 2048, 8  # of the matrices multiplied, and how often a call

Seconds = dict[str, list[float]]


class Given(NamedTuple):
    """How often each step is timed, on how many threads."""

    repeats: int
    threads: int


def against_release(shape: Shape, given: Given, folder: Path) -> tuple[list[Figure], dict[str, float], list[str]]:
    """Time MoCo v2 + MixMask; return the figures, what our step's time is spent on, and our form as overrides."""
    trainer = make(shape, folder, given.threads, [mixed(shape)])
    assert trainer.form is not None
    views = random_views(shape)
    release, ours = ReleaseStep(trainer), OurStep(trainer)
    steps: dict[str, Callable] = {
        "release": release, "ours": ours, "encoders": EncodersOnly(trainer, 2, trainer.form.channels_last),
        "their encoders": EncodersOnly(trainer, 2, False),
    }  # fmt: skip
    if shape == LARGE:
        steps["products"] = matrix_products
    if shape == LARGE and _bf16():
        steps["bf16"] = OurStep(
            make(shape, folder, given.threads, [mixed(shape), *_form(trainer), "run.precision=bf16"])
        )
    first = {name: steps[name](*views) for name in ("release", "ours")}
    assert abs(first["ours"] - first["release"]) < SAME * first["release"], f"not the same arithmetic: {first}"
    calls: dict[str, Callable[[], object]] = {name: partial(step, *views) for name, step in steps.items()}
    seconds = figures.interleaved(calls, given.repeats)
    whole = whole_step(trainer, shape)
    profiles = [costs(trainer, whole) for _ in range(PROFILES)]
    what = f"MoCo v2 + MixMask, {shape}: the release's step / ours"
    found = compared(what, seconds, "release", str(trainer.form), GOALS[shape], profiles)
    if "products" in seconds:
        rate = arithmetic(shape, seconds, profiles)
        found.append(rate)
        if found[0].limit:
            near = rate.value >= NEAR_PRODUCT
            found[0] = replace(found[0], limit=f"{found[0].limit}; {rate.detail}" if near else "")
    if "bf16" in seconds:
        ratios = figures.ratios(seconds["release"], seconds["bf16"])
        detail = (
            f"ours {statistics.median(seconds['bf16']):.3f} s; run.precision=bf16, which rounds more than the release"
        )
        found.append(
            figures.of(f"MoCo v2 + MixMask, {shape}: the release's fp32 step / ours in bf16", ratios, detail=detail)
        )
    return found, profiles[0], _form(trainer)


def compared(
    what: str,
    seconds: Seconds,
    theirs: str,
    form: str,
    goal: float,
    profiles: Sequence[dict[str, float]],
    note: str = "",
) -> list[Figure]:
    """Return the ratio, with the limit that the encoders set where they do, the encoders' share, and what they gain."""
    ratios = figures.ratios(seconds[theirs], seconds["ours"])
    timed = statistics.median(figures.ratios(seconds["encoders"], seconds["ours"]))
    shares = [100 * sum(spent.get(kind, 0) for kind in ENCODERS) / sum(spent.values()) for spent in profiles]
    gains = figures.ratios(seconds["their encoders"], seconds["encoders"])
    ratio, gain = statistics.median(ratios), statistics.median(gains)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    limit = ""
    if ratio < goal and shares and statistics.median(shares) >= SHARE_GOAL and ratio >= NEAR * gain:
        backward = profiles[0].get("convolution backward", 0) / sum(profiles[0].values())
        limit = (
            f"in fp32 the encoders alone gain only {gain:.2f}x from our memory format here, and are "
            f"{statistics.median(shares):.0f} % of our step, of which {backward:.0%} is the backward pass of convolutions"
        )
    detail = f"theirs {middle[theirs]:.3f} s, ours {middle['ours']:.3f} s ({form}){note}"
    alone = f"contiguous {middle['their encoders']:.3f} s, {form} {middle['encoders']:.3f} s"
    name = what.split(":")[0]
    found = [figures.of(what, ratios, goal=goal, detail=detail, limit=limit)]
    if shares:
        goals: dict[str, Any] = {"goal": SHARE_GOAL} if str(LARGE) in what else {}
        spent = f"{_listed(profiles[0])}; timed on their own, they take {timed:.1%} of a step's time"
        found.append(
            figures.of(f"{name}: the encoders' share of our step, profiled", shares, unit="%", detail=spent, **goals)
        )
    return [*found, figures.of(f"{name}: encoders alone, contiguous / our format", gains, detail=alone)]


def matrix_products(*_: torch.Tensor) -> None:
    """Multiply two square matrices, ``PRODUCTS`` times."""
    one = torch.ones(SIDE, SIDE)
    for _ in range(PRODUCTS):
        one @ one


def arithmetic(shape: Shape, seconds: Seconds, profiles: Sequence[dict[str, float]]) -> Figure:
    """Return our convolutions' multiplications and additions a second, of those of a plain matrix product."""
    step, product = FORWARDS * counted().forward * shape.batch, 2 * SIDE**3 * PRODUCTS
    kinds = ("convolution forward", "convolution backward")
    share = statistics.median(sum(spent.get(kind, 0) for kind in kinds) / sum(spent.values()) for spent in profiles)
    pairs = zip(seconds["ours"], seconds["products"], strict=True)
    rates = [step / (share * ours) / (product / plain) for ours, plain in pairs]
    middle = {name: statistics.median(seconds[name]) for name in ("ours", "products", "release")}
    most = product / middle["products"]
    detail = (
        f"a product of {SIDE} x {SIDE} matrices computes {most / 1e9:.0f} GFLOP/s, our convolutions "
        f"{step / (share * middle['ours']) / 1e9:.0f} in {share:.0%} of the step, the step {step / middle['ours'] / 1e9:.0f}; "
        f"{GOALS[shape]}x would take {GOALS[shape] * step / middle['release'] / 1e9:.0f} with batch norm and all else"
    )
    what = f"MoCo v2 + MixMask, {shape}: arithmetic a second of our convolutions, of a matrix product's"
    return figures.of(what, [100 * rate for rate in rates], unit="%", detail=detail)


def against_peer(name: str, shape: Shape, given: Given, folder: Path, form: Sequence[str]) -> list[Figure]:
    """Time plain MoCo v2 against another package's own code; solo-learn's is symmetric, and so is ours then."""
    symmetric = name == "solo"
    pins = SOLO if symmetric else peers.LIGHTLY
    python = peers.interpreter(*pins)
    trainer = make(shape, folder, given.threads, [f"method.symmetric={str(symmetric).lower()}", *form])
    assert trainer.form is not None
    views = random_views(shape)
    passes = EncodersOnly if not symmetric else SymmetricEncoders
    with PeerStep(python, name, shape, given.threads) as peer:
        count = sum(parameter.numel() for parameter in trainer.objective.method.query_encoder.parameters())
        assert peer.parameters == count, f"{name} trains {peer.parameters} parameters, we {count}"
        ours, fast, plain = (
            OurStep(trainer), passes(trainer, 1, trainer.form.channels_last), passes(trainer, 1, False)
        )  # fmt: skip
        steps: dict[str, Callable[[], object]] = {
            name: peer, "ours": lambda: ours(*views), "encoders": lambda: fast(*views),
            "their encoders": lambda: plain(*views),
        }  # fmt: skip
        seconds = figures.interleaved(steps, given.repeats)
    title = f"MoCo v2{', symmetric' if symmetric else ''}, {shape}: {versions_of(pins)}'s step / ours"
    note = f"; {'its loss and momentum update' if symmetric else 'its modules'}, our backbone, {count / 1e6:.1f} M parameters"
    return compared(title, seconds, name, str(trainer.form), PEER_GOAL, [], note)[:1]


class SymmetricEncoders(EncodersOnly):
    """Both views through both encoders."""

    def __call__(self, view: torch.Tensor, other: torch.Tensor) -> float:
        """Take the passes of both directions."""
        return super().__call__(view, other) + super().__call__(other, view)


def versions_of(pins: Sequence[str]) -> str:
    """Return the first pin as a name and a version."""
    return peers.versions(pins[0])


def _form(trainer: Trainer) -> list[str]:
    assert trainer.form is not None
    return [f"run.channels_last={str(trainer.form.channels_last).lower()}"]


def _bf16() -> bool:
    """Tell whether this processor multiplies bf16; elsewhere it is far slower than fp32."""
    return "avx512_bf16" in Path("/proc/cpuinfo").read_text()


def _listed(spent: dict[str, float]) -> str:
    total = sum(spent.values())
    return (
        "a profiled step: " + ", ".join(f"{name} {100 * s / total:.1f} %" for name, s in spent.items()) if spent else ""
    )


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ResNet-18 at 32 px only")
    parser.add_argument("--repeats", type=int, default=4, help="of a step of the large network")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    found: list[Figure] = []
    profiles = {}
    for shape in [SMALL] if asked.quick else [LARGE, SMALL]:
        given = Given(asked.repeats * (SMALL_REPEATS if shape == SMALL else 1), asked.threads)
        with tempfile.TemporaryDirectory(prefix="pretrain-step-") as scratch:
            made, profiles[str(shape)], form = against_release(shape, given, Path(scratch))
            found += made + against_peer("lightly", shape, given, Path(scratch), form)
            if shape == SMALL:
                found += against_peer("solo", shape, given, Path(scratch), form)
    return figures.finish("pretrain_step", found, threads=asked.threads, profiles_in_seconds=profiles)


OPERATIONS = (  # part of the operation's or the backward node's name, and what it is counted as; the first that fits
    ("convolutionbackward", "convolution backward"),
    ("convolution_backward", "convolution backward"),
    ("conv", "convolution forward"),
    ("batch_norm", "batch norm"),
    ("batchnorm", "batch norm"),
    ("_against", "logits and losses"),
    ("softplus", "logits and losses"),
    ("mmbackward0", "projector"),
    ("addmm", "projector"),
    ("aten::mm", "projector"),
    ("relu", "ReLU"),
    ("threshold", "ReLU"),
    ("clamp_min", "ReLU"),
    ("pool", "pooling"),
    ("accumulategrad", "gradients of both views added up"),
    ("aten::add", "residual sums, and gradients of both views added up"),
)
LABEL = "part: "


def costs(trainer: Trainer, step: Callable[[], object]) -> dict[str, float]:
    """Return the seconds that one step spends in operators, by what they are for, most first."""
    with _labelled(trainer), profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    found: Counter[str] = Counter()
    for event in profiled.events():
        found[_kind(event)] += event.self_cpu_time_total / 1e6
    return {name: round(seconds, 4) for name, seconds in found.most_common()}


def _kind(event: Any) -> str:
    names = []
    while event is not None:
        if event.name.startswith(LABEL):
            return event.name.removeprefix(LABEL)
        names.append(event.name)
        event = event.cpu_parent
    for part, kind in OPERATIONS:
        if any(part in name.lower() for name in names):
            return kind
    return "the rest"


@contextlib.contextmanager
def _labelled(trainer: Trainer) -> Iterator[None]:
    """Give names, inside, to the parts of our steps that are not the encoders'."""
    method = trainer.objective.method
    places: list[tuple[Any, str, str]] = [
        (method, "begin_step", "momentum update"), (trainer, "_update", "optimizer"),
        (trainer, "_views", "colour"), (method, "end_step", "queue"),
        (method, "loss", "logits and losses"), (method, "losses", "logits and losses"),
        *((branch, "mix", "masks and mixing") for branch in trainer.objective.branches.values()),
    ]  # fmt: skip

    def labelled(function: Callable, label: str) -> Callable:
        def call(*arguments: Any) -> Any:
            with record_function(LABEL + label):
                return function(*arguments)

        return call

    for owner, name, label in places:
        setattr(owner, name, labelled(getattr(owner, name), label))
    try:
        yield
    finally:
        for owner, name, _ in places:
            delattr(owner, name)


if __name__ == "__main__":
    sys.exit(main())
