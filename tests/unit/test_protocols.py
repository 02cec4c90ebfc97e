"""docs/protocols.md is what the benchmarks and their configs say now."""

import re

import pytest

from transfer import benchmarks
from transfer.suite import protocols


@pytest.fixture(scope="module")
def page() -> str:
    return protocols.text()


def test_the_page_is_current(page: str) -> None:
    assert protocols.PAGE.read_text() == page, "stale; run: python tools/write_protocols.py"


def test_every_benchmark_has_a_row_with_all_its_cells(page: str) -> None:
    rows = [line.strip("| \n").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert {cells[0].strip("`") for cells in rows} == set(benchmarks.shipped())
    assert {len(cells) for cells in rows} == {len(protocols.COLUMNS)}
    assert all(cell.strip() for cells in rows for cell in cells)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        (
            "voc0712_detection",
            ["24,000 iterations, ×0.1 at 18,000 / 22,000, warm-up 100", "16 (8 × 2)", "0.02", "SyncBN"],
        ),
        (
            "coco_c4_2x",
            ["180,000 iterations, ×0.1 at 120,000 / 160,000, warm-up 1,000", "16 (8 × 2)", "0.02", "SyncBN"],
        ),
        ("voc12_fcn16s", ["30,000 iterations, ×0.1 at 21,000 / 27,000", "16 (8 × 2)", "0.003", "SyncBN"]),
        ("cityscapes_fcn", ["40,000 iterations, polynomial", "8 (4 × 2)", "0.01", "SyncBN"]),
    ],
)
def test_a_row_says_what_the_paper_says(page: str, name: str, cells: list[str]) -> None:
    line = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    assert f" {' | '.join(cells)} " in line


def test_published_numbers_stand_beside_the_same_protocol_only() -> None:
    assert "supervised 53.5 (MoCo repository)" in protocols.row("voc0712_detection")[-1]
    assert protocols.row("voc07_detection")[-1] == "–"  # known for VOC07+12 only
    assert not re.search(r"40\.4", protocols.row("coco_fpn")[-1])  # PixPro's number is of 4conv1fc heads
