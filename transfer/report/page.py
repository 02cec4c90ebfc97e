"""The report as one HTML file that needs nothing else: styles, charts and pictures are inside, all text is escaped."""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from core.files import write_atomic
from transfer import published
from transfer.durations import duration
from transfer.report import evidence, forest, wording
from transfer.report.model import MARKS, Column, Report, Row, short, signed

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class RecipeLine:
    """One setting of a protocol: as published, and as run by each checkpoint."""

    name: str
    wanted: str
    seen: list[tuple[str, bool]]  # (value, whether it differs from the published one)


def write(report: Report, path: Path) -> None:
    """Write ``report.html``."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "duration": duration, "plain": wording.plain, "signed": signed}
    environment.tests["search_dash"] = lambda metric: "-" in metric  # bbox/AP-cat: a class's own
    environment.globals["wording"] = wording
    script = (TEMPLATES / "page.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    pictures = evidence.Pictures()
    values: dict[str, Any] = {
        "report": report,
        "marks": MARKS,
        "style": Markup((TEMPLATES / "page.css").read_text()),
        "script": Markup(script),
        "script_hash": digest,  # the page's policy admits this one script and no request at all
        "styles": evidence.styles(report),
        "forests": forest.forests(report),
        "charts": evidence.curves(report),
        "views": evidence.views(report, pictures),
        "predictions": [(column, evidence.predictions(report, column, pictures)) for column in report.columns],
        "costs": evidence.costs(report),
        "trial_cost": evidence.trial_cost,
        "recipes": {column: _recipe(report, column) for column in report.columns},
        "published": {column: published.of(column.plugin) for column in report.columns},
        "environments": evidence.environments(report),
        "pictures": pictures,
        "missing": [(r, c) for r in report.rows for c in report.columns if report.cell(r, c).missing],
    }
    write_atomic(path, environment.get_template("page.html").render(values))


def _recipe(report: Report, column: Column) -> list[RecipeLine]:
    """Compare each checkpoint's effective recipe with the published one, setting by setting."""
    rows = [row for row in report.rows if report.cell(row, column).trials]
    pairs = [_pair(report, row, column) for row in rows]
    names = dict.fromkeys(name for effective, wanted in pairs for name in (*wanted, *effective))
    lines = []
    for name in names:
        wanted = next((wanted[name] for _, wanted in pairs if name in wanted), None)
        seen = [(wording.plain(e.get(name, "–")), name in w and e.get(name) != w[name]) for e, w in pairs]
        lines.append(RecipeLine(name, wording.plain(wanted), seen))
    return lines


def _pair(report: Report, row: Row, column: Column) -> tuple[dict[str, Any], dict[str, Any]]:
    recipe = report.cell(row, column).trials[0][1].recipe
    return recipe.get("effective", {}), recipe.get("published", {})
