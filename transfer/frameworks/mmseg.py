"""MMSegmentation through ``tools/train_seg.py``, with MMSegmentation's own command line."""

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

from core.provenance import ROOT
from transfer.benchmarks import Protocol
from transfer.frameworks import Framework, partial_run


class Mmseg(Framework):
    """Train with ``CONFIG --work-dir DIR [--resume] --cfg-options key=value ...``; options are further pairs."""

    target = "mmsegmentation"
    suffix = ".pth"

    def command(
        self, protocol: Protocol, weights: Path, folder: Path, seed: int, options: Sequence[str] = ()
    ) -> list[str]:
        """Return the command of one fine-tuning."""
        resume = ["--resume"] if partial_run(folder) else []
        keys = [f"model.backbone.init_cfg.checkpoint={weights}", f"randomness.seed={seed}"]
        tool = str(ROOT / "tools" / "train_seg.py")
        config = str(ROOT / protocol.config)
        return [sys.executable, tool, config, "--work-dir", str(folder), *resume, "--cfg-options", *keys, *options]

    def bases(self, config: Path) -> list[Path]:
        """Read ``_base_ = ...``: a path or a list of paths relative to the file (MMEngine's rule)."""
        bases: list[str] = []
        for statement in ast.parse(config.read_text()).body:
            if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "_base_":
                value = ast.literal_eval(statement.value)
                bases = [value] if isinstance(value, str) else list(value)
        return [(config.parent / base).resolve() for base in bases]
