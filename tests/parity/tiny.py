"""A float64 network of a few hundred weights under the real method, and batches for it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.backbones import Backbone, Rules
from pretrain.methods.moco import Moco


class Tiny(Backbone):
    """One smooth convolution with batch norm, so that images of a batch influence each other as in a ResNet."""

    feature_dim = 5

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, self.feature_dim, 3, stride=2)
        self.bn = nn.BatchNorm2d(self.feature_dim)

    def stages(self, images: Tensor) -> list[Tensor]:
        """Return one map; the contract's other three are not needed here."""
        return [torch.tanh(self.bn(self.conv(images)))]

    @classmethod
    def rename_rules(cls, framework: str) -> Rules:
        """Return nothing: this backbone goes nowhere."""
        return []


def moco(seed: int = 0, **config: Any) -> Moco:
    """Return MoCo on ``Tiny`` in float64, its key encoder some way behind the query encoder."""
    torch.manual_seed(seed)
    method = Moco(Moco.Config(**{"queue": 16, "dim": 4, "hidden": 6} | config), Tiny()).double()
    with torch.no_grad():
        for parameter in method.key_encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method.train()


def pair(count: int = 4, size: int = 16, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return two views of ``count`` images in float64."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)
    return images, images + 0.5 * torch.randn(images.shape, generator=generator, dtype=torch.float64)


def features(network: nn.Module, images: np.ndarray | Tensor) -> np.ndarray:
    """Return unit-length outputs of ``network`` as NumPy rows, each divided by its norm in a loop."""
    with torch.no_grad():
        rows = network(torch.as_tensor(images)).numpy()
    return np.stack([row / np.sqrt(sum(value**2 for value in row)) for row in rows])


def shipped_moco(**config: Any) -> Moco:
    """Return the method as it runs, in float32, with the weights of ``moco``."""
    double = moco(**config)
    method = Moco(double.config, Tiny())
    method.load_state_dict(double.state_dict())
    return method.train()
