"""Where the time of one of our steps goes, from torch's profiler."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from pretrain.trainer import Trainer

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
