"""Detectron2: ``.pkl`` as its users expect it, ``.pth`` as the form that needs no pickle of arrays."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transfer.load_check import compare
from transfer.recipe import Recipe
from transfer.targets import Target

AUTHOR = "masktransfer"


class Detectron2(Target):
    """``{"model": ..., "__author__": ..., "matching_heuristics": True, "recipe": ...}``."""

    suffixes = (".pkl", ".pth")

    @classmethod
    def rules_name(cls) -> str:
        """Return ``detectron2``."""
        return "detectron2"

    @classmethod
    def pack(cls, tensors: dict[str, Tensor], recipe: Recipe, suffix: str) -> bytes:
        """Serialise as a pickle of arrays or with ``torch.save``."""
        model = {name: tensor.numpy() for name, tensor in tensors.items()} if suffix == ".pkl" else tensors
        content = {"model": model, "__author__": AUTHOR, "matching_heuristics": True, "recipe": recipe.to_dict()}
        if suffix == ".pkl":
            return pickle.dumps(content, protocol=4)
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    @classmethod
    def unpack(cls, file: dict[str, Any]) -> dict[str, Tensor]:
        """Return the entries of ``model`` as tensors."""
        return {name: torch.as_tensor(value) for name, value in file["model"].items()}

    @classmethod
    def stages(cls, file: Path, tensors: dict[str, Tensor], recipe: Recipe, images: Tensor) -> list[Tensor]:
        """Run Detectron2's ResNet and return res2 to res5."""
        network = build_network(recipe).eval()
        network.load_state_dict(tensors, strict=False)  # the file carries no num_batches_tracked
        compare(network.state_dict(), tensors, str(file))
        with torch.no_grad():
            features = network(images)
        return [features[f"res{index}"] for index in range(2, 6)]


def build_network(recipe: Recipe) -> nn.Module:
    """Build Detectron2's ResNet of the recipe's depth and width, stride in the 3x3 convolution."""
    from transfer.detection import compat  # before any part of detectron2

    with compat.quiet():
        from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock, ResNet

    from core.backbones.resnet import BLOCKS

    _, counts = BLOCKS[recipe.depth]
    basic = recipe.depth < 50
    stages, channels = [], recipe.width
    for index, count in enumerate(counts):
        planes = recipe.width * 2**index
        out = planes if basic else 4 * planes
        extra = {} if basic else {"bottleneck_channels": planes, "stride_in_1x1": False}
        strides = [1 if index == 0 else 2] + [1] * (count - 1)
        stages.append(
            ResNet.make_stage(
                BasicBlock if basic else BottleneckBlock,
                count,
                stride_per_block=strides,
                in_channels=channels,
                out_channels=out,
                norm="BN",
                **extra,
            )
        )
        channels = out
    stem = BasicStem(3, recipe.width, "BN")
    return ResNet(stem, stages, out_features=["res2", "res3", "res4", "res5"])
