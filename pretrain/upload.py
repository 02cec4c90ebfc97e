"""From the host to the device without a wait."""

import torch
from torch import Tensor


def upload(drawn: Tensor, device: torch.device) -> Tensor:
    """Move what was drawn on the CPU to ``device``; through pinned memory, which a GPU reads while the host goes on."""
    if device.type == "cuda":
        drawn = drawn.pin_memory()
    if device.type == "mps" and drawn.dtype == torch.float64:  # unknown there
        drawn = drawn.float()
    return drawn.to(device, non_blocking=True)
