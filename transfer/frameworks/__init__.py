"""Frameworks: how a benchmark is carried out, as a command line; the heavy libraries are imported by that command only.

To add one, write a package ``transfer/frameworks/NAME`` with a class named like it that extends ``Framework``; its command line
is in ``__init__.py``, what imports the framework beside it. Its command trains and tests in ``folder`` and ends by writing
``evaluation.json`` there (``metrics``, ``seconds``, ``peak_memory_mib``, ``device``, ``recipe``, ``tensors_checked``).
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from core import plugins
from core.errors import InputError
from core.run_folder import has_checkpoint
from transfer.benchmarks import Benchmark
from transfer.datasets.files import fingerprint

# Where a module lives is no part of a protocol: in a hash it stays under the name it had when the first results were written.
_FORMER = {
    "transfer.frameworks.mmseg.heads": "transfer.segmentation.heads",
    "transfer.frameworks.mmseg.backbones": "transfer.segmentation.convnext",
}


@dataclass(frozen=True)
class Departure:
    """How a run departs from the published protocol; what the devices bring about is in the effective recipe.

    ``tiny`` shortens it on ``shapes`` or on a folder; ``lr_sweep`` are factors of the published learning rate to choose from
    on held-out training images. The runs of a sweep have one ``lr_factor`` each and test on the share ``hold_out`` of the
    training set. ``data`` is a folder of the user's that takes the place of the benchmark's; ``skip_bad`` leaves out what of it
    cannot be used. A device takes at most ``images_per_device`` images at a time (0: as many as it holds); ``scaling`` keeps
    the published images per iteration (``batch``) or per device (``linear``: lr and schedule follow).
    """

    devices: int = 1
    data: str = ""
    skip_bad: bool = False
    tiny: str = ""
    lr_sweep: tuple[float, ...] = ()
    lr_factor: float = 1.0
    hold_out: float = 0.0
    images_per_device: int = 0
    scaling: str = "batch"

    def said(self) -> list[str]:
        """Return what of it changes the numbers, as a result's ``options`` have it."""
        tiny = [f"--tiny={self.tiny}"] if self.tiny else []
        return [
            *self._data(),
            *tiny,
            *([f"--lr-sweep={','.join(f'{f:g}' for f in self.lr_sweep)}"] if self.lr_sweep else []),
        ]

    def _data(self) -> list[str]:
        """Name a user's folder by its own name and by what is in it: where it lies changes no number."""
        if not self.data:
            return []
        folder = Path(self.data).expanduser()
        if not folder.is_dir():
            raise InputError(f"no folder {folder}; give the folder that holds your images and annotations")
        content = fingerprint(folder, content=True)[:12]
        return [f"--data={folder.absolute().name}@{content}", *(["--skip-bad"] if self.skip_bad else [])]

    def options(self) -> list[str]:
        """Return what the frameworks' tools call it."""
        tiny = ["--tiny", self.tiny] if self.tiny else []
        lr = ["--lr-factor", repr(self.lr_factor)] if self.lr_factor != 1 else []
        data = ["--data", str(Path(self.data).expanduser().absolute())] if self.data else []
        data += ["--skip-bad"] if self.data and self.skip_bad else []
        held = ["--hold-out", repr(self.hold_out)] if self.hold_out else []
        limit = ["--images-per-device", str(self.images_per_device)] if self.images_per_device else []
        scaling = ["--scaling", self.scaling] if self.scaling != PUBLISHED.scaling else []
        return [*data, *tiny, *lr, *held, *limit, *scaling]


PUBLISHED = Departure()  # none


class Framework(ABC):
    """``target`` is what ``transfer.convert`` calls its weights, ``suffix`` their file's ending, ``varies`` what may depart."""

    target: ClassVar[str]
    suffix: ClassVar[str]
    varies: ClassVar[tuple[str, ...]] = ()  # names of Departure's fields
    kind: ClassVar[Literal["boxes", "masks", "classes"]]  # what of a user's folder it learns (transfer.datasets.own)

    @abstractmethod
    def command(
        self,
        benchmark: Benchmark,
        weights: Path,
        folder: Path,
        seed: int,
        options: Sequence[str] = (),
        departure: Departure = PUBLISHED,
    ) -> list[str]:
        """Return the command that fine-tunes and tests ``weights`` in ``folder``, going on with a partial run."""

    @abstractmethod
    def bases(self, config: Path) -> list[Path]:
        """Return the files that ``config`` names as its bases, in the framework's own config language."""

    def summary(self, config: Path, devices: int | None = None, limit: int = 0, linear: bool = False) -> dict[str, Any]:
        """Return the recipe of a run of ``config`` on ``devices`` GPUs that hold ``limit`` images (0: all), or as published.

        ``devices``, ``batch``, ``accumulate``, ``lr``, ``warm_up``, ``steps``, ``iterations``, ``norm``, ``norm_group`` (images
        that a batch norm sees) and ``precise_bn_images``; empty where nothing depends on devices.
        """
        return {}

    def check(self, departure: Departure) -> None:
        """Raise InputError for a departure that this framework cannot serve."""
        flags = {"devices": "--num-gpus", "data": "--data", "tiny": "--tiny", "lr_sweep": "--lr-sweep"}
        flags |= {"images_per_device": "--images-per-device", "scaling": "--scaling"}
        asked = [name for name in flags if getattr(departure, name) != getattr(PUBLISHED, name)]
        if beyond := [name for name in asked if name not in self.varies]:
            said = " and ".join(flags[name] for name in beyond)
            raise InputError(f"{type(self).__name__} has no {said}; leave it out")

    def config_files(self, config: Path) -> list[Path]:
        """Return ``config`` and all its bases, each once, bases first."""
        found: list[Path] = []
        for base in self.bases(config):
            found += [path for path in self.config_files(base) if path not in found]
        return [*found, config]


def of(benchmark: Benchmark) -> Framework:
    """Return the framework that carries a benchmark out; raise InputError listing what there is."""
    framework: Framework = plugins.find(__name__, benchmark.framework)()
    return framework


def protocol_hash(benchmark: Benchmark, options: Sequence[str] = ()) -> str:
    """Return the sha256 over a benchmark's rules, the text of its config files, and the options on top."""
    try:
        texts = [path.read_text() for path in of(benchmark).config_files(benchmark.config_file)]
    except (OSError, InputError) as error:
        raise InputError(f"cannot read a config of {benchmark.title!r}: {error}") from error
    for now, former in _FORMER.items():
        texts = [text.replace(now, former) for text in texts]
    return hashlib.sha256(json.dumps([benchmark.rules(), texts, list(options)]).encode()).hexdigest()


def partial_run(folder: Path) -> list[str]:
    """Return ``--resume`` where ``folder`` holds a run to go on with."""
    return ["--resume"] if has_checkpoint(folder) else []
