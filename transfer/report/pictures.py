"""Embed pictures: views and masks of pre-training, and the same validation images as every backbone saw them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transfer.report.cache import Cache
from transfer.report.model import Column, Report, Row

WIDEST = 900  # pixels of an embedded picture,
NARROWER = 560  # where there are many
MANY = 60
SHOWN = 4  # images a benchmark
BACKBONES = 12  # side by side; the eye does not compare more
START = "data:image/webp;base64,"


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
        from PIL import Image  # here: the other forms need no pictures

        try:
            with Image.open(path) as image:
                shown = image.convert("RGB")
            shown.thumbnail((self.widest, self.widest))
            buffer = io.BytesIO()
            shown.save(buffer, "WEBP", quality=82, method=3)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
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
