"""A step as one CUDA graph: launched as a whole, it costs the host next to nothing.

A graph reads the same places in memory again (``pretrain/upload.py:Inputs``) and repeats nothing of what the host did in the
step that was captured; so all that changes from step to step lies there, and a step that draws or copies otherwise is refused.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from core import distributed
from pretrain.optimizers import OptimizerSettings

WARM = 3  # steps before the one that is captured: kernels are chosen and compiled, and memory is found
APART = 0.05  # of what a step changes: as far as kernels that add in any order may take the captured one from the other
State = Mapping[str, Sequence[Tensor]]


def why_not(device: torch.device, optimizer: OptimizerSettings) -> str | None:
    """Return why a step cannot be captured here, or None."""
    if device.type != "cuda":
        return f"a step on {device.type} has no kernels to launch together"
    if distributed.world() > 1:
        return "processes exchange as many rows as each step draws, which no graph can change"
    if not optimizer.rate_on_device:
        return f"{optimizer.name} reads its learning rate on the host"
    return None


class Captured:
    """Takes steps: the first ones as they are written, then one both so and as a graph; if the two agree, the graph for good.

    ``state`` lists all that a step changes, by kind, of which ``rest`` is not compared; ``mend`` puts right what a step that
    broke off leaves behind.
    """

    def __init__(self, take: Callable[[Any], Any], state: Callable[[], State], mend: Callable[[], None]) -> None:
        self._take, self._state, self._mend = take, state, mend
        self._steps, self._outcome = 0, None
        self._given: Any = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, given: Any) -> Any:
        """Take one step of what lies in ``given``; the outcome of a captured step is overwritten by the next one."""
        if self._graph is not None and all(map(_same, given, self._given)):
            self._graph.replay()
            return self._outcome
        self._steps += 1
        if self._graph is not None:
            self._refuse("a step has inputs of other shapes")
        return self._capture(given) if self._steps == WARM + 1 else self._take(given)

    @property
    def plays(self) -> bool:
        """Tell whether steps are launched as a graph by now."""
        return self._graph is not None

    def _capture(self, given: Any) -> Any:
        """Take one step as it is written, and once more from the same state as a graph."""
        device = torch.cuda.current_device()
        before, drawn = self._copies(), torch.cuda.get_rng_state(device)
        outcome = self._take(given)
        wanted, drawn_after = self._copies(), torch.cuda.get_rng_state(device)
        if before is None or wanted is None:
            self._refuse("there is no memory for two more copies of what a step changes")
            return outcome
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # workers' threads go on
                captured = self._take(given)
            self._put_back(before)
            torch.cuda.set_rng_state(drawn, device)
            graph.replay()
            off = _apart(self._state(), wanted, before)
        except Exception as error:
            torch.cuda.set_stream(stream)
            reason = str(error).strip().split("\n")[0]
            off = float("nan")
        else:
            reason = f"its step and the same one launched kernel by kernel are {off:.2g} of a step apart"
        if off <= APART:
            self._graph, self._given, self._outcome = graph, given, captured
            print(f"steps are launched as one CUDA graph from here on; {reason}", file=sys.stderr)
            return captured
        self._refuse(reason)
        self._put_back(wanted)
        torch.cuda.set_rng_state(drawn_after, device)
        return outcome

    def _refuse(self, reason: str) -> None:
        self._graph = self._given = self._outcome = None
        self._mend()
        print(f"run.graphs: no CUDA graph, {reason}; steps are launched kernel by kernel", file=sys.stderr)

    def _copies(self) -> State | None:
        try:
            return {name: [tensor.detach().clone() for tensor in part] for name, part in self._state().items()}
        except torch.OutOfMemoryError:
            return None

    @torch.no_grad()
    def _put_back(self, kept: State) -> None:
        for name, part in self._state().items():
            for tensor, value in zip(part, kept[name], strict=True):
                tensor.copy_(value)


def _same(one: Any, other: Any) -> bool:
    """Tell whether two parts of a step's inputs are the same memory."""
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one is other


def _apart(found: State, wanted: State, before: State) -> float:
    """Return how far two steps lie apart, as a share of what a step changes; of the kind of numbers that is worst off."""
    shares = []
    for name in wanted.keys() - {"rest"}:
        part = wanted[name]
        off = _norm([a.detach().double() - b.double() for a, b in zip(found[name], part, strict=True)])
        moved = _norm([b.double() - c.double() for b, c in zip(part, before[name], strict=True)])
        shares.append(off / moved if moved or off != off else off)
    return max(shares, default=0.0) if all(share == share for share in shares) else float("nan")


def _norm(tensors: list[Tensor]) -> float:
    return torch.stack([tensor.norm() for tensor in tensors]).norm().item() if tensors else 0.0
