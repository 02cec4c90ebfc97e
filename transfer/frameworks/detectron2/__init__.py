"""Detectron2 through ``tools/train_net.py``, with Detectron2's own command line."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from core import bounds
from core.provenance import ROOT
from transfer.benchmarks import Benchmark
from transfer.frameworks import PUBLISHED, Departure, Framework, partial_run


class Detectron2(Framework):
    """Train with ``--config-file FILE [--resume] KEY VALUE ...``; options are further ``KEY VALUE`` pairs."""

    target = "detectron2"
    suffix = ".pkl"
    varies = ("devices", "images_per_device", "scaling", "data", "tiny", "lr_sweep")
    kind = "boxes"

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
        keys = ["MODEL.WEIGHTS", str(weights), "OUTPUT_DIR", str(folder), "SEED", str(seed)]
        tool = str(ROOT / "tools" / "train_net.py")
        devices = ["--num-gpus", str(departure.devices)] if departure.devices != 1 else []
        flags = [*devices, *departure.options(), "--config-file", str(benchmark.config_file), *partial_run(folder)]
        return [sys.executable, tool, *flags, *keys, *options]

    def summary(self, config: Path, devices: int | None = None, limit: int = 0, linear: bool = False) -> dict[str, Any]:
        """Read the protocol from a config, and fit it to the devices as training would."""
        from transfer.frameworks.detectron2 import run  # here: Detectron2 loads for seconds

        cfg, _ = run.read_config(str(config), [])
        published = cfg.SOLVER.REFERENCE_WORLD_SIZE or 1
        if devices is not None:
            cfg, _ = run.devices.adapt(cfg, devices, cuda=True, limit=limit, linear=linear)
        return run.devices.summary(cfg, devices or published)

    def bases(self, config: Path) -> list[Path]:
        """Read ``_BASE_``: a path or a list of paths relative to the file (fvcore's rule)."""
        # BaseLoader builds plain strings only, so that Detectron2's !!python tags are neither run nor refused
        values = yaml.load(bounds.yaml_text(config), Loader=yaml.BaseLoader) or {}  # noqa: S506 - builds text alone
        bases = values.get("_BASE_", [])
        return [(config.parent / base).resolve() for base in ([bases] if isinstance(bases, str) else bases)]
