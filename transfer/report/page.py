"""The report as one HTML file that needs nothing else: styles, charts and pictures are inside, all text is escaped."""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from core.files import write_atomic
from transfer.report import breakdown, cost, curves, diagram, forest, pictures, published, wording
from transfer.report.cache import Cache
from transfer.report.environments import environments
from transfer.report.model import MARKS, Column, Report, Row, short, signed
from transfer.report.pictures import Pictures
from transfer.results import duration

TEMPLATES = Path(__file__).parent / "templates"
LARGEST = 7_800_000  # bytes of the page; pictures get what the rest leaves
PICTURES = 6_000_000
COMMANDS = 4000  # trials whose commands are printed


@dataclass(frozen=True)
class Section:
    """One part of the page: its anchor, which is also its template's name, and its title in the contents.

    ``gather`` returns what the template needs, None where there is nothing to show.
    """

    name: str
    title: str
    gather: Callable[[Report, Cache], dict[str, Any] | None]


@dataclass(frozen=True)
class RecipeLine:
    """One setting of a protocol: as published, and as run by each checkpoint."""

    name: str
    wanted: str
    seen: list[tuple[str, bool]]  # (value, whether it differs from the published one)


def write(report: Report, path: Path) -> None:
    """Write ``report.html``."""
    cache = Cache(report.folder)
    environment = _environment(report)
    shown: dict[str, str] = {}
    for section in SECTIONS:
        values = section.gather(report, cache)
        if values is not None:
            shown[section.name] = environment.get_template(f"sections/{section.name}.html").render(values)
    left = min(PICTURES, LARGEST - sum(map(len, shown.values())))
    shown |= _with_pictures(report, environment, cache, left)
    titles = {section.name: section.title for section in (*SECTIONS, *WITH_PICTURES)}
    script = (TEMPLATES / "page.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("page.html").render(
        style=Markup((TEMPLATES / "page.css").read_text()),
        script=Markup(script),
        script_hash=digest,  # the page's policy admits this one script and no request at all
        contents=[(name, titles[name]) for name in ORDER if name in shown],
        sections=[Markup(shown[name]) for name in ORDER if name in shown],
    )
    write_atomic(path, page)
    cache.save()


def _environment(report: Report) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "duration": duration, "plain": wording.plain, "signed": signed}
    numbered: list[Row | Column] = [*report.rows, *report.columns]
    environment.globals |= {
        "report": report,
        "wording": wording,
        "marks": MARKS,
        "styles": report.styles,
        "ids": {thing: numbered.index(thing) for thing in numbered},
        "tally": wording.tally(report),
    }
    return environment


def _with_pictures(report: Report, environment: Environment, cache: Cache, left: int) -> dict[str, str]:
    images = pictures.images(report)
    embedded = Pictures(cache, left, pictures.widest(images))
    shown = {}
    if views := pictures.views(report, embedded):
        shown["views"] = environment.get_template("sections/views.html").render(views=views)
    found = [(image, pictures.embedded(image, embedded)) for image in images]
    values = {"predictions": found, "pictures": embedded, "most": pictures.BACKBONES}
    shown["predictions"] = environment.get_template("sections/predictions.html").render(values)
    return shown


def _differences(report: Report, _: Cache) -> dict[str, Any] | None:
    found = forest.forests(report)
    return {"forests": found} if found else None


def _ranks(report: Report, _: Cache) -> dict[str, Any] | None:
    found = diagram.diagram(report)
    return {"diagram": found} if found else None


def _cost(report: Report, _: Cache) -> dict[str, Any]:
    costs = cost.costs(report)
    return {"costs": costs, "matched": cost.matched(report, costs), "trial_cost": cost.trial_cost}


def _breakdown(report: Report, _: Cache) -> dict[str, Any] | None:
    values = {"sizes": breakdown.sizes(report), "classes": breakdown.classes(report)}
    return values if any(values.values()) else None


def _curves(report: Report, cache: Cache) -> dict[str, Any] | None:
    found, knn = curves.losses(report, cache), curves.monitored(report, cache)
    return {"losses": found, "knn": knn} if found or knn else None


def _evaluations(report: Report, cache: Cache) -> dict[str, Any] | None:
    found = curves.evaluations(report, cache)
    return {"evaluations": found, "precision": all(c.x_label == "recall" for c in found)} if found else None


def _metrics(report: Report, _: Cache) -> dict[str, Any]:
    return {"published": {column: published.of(column.plugin) for column in report.columns}}


def _protocols(report: Report, _: Cache) -> dict[str, Any]:
    return {
        "recipes": {column: _recipe(report, column) for column in report.columns},
        "pretrained": {row: _pretrained(report, row) for row in report.rows},
    }


def _missing(report: Report, _: Cache) -> dict[str, Any]:
    return {"missing": [(r, c) for r in report.rows for c in report.columns if report.cell(r, c).missing]}


def _remake(report: Report, _: Cache) -> dict[str, Any]:
    every = report.trials <= COMMANDS
    found = []
    for row in report.rows:
        commands = []
        for column in report.columns:
            for path, result in report.cell(row, column).trials[: None if every else 1]:
                when = result.finished or "at an unknown time"
                what = f"{column.label}, trial {result.trial}, seed {wording.plain(result.seed)}, finished {when}"
                commands.append((what, wording.command(path, result)))
        if commands:
            found.append((row, commands))
    return {"environments": environments(report), "remake": found}


def _recipe(report: Report, column: Column) -> list[RecipeLine]:
    """Compare each checkpoint's effective recipe with the published one, setting by setting."""
    pairs = [_pair(report, row, column) for row in report.ran(column)]
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


def _pretrained(report: Report, row: Row) -> dict[str, Any]:
    """Return what the weights files say of how the backbone was made."""
    trials = (trial for column in report.columns for trial in report.cell(row, column).trials)
    return next((result.checkpoint.pretrain for _, result in trials if result.checkpoint.pretrain), {})


SECTIONS = (
    Section("results", "Results", lambda report, cache: {}),
    Section("differences", "Differences", _differences),
    Section("ranks", "Ranks", _ranks),
    Section("cost", "Cost", _cost),
    Section("breakdown", "Breakdown", _breakdown),
    Section("curves", "Training", _curves),
    Section("evaluations", "Precision–recall", _evaluations),
    Section("metrics", "All metrics", _metrics),
    Section("protocols", "Protocols", _protocols),
    Section("missing", "Missing", _missing),
    Section("remake", "Commands", _remake),
)
WITH_PICTURES = (
    Section("predictions", "Predictions", lambda report, cache: {}),
    Section("views", "Views", lambda report, cache: {}),
)
ORDER = (
    *("results", "differences", "ranks", "cost", "breakdown", "curves", "evaluations", "predictions", "views"),
    *("metrics", "protocols", "missing", "remake"),
)
