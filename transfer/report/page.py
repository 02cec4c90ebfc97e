"""The report as one HTML file that needs nothing else: styles, charts and pictures are inside, all text is escaped."""

import base64
import hashlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from core import bounds
from core.files import write_atomic
from core.meter import duration
from transfer.report import charts, cost, curves, published, wording
from transfer.report.curves import Cache
from transfer.report.model import MARKS, Column, Report, Row, short, signed

TEMPLATES = Path(__file__).parent / "templates"
LARGEST = 7_800_000  # bytes of the page; pictures get what the rest leaves
PICTURES = 6_000_000
COMMANDS = 4000  # trials whose commands are printed
WIDEST = 900  # pixels of an embedded picture,
NARROWER = 560  # where there are many
MANY = 60
SHOWN = 4  # images a benchmark
BACKBONES = 12  # side by side; the eye does not compare more
START = "data:image/webp;base64,"


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
        style=Markup((TEMPLATES / "page.css").read_text()),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=digest,  # the page's policy admits this one script and no request at all
        contents=[(name, titles[name]) for name in ORDER if name in shown],
        sections=[(name, titles[name], Markup(shown[name])) for name in ORDER if name in shown],  # noqa: S704 - escaped
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
        "answer": wording.answer(report, {taken.row: taken.relative for taken in cost.costs(report)}),
    }
    return environment


def _with_pictures(report: Report, environment: Environment, cache: Cache, left: int) -> dict[str, str]:
    wanted = images(report)
    pictures = Pictures(cache, left, widest(wanted))
    shown = {}
    if seen := views(report, pictures):
        shown["views"] = environment.get_template("sections/views.html").render(views=seen)
    found = [(image, embedded(image, pictures)) for image in wanted]
    colours = {image.column: class_colours(image) for image in wanted}
    values = {"predictions": found, "pictures": pictures, "most": BACKBONES, "colours": colours}
    shown["predictions"] = environment.get_template("sections/predictions.html").render(values)
    return shown


def _results(report: Report, _: Cache) -> dict[str, Any]:
    return {"taken": {taken.row: taken for taken in cost.costs(report)}}


def _differences(report: Report, _: Cache) -> dict[str, Any] | None:
    found = charts.forests(report)
    needs = wording.needs(cost.needs(report, wording.GAPS), wording.GAPS)
    return {"forests": found, "needs": needs} if found else None


def _ranks(report: Report, _: Cache) -> dict[str, Any] | None:
    found = charts.diagram(report)
    return {"diagram": found} if found else None


def _cost(report: Report, _: Cache) -> dict[str, Any]:
    costs = cost.costs(report)
    return {"costs": costs, "matched": cost.matched(report, costs), "trial_cost": cost.trial_cost}


def _breakdown(report: Report, _: Cache) -> dict[str, Any] | None:
    values = {"sizes": charts.sizes(report), "classes": charts.classes(report)}
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
        "pretrained": {row: report.pretrained(row) for row in report.rows},
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
                commands.append((what, wording.command(report, path, result)))
        if commands:
            found.append((row, commands))
    return {"environments": cost.environments(report), "remake": found}


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


SECTIONS = (
    Section("results", "Results", _results),
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


@dataclass
class Pictures:
    """Embeds picture files as data URIs within a budget of bytes; damaged files are left out and named."""

    cache: Cache
    left: int
    widest: int = WIDEST
    bad: list[Path] = field(default_factory=list)
    over: int = 0

    def embed(self, path: Path) -> str | None:
        """Return a data URI, None when the file is damaged or the budget is used up."""
        if self.over:
            self.over += 1
            return None
        data = self.cache.get(f"picture {self.widest}", path, self._encoded, lambda kept: _is_picture(kept))
        if not data:
            self.bad.append(path)
            return None
        if len(data) > self.left:
            self.over = 1
            return None
        self.left -= len(data)
        return str(data)

    def _encoded(self, path: Path) -> str:
        try:
            with bounds.image(path) as image:
                shown = image.convert("RGB")
            shown.thumbnail((self.widest, self.widest))
            buffer = io.BytesIO()
            shown.save(buffer, "WEBP", quality=82, method=3)
        except (OSError, ValueError):
            return ""
        return START + base64.b64encode(buffer.getvalue()).decode()


def _is_picture(kept: object) -> bool:
    return isinstance(kept, str) and kept.startswith(START)


def views(report: Report, pictures: Pictures) -> list[tuple[Row, str]]:
    """Embed the mask and mix picture of the first pre-training run of every checkpoint that has one."""
    found = []
    for row in report.rows:
        path = next((run / "views.png" for run in row.runs if (run / "views.png").is_file()), None)
        if path is not None and (data := pictures.embed(path)):
            found.append((row, data))
    return found


@dataclass(frozen=True)
class Image:
    """One validation image as each backbone's first trial saw it."""

    column: Column
    name: str
    shown: list[tuple[Row, Path]]


def images(report: Report) -> list[Image]:
    """Choose the images that most backbones drew; fewer a benchmark where there are many backbones."""
    found = []
    for column in report.columns:
        files: dict[str, list[tuple[Row, Path]]] = {}
        for row in _side_by_side(report, column):
            path, _ = report.cell(row, column).trials[0]
            for picture in sorted((path.parent / "run" / "predictions").glob("*.png")):
                files.setdefault(picture.name, []).append((row, picture))
        shared = sorted(files, key=lambda name: (-len(files[name]), name))[:SHOWN]
        found += [Image(column, Path(name).stem, files[name]) for name in sorted(shared)]
    if sum(len(image.shown) for image in found) > 2 * MANY:  # the first of each benchmark says more than all of one
        found = [image for image in found if image == next(i for i in found if i.column is image.column)]
    return found


def class_colours(image: Image) -> list[tuple[str, str]]:
    """Return the classes and colours that the drawings' own ``classes.json`` names, as far as they are such."""
    try:
        values = bounds.mapping(image.shown[0][1].parent / "classes.json") or {}
        pairs = [(str(name), str(colour)) for name, colour in values.items()]
    except RecursionError:
        return []
    return [(name, colour) for name, colour in pairs if re.fullmatch(r"#[0-9a-f]{6}", colour)][:200]


def _side_by_side(report: Report, column: Column) -> list[Row]:
    ran = report.ran(column)
    first = [row for row in ran if row is report.baseline]
    chosen = [*first, *(row for row in ran if row is not report.baseline)][:BACKBONES]
    return [row for row in ran if row in chosen]


def widest(found: Sequence[Image]) -> int:
    """Return how wide pictures may be so that all fit on one page."""
    return WIDEST if sum(len(image.shown) for image in found) <= MANY else NARROWER


def embedded(image: Image, pictures: Pictures) -> list[tuple[Row, str]]:
    """Embed one image of every backbone, as far as the budget goes."""
    return [(row, data) for row, path in image.shown if (data := pictures.embed(path))]
