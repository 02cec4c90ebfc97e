"""MMSegmentation's own ResNet, built from a recipe (mmseg/models/backbones/resnet.py)."""

from transfer.frameworks.mmseg import compat  # noqa: F401, I001 - first: it prepares the mm* packages

from mmseg.models.backbones import ResNet
from torch import nn

from transfer.convert.recipe import Recipe


def build_network(recipe: Recipe) -> nn.Module:
    """Build ``ResNet(style='pytorch')``, undilated, of the recipe's depth and width; it returns its four stages."""
    return ResNet(
        depth=recipe.depth,
        base_channels=recipe.width,
        stem_channels=recipe.width,
        style="pytorch",
        norm_cfg={"type": "BN"},
        norm_eval=False,
    )
