"""The head of the FCN-16s protocol, registered with MMSegmentation; configs name this module in ``custom_imports``."""

from typing import Any

from transfer.frameworks.mmseg import compat  # isort: skip # noqa: F401 - before any mm* package
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS


@MODELS.register_module()
class FCN16sHead(FCNHead):
    """Two 3x3 convolutions of 256 channels and dilation 6 with BN and ReLU, then a 1x1 (MoCo, arXiv 1911.05722, appendix)."""

    def __init__(self, **settings: Any) -> None:
        # no dropout, and the input is not joined to the output: MMSegmentation's FCNHead does both by default
        own = {"channels": 256, "num_convs": 2, "dilation": 6, "concat_input": False, "dropout_ratio": 0.0}
        super().__init__(**{**own, **settings})
