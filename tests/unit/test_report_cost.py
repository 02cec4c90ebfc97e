"""What a report says of the cost of pre-training, accuracy against it, and what was warned about on the way."""

import json

import pytest
from made_results import BASELINE, result, suite, write

from transfer import report as reports
from transfer.report import assembly, cost
from transfer.report.model import Row

MIXMASK = "MoCo v2 + MixMask"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = suite(tmp_path_factory.mktemp("made"), pictures=True, seeds=True, curves=True, knn=True)
    return assembly.build(folder)


def test_pre_training_cost_is_steps_times_batch_times_three_query_plus_key_forwards(made):
    found = {entry.row.label: entry for entry in cost.costs(made)}
    assert found[BASELINE].image_forwards == 400 * 64 * (3 * 2 + 1)
    assert found["Random initialisation"].image_forwards == 0
    assert (found[BASELINE].relative, found[MIXMASK].relative) == (1.0, 1.0)
    assert found[BASELINE].forwards == "2 query + 1 key"


@pytest.mark.parametrize(
    ("pretrain", "expected"),
    [
        ({"steps": 10, "batch_size": 4, "forwards_per_step": {"query": 1, "key": 1}}, 160),
        ({"steps": 10, "batch_size": 4, "forwards_per_step": {"query": 2}}, 240),
        ({"steps": 10, "forwards_per_step": {"query": 1, "key": 1}}, None),
        ({"steps": "10", "batch_size": 4, "forwards_per_step": {"query": 1}}, None),
        ({"steps": 10, "batch_size": 4, "forwards_per_step": 7}, None),
        ({}, None),
    ],
)
def test_the_cost_of_a_hand_made_result_is_what_it_says_or_unknown(tmp_path, pretrain, expected):
    values = result("A")
    values["checkpoint"]["pretrain"] = pretrain
    write(tmp_path / "a", values)
    assert cost.costs(assembly.build(tmp_path, "A"))[0].image_forwards == expected


def test_accuracy_against_cost_needs_two_costs_and_joins_one_method_at_several(tmp_path):
    for name, steps, value in (("short", 10, 20.0), ("long", 40, 30.0), ("unknown", None, 25.0)):
        values = result(name, metrics={"bbox/AP": value})
        values["checkpoint"]["pretrain"] = {"steps": steps, "batch_size": 4, "forwards_per_step": {"query": 1}}
        write(tmp_path / name, values)
    report = assembly.build(tmp_path)
    (chart,) = cost.matched(report, cost.costs(report))
    assert sorted(dot.label for dot in chart.dots) == ["long", "short"]
    short, long = sorted(chart.dots, key=lambda dot: dot.x)
    assert (long.x - chart.box[0]) == pytest.approx(4 * (short.x - chart.box[0]), abs=0.5)  # the axis starts at zero
    assert long.y < short.y
    assert len(chart.joined) == 1


def test_what_the_monitor_warned_about_is_named_on_top_and_told_below_the_costs(tmp_path):
    folder = suite(tmp_path)
    assert not any("Warned" in notice for notice in assembly.build(folder).notices)
    row = next(row for row in assembly.build(folder).rows if row.label == BASELINE)
    summary = row.runs[0] / "summary.json"
    values = json.loads(summary.read_text()) if summary.exists() else {}
    summary.parent.mkdir(parents=True, exist_ok=True)
    summary.write_text(json.dumps(values | {"warnings": ["retrieval fell to 0.02"]}))
    report = assembly.build(folder)
    said = [notice for notice in report.notices if "Warned" in notice]
    assert said == [f"Warned about while pre-training: {BASELINE}; the warnings stand below the table of costs."]
    reports.write(report, tmp_path / "page")
    for form in ("report.html", "report.md"):
        assert "pre-training: retrieval fell to 0.02" in (tmp_path / "page" / form).read_text()


def test_a_line_joins_runs_that_differ_in_length_and_no_others(tmp_path):
    settings = {"plain": (4, 0.0), "plain, longer": (8, 0.0), "negatives": (5, 1.0), "negatives, longer": (9, 1.0)}
    rows = {}
    for name, (epochs, weight) in settings.items():
        folder = tmp_path / name
        folder.mkdir()
        branch = {"name": "saliency", "hard_negatives": weight}
        config = {"branches": {"one": branch}, "train": {"epochs": epochs, "batch_size": 8}, "run": {"folder": name}}
        (folder / "config.yaml").write_text(json.dumps(config))
        rows[name] = Row(name, name, (), "moco", ("saliency",), runs=(folder,))
    kinds = {name: cost.settings_but_length(row) for name, row in rows.items()}
    assert kinds["plain"] == kinds["plain, longer"]
    assert kinds["negatives"] == kinds["negatives, longer"]
    assert kinds["plain"] != kinds["negatives"]
