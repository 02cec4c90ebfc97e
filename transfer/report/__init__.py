"""Reports: one model (``model.py``), and one writer a form.

To add a form, write ``transfer/report/NAME.py`` with a function ``write(report: Report, path: Path) -> None`` and name
it in ``FORMS``. A writer decides nothing: every number, verdict and notice stands in the model.
"""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import InputError
from core.files import temporary_folder, unwritable
from core.meter import track
from transfer.results import SILENT

if TYPE_CHECKING:
    from transfer.report.model import Report

FORMS = {"report.md": "markdown", "report.html": "page", "report.csv": "export", "report.tex": "paper"}


def write(report: "Report", folder: Path) -> list[Path]:
    """Write every form into ``folder`` and return the files; if one cannot be written, all old ones stay."""
    if folder.is_file():
        raise InputError(f"{folder} is a file; give --out a folder")
    try:
        with temporary_folder(folder, "report") as staging:
            for name, module in track(FORMS.items(), "writing the report", len(FORMS), SILENT):
                importlib.import_module(f"transfer.report.{module}").write(report, staging / name)
            for name in FORMS:
                os.replace(staging / name, folder / name)
    except OSError as error:
        raise unwritable(folder, error, "choose another folder with --out") from error
    return [folder / name for name in FORMS]
