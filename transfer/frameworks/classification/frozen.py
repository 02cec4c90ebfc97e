"""Prove that a backbone is the same after as before, running statistics included."""

import torch
from torch import Tensor, nn

from core.errors import InputError


class FrozenError(InputError):
    """A tensor of a backbone that must not change has changed."""


class Frozen:
    """Put a network in evaluation mode, without gradients, channels-last, and remember every parameter and buffer."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.before: dict[str, Tensor] = {name: value.detach().clone() for name, value in network.state_dict().items()}

    def check(self) -> int:
        """Return how many tensors are bit for bit as before; raise FrozenError naming the first that is not."""
        after = self.network.state_dict()
        for name, value in self.before.items():
            if not torch.equal(value, after[name]):
                raise FrozenError(
                    f"{name} of the frozen backbone changed while it was measured; nothing is reported, please report this"
                )
        return len(self.before)
