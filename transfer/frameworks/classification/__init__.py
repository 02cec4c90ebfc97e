"""Classification through ``tools/train_classifier.py``, with this project's own YAML configs."""

import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from core import bounds
from core.provenance import ROOT
from transfer.benchmarks import Benchmark
from transfer.frameworks import PUBLISHED, Departure, Framework, partial_run


class Classification(Framework):
    """Measure with ``CONFIG --weights FILE --work-dir DIR --seed N [--resume]``; options are ``key=value`` of the config."""

    target = "classification"
    suffix = ".pth"
    varies = ("data", "tiny")
    kind = "classes"

    def command(
        self,
        benchmark: Benchmark,
        weights: Path,
        folder: Path,
        seed: int,
        options: Sequence[str] = (),
        departure: Departure = PUBLISHED,
    ) -> list[str]:
        """Return the command of one measurement."""
        tool = str(ROOT / "tools" / "train_classifier.py")
        given = [str(benchmark.config_file), "--weights", str(weights), "--work-dir", str(folder), "--seed", str(seed)]
        return [sys.executable, tool, *given, *departure.options(), *partial_run(folder), *options]

    def bases(self, config: Path) -> list[Path]:
        """Read ``_base_``: a path or a list of paths relative to the file (``core.config``'s rule)."""
        values = yaml.load(bounds.yaml_text(config), Loader=yaml.BaseLoader) or {}  # noqa: S506 - builds text alone
        bases = values.get("_base_", [])
        return [(config.parent / base).resolve() for base in ([bases] if isinstance(bases, str) else bases)]
