"""timm's networks inside a framework: four stages, a norm that is synchronised or not, and stages that stay frozen."""

from collections.abc import Sequence
from typing import Any

import timm.layers
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from core.backbones.timm import Timm, stages_of


class TimmStages(nn.Module):
    """The feature maps of strides 4, 8, 16 and 32; tensors have timm's names under ``network.``, as in converted files.

    ``frozen`` counts the parts that neither learn nor update their norms: 1 is the stem, 2 the first stage too, and so on.
    ``norm`` is ``SyncBN`` or anything else for timm's own.
    """

    def open(self, model: str, *, frozen: int = 0, norm: str = "BN", norm_eval: bool = False, last: int = 4) -> None:
        """Build the network; to be called once the framework's own constructor has run. ``last`` is the number of stages."""
        made = Timm(Timm.Config(model=model), last=last)
        self.network = timm.layers.convert_sync_batchnorm(made.network) if norm == "SyncBN" else made.network
        self.indices, self.channels = list(made.indices), list(stages_of(model)[1][:last])
        parts = ["stem", "stage1", "stage2", "stage3", "stage4"][: max(0, frozen)]
        config = Timm.Config(model=model)
        for name, parameter in self.named_parameters():
            if name.startswith("network.") and Timm.stage_of(name, config) in parts:
                parameter.requires_grad_(False)
        norms = {name: module for name, module in self.network.named_modules() if isinstance(module, _BatchNorm)}
        self._fixed = [
            module
            for name, module in norms.items()
            if norm_eval or Timm.stage_of(f"network.{name}.weight", config) in parts
        ]

    def train(self, mode: bool = True) -> Any:
        """Leave the norms of frozen parts in evaluation."""
        super().train(mode)
        for module in self._fixed:
            module.eval()
        return self

    def maps(self, images: Tensor) -> Sequence[Tensor]:
        """Return the stages' feature maps, fine to coarse."""
        found: Sequence[Tensor] = self.network.forward_intermediates(
            images, indices=self.indices, intermediates_only=True
        )
        return found
