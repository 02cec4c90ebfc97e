"""A picture of what a run's branches do: for a few images the view, mask, partner, mixed view with lam, and what it meets."""

from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pretrain.branches import Draws, Mixed
from pretrain.loader import Pairs, collate
from pretrain.methods import LabelledMethod
from pretrain.objective import Objective
from pretrain.views import ViewSettings, colour

GAP, TITLE, LABEL = 4, 18, 84
COLUMNS = ("query view", "mask", "partner", "mixed, lam", "compared with", "hard negative")


def contact_sheet(
    objective: Objective, pairs: Pairs, views: ViewSettings, images: int = 2, side: int = 96
) -> Image.Image:
    """Render one line a branch, with ``images`` images of the data set side by side, ``side`` pixels a picture.

    Black is hidden; coloured masks differ between channels. Columns that no branch fills are left out.
    """
    batch = collate([pairs[(0, index % len(pairs))] for index in range(max(images, 2))])
    made = [colour(crops, colours, views) for crops, colours in zip(batch.crops, batch.colours, strict=True)]
    query, key = made[0], made[-1]
    lines = {label: _shown(mixed) for label, mixed in mixtures(objective, query, key).items()}
    cells = {label: _cells(mixed, query, key, views, side, label == "clean") for label, mixed in lines.items()}
    used = [name for name in COLUMNS if any(line[name] is not None for line in cells.values())]
    if isinstance(objective.method, LabelledMethod):
        used.remove("compared with")  # a label
    return _grid(cells, used, images, side)


def mixtures(objective: Objective, query: Tensor, key: Tensor) -> dict[str, Mixed]:
    """Mix the clean views by every branch, on the device of the networks, which some branches ask; ``clean`` is as it was."""
    device = next(objective.parameters()).device
    query, key = query.to(device), key.to(device)
    lines = {"clean": Mixed(query, None, torch.ones(len(query), device=device))}
    for label, branch in objective.branches.items():
        lines[label] = branch.mix(query, key, Draws(objective.seed, 0, f"{label}/0"), objective.features)
    return lines


def _shown(mixed: Mixed) -> Mixed:
    """Return a mixture that lies where pictures are drawn, beside the clean views."""
    moved: dict[str, Any] = {name: part.cpu() for name, part in mixed._asdict().items() if isinstance(part, Tensor)}
    return mixed._replace(**moved)


Cells = dict[str, list[Image.Image] | None]  # the pictures of one line, an image each, by column


def _cells(mixed: Mixed, query: Tensor, key: Tensor, views: ViewSettings, side: int, clean: bool) -> Cells:
    shown = _pictures(mixed.query, views)
    noted = [_note(picture, f"{lam:.2f}", side) for picture, lam in zip(shown, mixed.lam.tolist(), strict=True)]
    return {
        "query view": _pictures(query, views),
        "mask": None if mixed.mask is None or not mixed.mask.any() else _masks(mixed.mask),
        "partner": None if mixed.partner is None else _pictures(query[mixed.partner], views),
        "mixed, lam": None if clean else noted,
        "compared with": _pictures(key if mixed.key is None else mixed.key, views),
        "hard negative": None if mixed.hard is None else _pictures(mixed.hard, views),
    }


def _grid(lines: dict[str, Cells], columns: list[str], images: int, side: int) -> Image.Image:
    block = len(columns) * (side + GAP) + 3 * GAP
    sheet = Image.new("RGB", (LABEL + images * block, TITLE + len(lines) * (side + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for image in range(images):
        for place, title in enumerate(columns):
            draw.text((LABEL + image * block + place * (side + GAP), 3), title, fill="black")
    for row, (label, cells) in enumerate(lines.items()):
        top = TITLE + row * (side + GAP)
        draw.text((GAP, top + side // 2 - 6), label, fill="black")
        for image in range(images):
            for place, title in enumerate(columns):
                pictures = cells[title]
                if pictures is not None:
                    picture = pictures[image].resize((side, side), Image.Resampling.NEAREST)
                    sheet.paste(picture, (LABEL + image * block + place * (side + GAP), top))
    return sheet


def _pictures(images: Tensor, views: ViewSettings) -> list[Image.Image]:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (views.mean, views.std))
    pixels = ((images * std + mean).clamp(0, 1) * 255).byte()
    return [Image.fromarray(row.permute(1, 2, 0).numpy()) for row in pixels]


def _masks(mask: Tensor) -> list[Image.Image]:
    pixels = (~mask).byte().mul(255).expand(-1, 3, -1, -1)
    return [Image.fromarray(row.permute(1, 2, 0).contiguous().numpy()) for row in pixels]


def _note(picture: Image.Image, text: str, side: int) -> Image.Image:
    picture = picture.resize((side, side), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, side - 14, 30, side), fill="black")
    draw.text((3, side - 13), text, fill="white")
    return picture
