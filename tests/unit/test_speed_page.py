"""docs/speed.md is what the measurements say, and the figures' verdicts are right."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

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
        "least": 1.0,
        "most": 2.5,
        "repeats": 7,
        "unit": "x",
        "goal": None,
        "sense": "at least",
        "detail": "",
        "limit": "",
    }
    about = {
        "cores": 2,
        "processor": "A Chip",
        "platform": "Linux-6",
        "python": "3.11.7",
        "packages": {"torch": "2.14.1"},
    }
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
        "what": "two|bars",
        "value": 1.25,
        "goal": 1.6,
        "verdict": "limit",
        "limit": "copies: 1.3",
        "detail": "12 images/s",
    }
    quick = {
        "what": "a report",
        "value": 1234.5,
        "unit": "s",
        "goal": 3,
        "sense": "at most",
        "verdict": "missed",
        "limit": "no",
    }
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
