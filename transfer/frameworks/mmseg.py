"""MMSegmentation through ``tools/train_seg.py``, with MMSegmentation's own command line."""

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

from core.provenance import ROOT
from transfer.benchmarks import Protocol
from transfer.frameworks import Framework, partial_run


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

    def bases(self, config: Path) -> list[Path]:
        """Read ``_base_ = ...``: a path or a list of paths relative to the file (MMEngine's rule)."""
        bases: list[str] = []
        for statement in ast.parse(config.read_text()).body:
            if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "_base_":
                value = ast.literal_eval(statement.value)
                bases = [value] if isinstance(value, str) else list(value)
        return [(config.parent / base).resolve() for base in bases]
