"""Run pretrain/run.py's own ``main`` many times in one process on the null runtime: drive.py FOLDER STOP CONFIGS.

CONFIGS is a JSON file, configs by name. Each run is sent SIGTERM in step STOP and started again (a rank of torchrun: once).
Prints one JSON object a run: how its starts ended, and what was counted in every stretch between two log lines.
"""

import faulthandler
import functools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import nullcuda  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from torch.nn.parallel import distributed  # noqa: E402

from core.data import shapes  # noqa: E402
from pretrain import finite, graphs, run  # noqa: E402
from pretrain.finite import FirstBad  # noqa: E402
from pretrain.trainer import Trainer  # noqa: E402

faulthandler.dump_traceback_later(120)
stretches: list[dict[str, int]] = []
shapes.render = functools.cache(shapes.render)  # all runs have the same images
STOP, graphs.WARM = int(sys.argv[2]), 1


def reading(plain: Callable, on: bool) -> Callable:
    """Return a function during which reads do, or do not, give what was uploaded: DDP reads the sizes of its buckets."""

    @functools.wraps(plain)
    def call(*given: Any) -> Any:
        nullcuda.reads(on and "RANK" in os.environ)
        try:
            return plain(*given)
        finally:
            nullcuda.reads(not on and "RANK" in os.environ)

    return call


def watched(trainer: type[Trainer]) -> None:
    """Count between log lines, and ask a run to end in the midst of its first start."""
    step, values = trainer._step, trainer._values

    def counting_step(self: Trainer, batch: Any) -> Any:
        if self.step + 1 == STOP:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch)

    def counting_values(self: Trainer, outcome: Any) -> dict[str, float]:
        if nullcuda.counted()["launches"]:  # a run that is stopped looks once more at what it logged
            stretches.append(nullcuda.counted() | {"until": self.step})
        return values(self, outcome)

    def then_anew(plain: Callable) -> Callable:
        @functools.wraps(plain)
        def call(*given: Any) -> None:
            plain(*given)
            nullcuda.reset()

        return call

    trainer._step, trainer._values = counting_step, counting_values  # type: ignore[method-assign]
    for name in ("_prepare", "_log", "save"):
        setattr(trainer, name, then_anew(getattr(trainer, name)))


def start(config: Path, folder: Path) -> int | str:
    """Return the exit code of one start, or what it died of."""
    sys.argv = ["run.py", str(config), f"run.folder={folder}"]
    try:
        return run.main()
    except Exception:
        traceback.print_exc()
        return traceback.format_exc()


def main() -> None:
    """Run all configs."""
    folder = Path(sys.argv[1])
    watched(Trainer)
    Trainer._step = reading(Trainer._step, True)  # type: ignore[method-assign]
    torch.nn.SyncBatchNorm.forward = reading(torch.nn.SyncBatchNorm.forward, False)  # type: ignore[method-assign]
    if "RANK" in os.environ:
        finite.check = FirstBad.stop = lambda *given: None  # means over ranks are memory that nobody wrote
    distributed._verify_param_shape_across_processes = lambda *given: None  # it compares what NCCL gathers: nothing
    for name, settings in json.loads(Path(sys.argv[3]).read_text()).items():
        config = folder / f"{name}{os.environ.get('RANK', '')}.yaml"
        config.write_text(yaml.safe_dump(settings))
        stretches.clear()
        ends = [start(config, folder / name) for _ in range(1 if "RANK" in os.environ else 2)]
        print(json.dumps({"name": name, "ends": ends, "stretches": stretches}), flush=True)
    sys.stderr.flush()
    os._exit(0)  # CUDA's own shutdown would call the runtime after it is gone


main()
