"""Another image of the batch (MixMask, arXiv 2210.11456, sec. 3.1)."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Int
from torch import Generator, Tensor

from core.config import PluginSettings
from pretrain.drawing import PartnerOrder, check_partners, partners
from pretrain.fills import Fill


class Partner(Fill):
    """Shows the partner: the batch read backwards, or a random cycle through it."""

    mixes = True

    class Config(PluginSettings):
        """``order: reverse`` is the authors' choice alone, ``shuffle`` together with Un-Mix."""

        name: Literal["partner"] = "partner"
        order: PartnerOrder = "reverse"

    def __init__(self, config: "Partner.Config") -> None:
        self.order = config.order

    def check(self, size: int, group_rows: int) -> None:
        """Refuse groups in which some row would be its own partner."""
        check_partners(group_rows, self.order, "fill.order")

    def partner(self, count: int, groups: Sequence[Generator]) -> Int[Tensor, " count"]:
        """Choose each row's partner inside its group."""
        return partners(count, groups, self.order)

    def content(self, images: Tensor, generators: Sequence[Generator], partner: Tensor | None = None) -> Tensor:
        """Return the partners."""
        assert partner is not None
        return images[partner]
