"""docs/speed.md, docs/scaling.md and docs/protocols.md are what measurements, model and configs say now."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from transfer import benchmarks
from transfer.suite import protocols

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Import the two modules as the scripts do; return (figures, write_speed)."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import figures
    import write_speed

    return figures, write_speed


def measured(name: str, *rows: dict[str, Any]) -> dict[str, Any]:
    whole = {
        "least": 1.0, "most": 2.5, "repeats": 7, "unit": "x", "goal": None, "sense": "at least", "detail": "",
        "limit": "",
    }  # fmt: skip
    about = {
        "cores": 2, "processor": "A Chip", "platform": "Linux-6", "python": "3.11.7", "packages": {"torch": "2.14.1"},
    }  # fmt: skip
    return {
        "benchmark": name, "date": "2026-11-23", "command": f"python benchmarks/{name}.py", "environment": about,
        "figures": [{**whole, "verdict": "", **row} for row in rows],
    }  # fmt: skip


def test_the_shipped_page_is_what_the_shipped_results_say(tools: tuple[Any, Any]) -> None:
    _, write_speed = tools
    assert write_speed.PAGE.read_text() == write_speed.page(write_speed.read(ROOT / "benchmarks" / "results"))


def test_the_page_shows_every_figure_with_goal_and_verdict(tools: tuple[Any, Any], tmp_path: Path) -> None:
    _, write_speed = tools
    slow = {
        "what": "two|bars", "value": 1.25, "goal": 1.6, "verdict": "limit", "limit": "copies: 1.3",
        "detail": "12 images/s",
    }  # fmt: skip
    quick = {
        "what": "a report", "value": 1234.5, "unit": "s", "goal": 3, "sense": "at most", "verdict": "missed",
        "limit": "no",
    }  # fmt: skip
    (tmp_path / "z.json").write_text(json.dumps(measured("scaling", slow)))
    (tmp_path / "a.json").write_text(json.dumps(measured("report_scale", quick)))
    (tmp_path / "old.json").write_text(json.dumps({"benchmark": "pretrain_step", "rows": []}))
    text = write_speed.page(write_speed.read(tmp_path))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[2:] == [
        "| a report | 1,234 s | 1 s to 2.5 s | 7 | at most 3 s | **missed** | `benchmarks/report_scale.py` |",
        "| two\\|bars | 1.25× | 1× to 2.5× | 7 | at least 1.6× | **limit** | `benchmarks/scaling.py` |",
    ]
    assert "- **two\\|bars**: copies: 1.3" in text
    assert "- **two\\|bars**: 12 images/s" in text
    assert "**a report**: no" not in text  # a limit explains a goal that is not reached, and it was not given as one
    assert (
        "Measured on 2 cores of A Chip, Linux-6, Python 3.11.7, torch 2.14.1: report_scale (2026-11-23), scaling"
        in text
    )


@pytest.mark.parametrize(
    ("value", "sense", "limit", "verdict"),
    [
        (1.6, "at least", "", "met"), (1.59, "at least", "", "missed"), (1.59, "at least", "measured", "limit"),
        (1.6, "at most", "", "met"), (1.61, "at most", "", "missed"),
    ],
)  # fmt: skip
def test_a_goal_is_met_missed_or_explained(
    tools: tuple[Any, Any], value: float, sense: str, limit: str, verdict: str
) -> None:
    figures, _ = tools
    assert figures.of("it", [value - 1, value, value + 1], goal=1.6, sense=sense, limit=limit).verdict == verdict


def test_a_missed_figure_is_red_and_ends_with_1(
    tools: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, _ = tools
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "made_up.py")])
    missed, met = (figures.of(name, [1.0, 2.0, 3.0], goal=goal) for name, goal in (("slow", 2.5), ("quick", 2)))
    assert figures.finish("made_up", [met]) == 0
    assert "\033[31m" not in capsys.readouterr().out
    assert figures.finish("made_up", [met, missed]) == 1
    assert "\033[31mslow: 2 x (1 to 3), at least 2.5 x: missed\033[0m" in capsys.readouterr().out
    written = json.loads((tmp_path / "made_up.json").read_text())
    assert [figure["verdict"] for figure in written["figures"]] == ["met", "missed"]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import cost_model

    return cost_model


def test_one_gpu_talks_to_nobody(model: ModuleType) -> None:
    one = model.step(1, 4, model.Counts(forward=1e9, parameters=1000), model.Links(tflops=1, pcie=2))
    assert one.bytes["gradients"] == one.bytes["key images"] == one.bytes["keys"] == 0
    assert one.bytes["from the host"] == 4 * (2 * (3 * 224 * 224 + 32) + 224 * 224)
    assert one.seconds["from the host"] == pytest.approx(4 * (2 * (3 * 224 * 224 + 32) + 224 * 224) / 2e9)
    logits = 128 * 65536 * 2 * 2 * 2  # a multiplication and an addition; forward and backward; clean and mixed queries
    assert one.flops == 4 * (7e9 + logits)
    assert one.seconds["arithmetic"] == pytest.approx(one.flops / 1e12)


def test_four_gpus_share_gradients_around_a_ring_and_gather_keys(model: ModuleType) -> None:
    step = model.step(4, 2, model.Counts(forward=1e9, parameters=1000), model.Links(nvlink=1, network=1000))
    assert (
        step.bytes["gradients"] == 2 * 3 / 4 * 4000
    )  # a quarter three times to be summed, three times to be given back
    assert step.bytes["key images"] == 3 / 4 * 2 * 3 * 224 * 224 * 4  # a quarter stays where it is
    assert step.bytes["keys"] == (3 / 4 + 3) * 2 * 128 * 4  # back into order, and into the queue
    assert step.seconds["gradients"] == pytest.approx(6000 / 1e9)  # in one node
    assert model.step(16, 2, model.Counts(1e9, 1000), model.Links(nvlink=1, network=1000)).seconds["keys"] < 1e-6


def test_the_network_that_is_counted_is_the_one_that_is_trained(model: ModuleType) -> None:
    counts = model.counted()
    projector = 2048 * 2048 + 2048 + 2048 * 128 + 128
    assert counts.parameters == 23_508_032 + projector  # torchvision's ResNet-50 without its classifier
    assert counts.forward / 2e9 == pytest.approx(4.1, abs=0.1)  # 4.1 billion multiplications (arXiv 1512.03385: 3.8)


def test_the_rate_of_a_core_is_the_input_pipelines_own_where_it_was_measured(model: ModuleType, tmp_path: Path) -> None:
    about = {"environment": {"processor": "A Chip"}}
    (tmp_path / "scaling.json").write_text(json.dumps(about | {"images_per_second": {"data": 146.2, "step": 6}}))
    assert model.rate(tmp_path) == (146.2, "scaling.py, A Chip")
    detail = "photographs, 500x375; ours 1,573, PIL 79 images/s on one core"
    (tmp_path / "input_pipeline.json").write_text(json.dumps(about | {"figures": [{"detail": detail}]}))
    assert model.rate(tmp_path) == (1573, "input_pipeline.py, A Chip")
    (tmp_path / "input_pipeline.json").write_text(json.dumps(about | {"figures": [{"detail": "PIL 79 images/s"}]}))
    assert model.rate(tmp_path)[0] == 146.2


def test_the_shipped_table_is_current(model: ModuleType) -> None:
    page = model.PAGE.read_text()
    written = page.split(model.MARKS[0])[1].split(model.MARKS[1])[0].strip()
    assert written == model.table(model.counted(), model.Links(), *model.rate())


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
