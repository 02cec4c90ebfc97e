"""What is drawn on the host, once: ahead by a worker of the data loader, or when a branch asks for it."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Generator, Tensor

Kept = dict[str, Tensor]  # by label, purpose and name


class Generators(Sequence[Generator]):
    """Generators that are made when they are drawn from, and with ``kept`` what was drawn from them before."""

    def __init__(self, count: int, make: Callable[[int], Generator], key: str, kept: Kept | None) -> None:
        self._made: list[Generator] | None = None
        self._count, self._make, self.key, self.kept = count, make, key, kept

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number):
        """Return one generator, or several."""
        if self._made is None:
            assert not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()), (
                f"a captured step cannot draw {self.key} on the host: draw it through pretrain.drawing.once"
            )
            self._made = [self._make(row) for row in range(self._count)]
        return self._made[number]

    def __iter__(self) -> Iterator[Generator]:
        return iter(self[:])


def once(generators: Sequence[Generator], name: str, make: Callable[[], Tensor]) -> Tensor:
    """Return what was drawn from these generators under this name, or draw it now and keep it."""
    if not isinstance(generators, Generators) or generators.kept is None:
        return make()
    key = f"{generators.key}/{name}"
    if key not in generators.kept:
        generators.kept[key] = make()
    return generators.kept[key]
