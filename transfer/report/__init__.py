"""Reports: one model (``model.py``), and one writer a form.

To add a form, write ``transfer/report/NAME.py`` with a function ``write(report: Report, path: Path) -> None`` and name
it in ``FORMS``. A writer decides nothing: every number, verdict and notice stands in the model.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import InputError

if TYPE_CHECKING:
    from transfer.report.model import Report

FORMS = {"report.md": "markdown", "report.html": "page", "report.csv": "tidy", "report.tex": "latex"}


def write(report: "Report", folder: Path) -> list[Path]:
    """Write every form into ``folder`` and return the files."""
    if folder.is_file():
        raise InputError(f"{folder} is a file; give --out a folder")
    paths = []
    for name, module in FORMS.items():
        importlib.import_module(f"transfer.report.{module}").write(report, folder / name)
        paths.append(folder / name)
    return paths
