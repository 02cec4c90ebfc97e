"""A checkout is the product: its configs and tools are part of it, so that only an editable install is built."""

import sys

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CheckoutOnly(BuildHookInterface):
    """Refuse a wheel that would leave configs and tools behind."""

    def initialize(self, version, build_data):
        """See hatchling; ``version`` is ``editable`` or ``standard``."""
        if version != "editable":
            sys.exit(
                "MaskTransfer runs from its checkout: git clone it, then `make setup` there, or `pip install --editable .`"
            )
