"""The type of the ``run_tool`` fixture."""

import subprocess
from collections.abc import Callable

Run = Callable[..., subprocess.CompletedProcess]
