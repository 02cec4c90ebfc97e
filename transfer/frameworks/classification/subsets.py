"""A part of the training images, for semi-supervised learning: as many of every class, or those that a file lists."""

from collections import defaultdict
from pathlib import Path
from typing import Self

import torch
from pydantic import Field, model_validator

from core.config import Settings
from core.errors import InputError
from core.provenance import derive
from transfer.frameworks.classification.data import Split, under_root


class Subset(Settings):
    """``share`` of every class's images (at least one), drawn anew in each trial, or the images that the file ``list`` names.

    ``list`` has one image a line, as ``class/name`` or by its file name alone (SimCLR's lists for ImageNet).
    """

    share: float = Field(1.0, gt=0, le=1)
    list: Path | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.list is not None and self.share != 1:
            raise InputError("give share or list, not both")
        return self


def choose(split: Split, subset: Subset, seed: int) -> Split:
    """Return the part of a split that ``subset`` describes; trials with the same seed get the same images."""
    if subset.list is not None:
        return split.part(listed(split.names, under_root(subset.list)))
    return split if subset.share == 1 else split.part(balanced(split.labels.tolist(), subset.share, seed))


def balanced(labels: list[int], share: float, seed: int) -> list[int]:
    """Return the sorted rows of ``round(share * count)``, at least one, of every class, drawn without replacement."""
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        rows_of[label].append(row)
    chosen: list[int] = []
    for label, rows in rows_of.items():
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(derive(seed, "subset", label)))
        chosen += [rows[index] for index in order[: max(1, round(share * len(rows)))].tolist()]
    return sorted(chosen)


def listed(names: list[str], path: Path) -> list[int]:
    """Return the sorted rows of the images that a file names; raise InputError for one that is not there or not unique."""
    if not path.is_file():
        raise InputError(f"no list of images at {path}; set subset.list, or subset.share for a drawn part")
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        for key in {name, name.rsplit("/", 1)[-1]}:
            rows_of[key].append(row)
    chosen: set[int] = set()
    for line in filter(None, map(str.strip, path.read_text().splitlines())):
        if len(found := rows_of.get(line, [])) != 1:
            problem = "is no training image" if not found else f"is the name of {len(found)} images; write class/name"
            raise InputError(f"{path}: {line} {problem}")
        chosen.add(found[0])
    if not chosen:
        raise InputError(f"{path} names no image; write one a line")
    return sorted(chosen)
