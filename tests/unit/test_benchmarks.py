"""Benchmarks are rows: shipped ones are complete and keep their hashes, a user's own file of the same form works too."""

import json
from pathlib import Path

import pytest
import yaml

from core.errors import InputError
from transfer import benchmarks, frameworks
from transfer.benchmarks import Benchmark
from transfer.frameworks import protocol_hash

ROWS = benchmarks.shipped()
WRITTEN = json.loads(Path(__file__).with_name("protocol_hashes.json").read_text())  # before benchmarks became rows


@pytest.mark.parametrize("name", ROWS)
def test_the_configs_of_a_benchmark_exist_with_all_their_bases(name):
    row = ROWS[name]
    found = frameworks.of(row).config_files(row.config_file)
    assert found[-1] == row.config_file
    assert len(found) >= 4  # facts or model, data and schedule stand in bases
    assert all(path.is_file() for path in found)
    assert row.about.endswith((".", ")."))


@pytest.mark.parametrize("name", WRITTEN)
def test_the_hash_of_a_protocol_is_that_under_which_its_results_were_written(name):
    assert protocol_hash(ROWS[name]) == WRITTEN[name]


def test_no_two_benchmarks_have_the_same_protocol():
    assert len({protocol_hash(row) for row in ROWS.values()}) == len(ROWS)


def test_options_change_a_protocols_hash_and_its_title_does_not():
    row = ROWS["coco_c4"]
    assert protocol_hash(row.model_copy(update={"title": "another", "trials": 9, "about": "x"})) == protocol_hash(row)
    assert protocol_hash(row, ["SEED", "1"]) != protocol_hash(row)


@pytest.fixture
def mine(tmp_path):
    """Return a user's own file of rows, beside a config of the user's."""
    shipped = ROWS["coco_c4"].config_file
    (tmp_path / "own.yaml").write_text(f"_BASE_: {shipped}\nSOLVER: {{MAX_ITER: 9}}\n")
    row = {
        "title": "Mine", "config": "own.yaml", "train": "a", "test": "b", "metrics": ["bbox/AP"],
        "headline": "bbox/AP",
    }  # fmt: skip
    rows = {"_defaults": {"framework": "detectron2", "trials": 2}, "short": row, "long": {**row, "trials": 7}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(rows))
    return tmp_path / "mine.yaml"


def test_a_users_own_file_names_its_config_relative_to_itself_and_its_hash_does_not_depend_on_where_it_lies(
    mine, tmp_path
):
    short, long = (benchmarks.find(f"{mine}:{name}") for name in ("short", "long"))
    assert (short.framework, short.trials, long.trials, short.config_file) == (
        "detectron2", 2, 7, tmp_path / "own.yaml",
    )  # fmt: skip
    assert frameworks.of(short).config_files(short.config_file)[-2] == ROWS["coco_c4"].config_file
    (tmp_path / "there").mkdir()
    for file in (mine, tmp_path / "own.yaml"):
        (tmp_path / "there" / file.name).write_text(file.read_text())
    assert protocol_hash(benchmarks.find(f"{tmp_path / 'there' / 'mine.yaml'}:short")) == protocol_hash(short)
    before = protocol_hash(short)
    (tmp_path / "own.yaml").write_text("SOLVER: {MAX_ITER: 10}\n")
    assert protocol_hash(short) != before


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("", "coco_c5", "no benchmark 'coco_c5' in .*; did you mean coco_c4"),
        ("a: {title: t}", "mine.yaml:a", "mine.yaml: a has [0-9] problem"),
        ("a: 3", "mine.yaml:a", "mine.yaml: a is 3; a benchmark is a mapping"),
        ("a: {titel: t}", "mine.yaml:a", r"titel: no such setting; did you mean title\?"),
        ("_defaults: 1\na: {}", "mine.yaml:a", "_defaults is 1; give it the keys of a row"),
    ],
)
def test_what_is_no_row_is_refused_with_the_file_the_row_and_the_key(tmp_path, monkeypatch, text, name, said):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        benchmarks.find(name)


def test_a_missing_config_is_named_with_its_benchmark():
    with pytest.raises(InputError, match=r"cannot read a config of 'COCO C4 1x': .*none\.yaml: no such file"):
        protocol_hash(ROWS["coco_c4"].model_copy(update={"config": "none.yaml"}))


def test_a_headline_that_is_not_measured_is_refused():
    with pytest.raises(ValueError, match="headline 'b' is none of the metrics a"):
        Benchmark(title="t", framework="f", config="c", train="a", test="b", metrics=("a",), headline="b")
