"""MMSegmentation through ``tools/train_seg.py``, with MMSegmentation's own command line."""

import ast
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.provenance import ROOT
from transfer.benchmarks import Benchmark
from transfer.frameworks import PUBLISHED, Departure, Framework, partial_run


class Mmseg(Framework):
    """Train with ``CONFIG --weights FILE --work-dir DIR [--resume]``; options are ``key=value`` of the config."""

    target = "mmseg"
    suffix = ".pth"
    varies = ("devices", "images_per_device", "scaling", "data", "tiny", "lr_sweep")
    kind = "masks"

    def command(
        self,
        benchmark: Benchmark,
        weights: Path,
        folder: Path,
        seed: int,
        options: Sequence[str] = (),
        departure: Departure = PUBLISHED,
    ) -> list[str]:
        """Return the command of one fine-tuning."""
        launch = [sys.executable, str(ROOT / "tools" / "train_seg.py")]
        if departure.devices != 1:  # they are started by torchrun
            processes = ["--standalone", "--nproc_per_node", str(departure.devices)]
            launch = [launch[0], "-m", "torch.distributed.run", *processes, launch[1], "--launcher", "pytorch"]
        given = [str(benchmark.config_file), "--weights", str(weights), "--work-dir", str(folder), "--seed", str(seed)]
        rest = ["--cfg-options", *options] if options else []  # it takes all that follows
        return [*launch, *departure.options(), *given, *partial_run(folder), *rest]

    def summary(self, config: Path, devices: int | None = None, limit: int = 0, linear: bool = False) -> dict[str, Any]:
        """Read the protocol from a config, and fit it to the devices as training would."""
        from transfer.frameworks.mmseg import run  # here: MMSegmentation loads for seconds

        cfg = run.read_config(config, [])
        if devices is not None:
            return run.devices.adapt(cfg, devices, cuda=True, limit=limit, linear=linear)[0]["effective"]
        return run.devices.published(cfg, 1)

    def bases(self, config: Path) -> list[Path]:
        """Read ``_base_ = ...``: a path or a list of paths relative to the file (MMEngine's rule)."""
        bases: list[str] = []
        for statement in ast.parse(config.read_text()).body:
            if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "_base_":
                value = ast.literal_eval(statement.value)
                bases = [value] if isinstance(value, str) else list(value)
        return [(config.parent / base).resolve() for base in bases]
