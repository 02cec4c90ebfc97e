"""MMSegmentation through ``tools/train_seg.py``, with MMSegmentation's own command line."""

import ast
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.provenance import ROOT
from transfer.benchmarks import Protocol
from transfer.frameworks import Framework, Variation, partial_run


class Mmseg(Framework):
    """Train with ``CONFIG --weights FILE --work-dir DIR [--resume]``; options are ``key=value`` of the config."""

    target = "mmsegmentation"
    suffix = ".pth"

    def command(
        self, protocol: Protocol, weights: Path, folder: Path, seed: int, options: Sequence[str] = ()
    ) -> list[str]:
        """Return the command of one fine-tuning."""
        resume = ["--resume"] if partial_run(folder) else []
        tool = str(ROOT / "tools" / "train_seg.py")
        given = [str(ROOT / protocol.config), "--weights", str(weights), "--work-dir", str(folder), "--seed", str(seed)]
        return [sys.executable, tool, *given, *resume, *(["--cfg-options", *options] if options else [])]

    def vary(self, command: list[str], variation: Variation) -> list[str]:
        """Put options first, since ``--cfg-options`` takes all that follows; several devices are started by torchrun."""
        python, tool, *rest = command
        launch, launcher = [python, tool], []
        if variation.devices != 1:
            processes = ["--standalone", "--nproc_per_node", str(variation.devices)]
            launch, launcher = [python, "-m", "torch.distributed.run", *processes, tool], ["--launcher", "pytorch"]
        return [*launch, *launcher, *variation.options(), *rest]

    def summary(self, config: Path) -> dict[str, Any]:
        """Read the published protocol from a config."""
        from transfer.frameworks.mmseg import run  # here: MMSegmentation loads for seconds

        cfg = run.read_config(config, [])
        batch = cfg.auto_scale_lr.base_batch_size
        return run.protocol.summary(cfg, batch // cfg.train_dataloader.batch_size, batch)

    def bases(self, config: Path) -> list[Path]:
        """Read ``_base_ = ...``: a path or a list of paths relative to the file (MMEngine's rule)."""
        bases: list[str] = []
        for statement in ast.parse(config.read_text()).body:
            if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "_base_":
                value = ast.literal_eval(statement.value)
                bases = [value] if isinstance(value, str) else list(value)
        return [(config.parent / base).resolve() for base in bases]
