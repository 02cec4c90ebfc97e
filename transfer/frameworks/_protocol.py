"""What the frameworks do alike: compare a config with the weights' facts, depart from a protocol, say and write what was run."""

import contextlib
import dataclasses
import hashlib
import math
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from core.errors import InputError
from core.files import FileError, write_json
from core.stopping import Sitting
from core.weights_file import read_weights_file
from transfer.convert.recipe import Recipe


class Family(NamedTuple):
    """A framework's side of a family of ``core.backbones``: its network, and the config keys that the weights decide."""

    build_network: Callable[[Recipe], nn.Module]
    facts: Callable[[Recipe], dict[str, Any]]


def check_known(
    recipe: Recipe, families: Mapping[str, Family], framework: str, wanted: Mapping[str, Any], file: Any
) -> None:
    """Raise InputError when the framework has no such family, or its ResNet is another than the recipe's (``wanted``)."""
    if recipe.family not in families:
        raise InputError(
            f"{file}: its recipe has family {recipe.family!r}; {framework} has {', '.join(sorted(families))} here"
        )
    for name, value in wanted.items():
        if recipe.family == "resnet" and (found := getattr(recipe, name)) != value:
            raise InputError(f"{file}: its recipe has {name} {found!r}; {framework}'s ResNet here has {value!r}")


def same(found: Any, wanted: Any) -> bool:
    """Tell whether a config's value is the one wanted; lists of numbers may differ by rounding."""
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(
            math.isclose(a, b, rel_tol=1e-6) for a, b in zip(found, wanted, strict=True)
        )
    return bool(found == wanted)


def held(name: str, share: float) -> bool:
    """Tell whether an image is in the held-out share, by the hash of its file's name without folder and ending."""
    digest = hashlib.sha256(Path(name).stem.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


@dataclasses.dataclass(frozen=True)
class Spread:
    """How the images of an iteration lie on the devices: ``accumulate`` forwards of ``forward`` images on each before a step.

    ``scale`` is the share of the published images per iteration: lr is multiplied by it, what counts iterations divided.
    """

    forward: int
    accumulate: int = 1
    scale: float = 1.0
    said: str = ""


def spread(batch: int, own: int, devices: int, group: int, holds: Callable[[int], bool], linear: bool) -> Spread:
    """Spread the published ``batch``, in the original ``own`` images a device, on ``devices``; say what could not be kept.

    ``group`` is what a batch norm of the original saw: the batch (synchronised), ``own`` (not), 0 (no such norm). Where a
    device does not hold its share of the batch, gradients are summed over parts that keep the group. Where that cannot be,
    lr and schedule follow the images that fit (linear scaling, Goyal et al., arXiv 1706.02677).
    """

    def fitting(images: int) -> int:
        return next(n for n in range(images, 0, -1) if images % n == 0 and (n == 1 or holds(n)))

    def scaled(forward: int, reason: str) -> Spread:
        scale = forward * devices / batch
        if scale == 1:
            return Spread(forward)
        return Spread(
            forward, 1, scale, f"{forward * devices} images an iteration for {batch} ({reason}): lr times {scale:g}, "
            f"iterations times {1 / scale:g}"
        )  # fmt: skip

    if linear:
        return scaled(fitting(own), "asked for")
    share, rest = divmod(batch, devices)
    if rest:
        return scaled(fitting(own), f"{batch} are no multiple of {devices} devices")
    whole = own if group == own != batch else share
    if share % whole:
        return scaled(fitting(own), f"a norm sees {own} on each device")
    forward = fitting(whole)
    if forward == whole or not group:
        parts = share // forward
        return Spread(forward, parts, 1.0, f"gradients of {parts} x {forward} images a step" if parts > 1 else "")
    return scaled(forward, f"a device holds {forward} of {whole}, and a norm over {group} cannot be had in parts")


def carried(done: int, before: Any, images: int, says: bool) -> int:
    """Return how many iterations of ``images`` saw what the ``done`` ones of a checkpoint did, each of ``before`` images.

    What is no number of images (an older checkpoint has none) is taken for ``images``.
    """
    if type(before) is not int or before < 1 or before == images:
        return done
    count = round(done * before / images)
    if says:
        print(
            f"going on at iteration {count} of {images} images: {done} of {before} are done",
            file=sys.stderr,
            flush=True,
        )
    return count


def departures(tiny: str, iterations: int, lr_factor: float, hold_out: float) -> list[str]:
    """Say how a run departs from its published protocol."""
    said = {
        f"tiny: {iterations} iterations on {tiny}; this measures nothing": tiny,
        f"lr times {lr_factor:g}": lr_factor != 1,
        f"{hold_out:.0%} of the training images are held out and tested on instead of the test set": hold_out,
    }
    return [text for text, there in said.items() if there]


def describe(published: Mapping[str, Any], effective: Mapping[str, Any]) -> list[str]:
    """Return the published and the effective protocol as lines that stand one under the other."""
    lines = []
    for name, r in (("published", published), ("effective", effective)):
        warm_up = f", warm-up {r['warm_up']}" if r["warm_up"] else ""
        steps = f", steps {'/'.join(map(str, r['steps']))}" if r["steps"] else ""
        lines.append(
            f"{name}: {r['devices']} x {r['batch'] // max(r['devices'], 1)} images, lr {r['lr']:g}{warm_up}{steps}, "
            f"{r['iterations']} iterations, {r['norm']}{f' over {group}' if (group := r.get('norm_group')) else ''}"
        )
    return lines


def read_checkpoint(file: str, folder: str) -> dict[str, Any]:
    """Read a checkpoint; raise FileError which, for a damaged one of a run's ``folder``, names the newest good one beside it."""
    try:
        return read_weights_file(file)
    except FileError as error:
        beside = [
            p for p in Path(folder).glob("*.pth") if p.name != Path(file).name and Path(file).parent == Path(folder)
        ]
        for path in sorted(beside, key=lambda path: path.stat().st_mtime_ns, reverse=True):
            try:
                read_weights_file(path)
            except FileError:
                continue
            pointer = Path(folder) / "last_checkpoint"
            raise FileError(f"{error}; to go on from the newest good one, write {path.name} into {pointer}") from error
        raise


@contextlib.contextmanager
def harmless(what: str) -> Iterator[None]:
    """Let a picture or a curve fail with a warning, so that what was measured is not lost with it."""
    try:
        yield
    except Exception as error:  # drawing can fail in any way
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"warning: {what} failed ({told}); the numbers do not depend on it", file=sys.stderr, flush=True)


@contextlib.contextmanager
def reading(file: Path | str) -> Iterator[None]:
    """Name the file when a framework's reader cannot use it, whatever the reader says."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # readers raise anything, also what is an attribute of None
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(
            f"{file} cannot be used ({told}); copy it again, or see what python tools/prepare_data.py check says"
        ) from error


@contextlib.contextmanager
def from_workers() -> Iterator[None]:
    """Take the sentence out of an InputError that a process of a data loader raised: PyTorch hands on its traceback as text."""
    try:
        yield
    except InputError as error:
        lines = [line for line in str(error).splitlines() if "InputError: " in line]
        if not str(error).startswith("Caught ") or not lines:
            raise
        raise InputError(lines[-1].partition("InputError: ")[2]) from error


def evaluate_again(folder: Path) -> None:
    """Say that a failed evaluation has lost nothing."""
    print(
        f"the evaluation failed, the trained model is kept in {folder}: the same command evaluates it again",
        file=sys.stderr,
        flush=True,
    )


def write_evaluation(
    folder: Path, metrics: Mapping[str, float | None], sitting: Sitting, device: str, **more: Any
) -> dict[str, Any]:
    """Write and return ``evaluation.json``: the metrics, what they cost in all sittings, and the ``recipe`` and the like."""
    sitting.keep()
    evaluation = {
        "metrics": metrics,
        "seconds": round(sitting.seconds, 2),
        "resumed": sitting.resumed,
        "peak_memory_mib": _peak_memory(device),
        "device": device,
        **more,
    }
    write_json(folder / "evaluation.json", evaluation)
    return evaluation


def _peak_memory(device: str) -> int:
    """Return the most memory this process held, in MiB: the GPU's, or the resident set."""
    if device.startswith("cuda"):
        return round(torch.cuda.max_memory_allocated() / 2**20)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
