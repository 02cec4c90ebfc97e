"""A picture of what a run's branches do: image, views, mask, partner, mixed view, lam."""

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pretrain.branches import Draws
from pretrain.loader import Pairs, collate
from pretrain.objective import Objective
from pretrain.views import ViewSettings, colour

GAP, TITLE = 6, 18


def contact_sheet(
    objective: Objective, pairs: Pairs, views: ViewSettings, rows: int = 4, side: int = 112
) -> Image.Image:
    """Render ``rows`` images of the data set: the two clean views, then for each branch mask, partner, mixed view and lam."""
    batch = collate([pairs[(0, index % len(pairs))] for index in range(rows)])
    query, key = (colour(crops, colours, views) for crops, colours in zip(batch.crops, batch.colours, strict=True))
    columns: list[tuple[str, list[Image.Image]]] = [
        ("query view", _pictures(query, views)),
        ("key view", _pictures(key, views)),
    ]
    for label, branch in objective.branches.items():
        mixed = branch.mix(query, key, Draws(objective.seed, 0, f"{label}/0"), objective.features)
        if mixed.mask is not None:
            columns.append((f"{label}: black = hidden", _masks(mixed.mask)))
        if mixed.partner is not None:
            columns.append(("partner", _pictures(query[mixed.partner], views)))
        shown = _pictures(mixed.query, views)
        columns.append(
            (f"{label}, lam", [_note(p, f"{v:.2f}", side) for p, v in zip(shown, mixed.lam.tolist(), strict=True)])
        )
        if mixed.key is not None:
            columns.append((f"{label}: key", _pictures(mixed.key, views)))
        if mixed.hard is not None:
            columns.append((f"{label}: hard negative", _pictures(mixed.hard, views)))
    return _grid(columns, rows, side)


def _grid(columns: list[tuple[str, list[Image.Image]]], rows: int, side: int) -> Image.Image:
    sheet = Image.new("RGB", (len(columns) * (side + GAP) + GAP, rows * (side + GAP) + GAP + TITLE), "white")
    draw = ImageDraw.Draw(sheet)
    for x, (title, pictures) in enumerate(columns):
        left = GAP + x * (side + GAP)
        draw.text((left, 3), title, fill="black")
        for y, picture in enumerate(pictures):
            sheet.paste(picture.resize((side, side), Image.Resampling.NEAREST), (left, TITLE + GAP + y * (side + GAP)))
    return sheet


def _pictures(images: Tensor, views: ViewSettings) -> list[Image.Image]:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (views.mean, views.std))
    pixels = ((images.cpu() * std + mean).clamp(0, 1) * 255).byte()
    return [Image.fromarray(row.permute(1, 2, 0).numpy()) for row in pixels]


def _masks(mask: Tensor) -> list[Image.Image]:
    pixels = (~mask.cpu()).byte().mul(255).expand(-1, 3, -1, -1)
    return [Image.fromarray(row.permute(1, 2, 0).contiguous().numpy()) for row in pixels]


def _note(picture: Image.Image, text: str, side: int) -> Image.Image:
    picture = picture.resize((side, side), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, side - 14, 30, side), fill="black")
    draw.text((3, side - 13), text, fill="white")
    return picture
