"""Time an iteration of tools/train_net.py and tools/train_seg.py against Detectron2's and MMEngine's own loops.

    python benchmarks/wrappers.py [--rounds 18]

Both sides run in one process, each in its own thread, and only one at a time: they take turns of two iterations of the
same config (slim networks, the embedded set), with the same seeds, data and one thread of arithmetic. A round is as many
turns as it takes both to log, so that every ratio holds all that is done now and then. At the end their weights must be
equal, so both did the same work. Ours is what the tools run, with journal, TensorBoard and load check.
"""

import argparse
import contextlib
import os
import queue
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import figures
import numpy as np
import torch
from torch import nn

GOAL = 1.02  # of the framework's own time
DETECTION = figures.ROOT / "configs/transfer/detection/mask-rcnn_r18w16-fpn_1xb4-400_shapes.yaml"
SEGMENTATION = figures.ROOT / "configs/transfer/segmentation/fcn_r18w16-d32_1xb16-280i_shapes-64x64.py"
TURN = 2  # iterations; short, so that the host's changes of speed meet both sides
ROUND = 20  # iterations of each side: one period of the detection log, two of the segmentation log
PATIENCE = 300  # seconds until a side that says nothing is given up


class Times(NamedTuple):
    """Seconds on the clock, of this process's work, and that this thread was ready but had no core; one side works at a time."""

    wall: float
    processor: float
    queued: float

    @classmethod
    def now(cls) -> "Times":
        """Read all three (Linux: the second number of ``schedstat`` is the time in the queue for a core, in ns)."""
        queued = int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
        return cls(time.perf_counter(), time.process_time(), queued)

    @property
    def undisturbed(self) -> float:
        """Return what the clock would show with no other load: work, and waiting for anything but a core."""
        return self.wall - self.queued


class Side:
    """One loop in its own thread, which waits before an iteration until it may do some more."""

    def __init__(self, run: Callable[["Side"], None]) -> None:
        self.model: nn.Module | None = None
        self.resume: Callable[[], None] = lambda: None
        self._allowed: queue.Queue[int] = queue.Queue()
        self._arrived: queue.Queue[Times | BaseException] = queue.Queue()
        self._left, self._turns, self._began = 0, 0, Times.now()
        self._thread = threading.Thread(target=self._guarded, args=(run,), daemon=True)

    def begin(self) -> None:
        """Start the loop and wait until it stands before its first iteration."""
        seed(0)
        self._thread.start()
        self._result()

    def turn(self) -> Times:
        """Let the loop do ``TURN`` iterations; return the seconds they took, data included."""
        self._allowed.put(TURN)
        ended = self._result()
        return Times(*(end - start for end, start in zip(ended, self._began, strict=True)))

    def pass_by(self) -> None:
        """Be called by the loop before every iteration."""
        if self._left == 0:
            self._arrived.put(Times.now())
            self._left = self._allowed.get()
            self._turns += 1
            self.resume()
            seed(self._turns)
            self._began = Times.now()
        self._left -= 1

    def _guarded(self, run: Callable[["Side"], None]) -> None:
        try:
            run(self)
        except BaseException as error:
            self._arrived.put(error)
        else:
            self._arrived.put(RuntimeError("the loop ended before it was timed"))

    def _result(self) -> Times:
        found = self._arrived.get(timeout=PATIENCE)
        if isinstance(found, BaseException):
            raise found
        return found


def seed(number: int) -> None:
    """Seed all that the loops draw from."""
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def detection(folder: Path, iterations: int) -> tuple[Side, Side]:
    """Return our detection run and Detectron2's DefaultTrainer on the same config."""
    sys.path.insert(0, str(figures.ROOT / "tools"))
    import train_net

    from transfer.frameworks.detectron2 import run  # isort: skip - before Detectron2
    from detectron2.engine import DefaultTrainer, HookBase
    from detectron2.utils import events

    class Pause(HookBase):
        def __init__(self, side: Side) -> None:
            self.side = side

        def before_train(self) -> None:
            self.side.model = self.trainer.model
            self.side.resume = lambda: events._CURRENT_STORAGE_STACK.__setitem__(slice(None), [self.trainer.storage])

        def before_step(self) -> None:
            self.side.pass_by()

    options = f"SOLVER.OPTIMIZER SGD SOLVER.MAX_ITER {iterations} DATALOADER.NUM_WORKERS 0 SEED 1 OUTPUT_DIR".split()
    asked = train_net.parser().parse_args(["--config-file", str(DETECTION), *options, str(folder / "ours")])
    plan = run.prepare(asked)

    def ours(side: Side) -> None:
        build = run.Trainer.build_hooks
        run.Trainer.build_hooks = lambda trainer: [*build(trainer), Pause(side)]  # type: ignore[assignment]
        run.work(plan)

    def theirs(side: Side) -> None:
        cfg = plan.cfg.clone()
        cfg.defrost()
        cfg.OUTPUT_DIR = str(folder / "theirs")
        Path(cfg.OUTPUT_DIR).mkdir()
        seed_all(cfg.SEED)
        trainer = DefaultTrainer(cfg)
        trainer.register_hooks([Pause(side)])
        trainer.train()

    from detectron2.utils.env import seed_all_rng as seed_all

    return Side(ours), Side(theirs)


def segmentation(folder: Path, iterations: int) -> tuple[Side, Side]:
    """Return our segmentation run and MMEngine's Runner on the same config."""
    from transfer.frameworks.mmseg import run as runner  # isort: skip - before any mm* package
    from mmengine.config import Config
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS
    from mmengine.runner import Runner

    sides: dict[str, Side] = {}

    @HOOKS.register_module()
    class Pause(Hook):
        priority = "HIGHEST"

        def __init__(self, side: str) -> None:
            self.side = sides[side]

        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            self.side.model = runner.model
            self.side.pass_by()

    for name in ("ours", "theirs"):
        text = f"_base_ = {str(SEGMENTATION)!r}\ncustom_hooks = [dict(type='Pause', side={name!r})]\n"
        length = f"train_cfg = dict(max_iters={iterations}, val_interval={iterations})\n"
        (folder / f"{name}.py").write_text(text + length)

    def ours(side: Side) -> None:
        runner.run(folder / "ours.py", folder / "seg-ours", seed=1)

    def theirs(side: Side) -> None:
        cfg = Config.fromfile(folder / "theirs.py")
        cfg.work_dir, cfg.randomness, cfg.launcher = str(folder / "seg-theirs"), {"seed": 1}, "none"
        Runner.from_cfg(cfg).train()

    sides |= {"ours": Side(ours), "theirs": Side(theirs)}
    return sides["ours"], sides["theirs"]


def measure(what: str, sides: tuple[Side, Side], rounds: int) -> list[figures.Figure]:
    """Let both take turns, the first of them now one, now the other; return the time of ours over theirs, round by round."""
    for side in sides:
        side.begin()
    one_round(sides)  # to warm up
    times = [one_round(sides) for _ in range(rounds)]
    check_equal(*sides)
    ours, theirs = (1000 * statistics.median(pair[index].wall for pair in times) / ROUND for index in (0, 1))
    tool, loop = ("train_net.py", "Detectron2's loop") if what == "detection" else ("train_seg.py", "MMEngine's Runner")
    name = f"iteration of tools/{tool} over one of {loop}"
    detail = f"{ours:.1f} ms against {theirs:.1f} ms, rounds of {ROUND} iterations, weights equal in the end"
    wall, processor, undisturbed = (
        [getattr(our, clock) / getattr(their, clock) for our, their in times]
        for clock in ("wall", "processor", "undisturbed")
    )
    return [
        figures.of(name, wall, goal=GOAL, sense="at most", detail=detail, limit=other_load(wall, undisturbed)),
        figures.of(f"{name}, processor time", processor),
    ]


def one_round(sides: tuple[Side, Side]) -> tuple[Times, Times]:
    """Return the seconds of ``ROUND`` iterations of ours and of theirs, done in turns."""
    turns: tuple[list[Times], list[Times]] = ([], [])
    for number in range(ROUND // TURN):
        for index in (0, 1) if number % 2 else (1, 0):
            turns[index].append(sides[index].turn())
    ours, theirs = (Times(*map(sum, zip(*one, strict=True))) for one in turns)
    return ours, theirs


def other_load(wall: list[float], undisturbed: list[float]) -> str:
    """Explain a clock that runs past the goal only because others had the core; our own waiting, as for a disk, is no excuse."""
    left = statistics.median(undisturbed)
    told = f"without the time in the queue for a core ours is {left:.3f} of the framework's: the rest is the machine's other load"
    return told if left <= GOAL < statistics.median(wall) else ""


def check_equal(first: Side, second: Side) -> None:
    """Raise AssertionError when the two networks were not trained alike."""
    assert first.model is not None
    assert second.model is not None
    mine, reference = dict(first.model.named_parameters()), dict(second.model.named_parameters())
    assert mine.keys() == reference.keys()
    worst = max(float((mine[name] - reference[name]).detach().abs().max()) for name in mine)
    assert worst < 1e-4, f"the weights differ by {worst}: the two did not do the same work"


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=18)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="wrappers-") as scratch,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        for what, make in (("detection", detection), ("segmentation", segmentation)):
            found += measure(what, make(Path(scratch), (rounds + 2) * ROUND), rounds)
    return figures.finish("wrappers", found, threads=1)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the loops still wait for their next turn
