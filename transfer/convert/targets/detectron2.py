"""Detectron2: ``.pkl`` as its users expect it, ``.pth`` as the form that needs no pickle of arrays."""

import importlib
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transfer.convert.load_check import compare
from transfer.convert.recipe import Recipe
from transfer.convert.targets import Target, torch_bytes

AUTHOR = "masktransfer"


class Detectron2(Target):
    """``{"model": ..., "__author__": ..., "matching_heuristics": True, "recipe": ...}``."""

    suffixes = (".pkl", ".pth")
    stems = ("imagenet", "patch")

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
        return torch_bytes(content)

    @classmethod
    def unpack(cls, file: dict[str, Any]) -> dict[str, Tensor]:
        """Return the entries of ``model`` as tensors."""
        return {name: torch.as_tensor(value) for name, value in file["model"].items()}

    @classmethod
    def stages(cls, file: Path, tensors: dict[str, Tensor], recipe: Recipe, images: Tensor) -> list[Tensor]:
        """Run Detectron2's network of the recipe's family and return res2 to res5."""
        side = importlib.import_module("transfer.frameworks.detectron2.backbones").FAMILIES[recipe.family]
        network = side.build_network(recipe).eval()
        network.load_state_dict(tensors, strict=False)  # the file carries no num_batches_tracked
        compare(network.state_dict(), tensors, str(file))
        with torch.no_grad():
            features = network(images)
        return [features[f"res{index}"] for index in range(2, 6)]
