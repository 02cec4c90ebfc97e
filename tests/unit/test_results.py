"""Result files are read strictly, folders tolerantly: a bad file is named with its reason and stops nothing."""

import gzip
import json
import re

import pytest
from made_results import result, suite, write

from core.errors import InputError
from core.files import FileError
from core.provenance import ROOT
from transfer import results
from transfer.results import Result


def test_a_written_result_reads_back_equal_and_is_never_overwritten(tmp_path):
    made = Result.model_validate(result())
    results.write(tmp_path / "a" / "result.json", made)
    assert results.read(tmp_path / "a" / "result.json") == made
    with pytest.raises(InputError, match="results are written once"):
        results.write(tmp_path / "a" / "result.json", made)


def test_a_result_that_was_changed_since_it_was_written_is_told_by_its_checksum(tmp_path):
    path = tmp_path / "result.json"
    results.write(path, Result.model_validate(result()))
    whole = path.read_text()
    path.write_text(whole.replace('"trial": 0', '"trial": 1'))
    with pytest.raises(results.Damaged, match="checksum does not fit"):
        results.read(path)
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "content_sha256" not in line).replace(
        '"finished",\n}', '"finished"\n}'
    ))  # fmt: skip
    assert results.read(path).trial == 1


def test_a_hand_made_file_needs_only_name_benchmark_trial_and_metrics(tmp_path):
    values = {
        "schema_version": 1, "benchmark": "mine", "checkpoint": {"name": "A"}, "trial": 0, "metrics": {"score": 3},
    }  # fmt: skip
    found = results.read(write(tmp_path, values | {"note": "typed by hand"}))
    assert (found.checkpoint.name, found.metrics, found.seed, found.cost.seconds) == ("A", {"score": 3.0}, None, None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"seconds": 61.5', '"seconds": 1e999'),
        ('"seconds": 61.5', f'"seconds": 1{"0" * 400}'),
        ('"bbox/AP": 1.0', '"bbox/AP": 1e308'),
        ('"bbox/AP": 1.0', '"": 1.0'),
        ('"method": "moco"', '"method": "\\ud800"'),
        ('"epochs": 12', f'"epochs": {"[" * 100_000}'),
    ],
)
def test_a_result_that_would_break_a_report_is_named_and_left_out(tmp_path, old, new):
    write(tmp_path / "good", result())
    text = json.dumps(result(name="B"))
    assert old in text
    write(tmp_path / "bad", text.replace(old, new))
    found = results.read_folder(tmp_path)
    assert [path.parent.name for path in found.results] == ["good"]
    assert [skipped.path.parent.name for skipped in found.skipped] == ["bad"]


def test_nan_and_null_are_metrics_without_a_value(tmp_path):
    text = json.dumps(result(metrics={"bbox/AP": float("nan"), "bbox/AP50": None, "segm/AP": 1.0}))
    assert "NaN" in text
    found = results.read(write(tmp_path, text))
    assert found.metrics == {"bbox/AP": None, "bbox/AP50": None, "segm/AP": 1.0}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ('{"schema_version": 1, "bench', "not JSON, perhaps truncated"),
        ("[1, 2]", "holds a list, not an object"),
        ("\x00\x01", "not JSON"),
        ("[" * 100_000, "not JSON"),
        (result(schema_version=2), "schema_version is 2; this version reads 1"),
        (result(metrics={"bbox/AP": "12.3"}), "metrics.bbox/AP: Input should be a valid number"),
        (result(metrics={"bbox/AP": float("inf")}), "Infinity is no number of a measurement"),
        (result(trial=-1), "trial: Input should be greater than or equal to 0"),
        (result(trial="0"), "trial: Input should be a valid integer"),
        (result(name=""), "checkpoint.name: String should have at least 1 character"),
        (result(status="running"), "status: Input should be 'finished'"),
        (result(cost={"seconds": -1.0}), "cost.seconds"),
        (result(metrics={"bbox/AP": 1.0}, recipe={"effective": 3}), "recipe.effective"),
    ],
)
def test_a_bad_file_is_skipped_with_its_reason_and_the_others_are_read(tmp_path, values, reason):
    write(tmp_path / "bad", values)
    write(tmp_path / "good", result())
    found = results.read_folder(tmp_path)
    assert [path.parent.name for path in found.results] == ["good"]
    assert [skipped.path.parent.name for skipped in found.skipped] == ["bad"]
    assert reason in found.skipped[0].reason


def test_a_second_file_of_the_same_trial_is_skipped_and_names_the_first(tmp_path):
    first, second = write(tmp_path / "a", result()), write(tmp_path / "b", result(metrics={"bbox/AP": 99.0}))
    found = results.read_folder(tmp_path)
    assert list(found.results) == [first]
    assert [(s.path, s.reason) for s in found.skipped] == [(second, f"the same trial as {first}")]


def test_files_below_a_result_are_the_frameworks_own(tmp_path):
    write(tmp_path / "suite" / "item", result())
    write(tmp_path / "suite" / "item" / "run", "not a result")
    found = results.read_folder(tmp_path)
    assert (len(found.results), found.skipped) == (1, [])


def test_a_missing_folder_tells_the_next_step(tmp_path):
    with pytest.raises(InputError, match="run a suite first"):
        results.read_folder(tmp_path / "none")


def test_the_shipped_schema_is_the_one_the_code_reads_by():
    assert results.SCHEMA.read_text() == results.schema(), "run: python -m transfer.results"


def test_the_schema_asks_for_what_a_hand_made_file_needs_and_admits_notes():
    schema = json.loads(results.schema())
    assert set(schema["required"]) == {"schema_version", "benchmark", "checkpoint", "trial", "metrics"}
    assert schema["properties"]["schema_version"]["const"] == 1
    assert schema["properties"]["trial"]["minimum"] == 0
    assert "additionalProperties" not in schema
    assert {kind["type"] for kind in schema["properties"]["metrics"]["additionalProperties"]["anyOf"]} == {
        "number",
        "null",
    }


def test_the_fast_and_the_explaining_reader_agree(tmp_path):
    text = json.dumps(result())
    assert results.read(write(tmp_path, text)) == results._explained(text.encode())


def test_a_file_without_a_schema_version_is_refused(tmp_path):
    values = result()
    del values["schema_version"]
    with pytest.raises(InputError, match="schema_version is None; this version reads 1"):
        results.read(write(tmp_path, values))


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "result.json").write_bytes(b'{"schema_version": 1, "benchmark": "\xff"}')
    with pytest.raises(InputError, match="not JSON, perhaps truncated"):
        results.read(tmp_path / "result.json")


def test_a_packed_folder_holds_what_reports_read_byte_for_byte_and_nothing_else(tmp_path):
    folder = suite(tmp_path / "a", trials=2, pictures=True, curves=True)
    write(folder / "x--shapes_detection--trial0--00000000" / "run", "the framework's own", "config.yaml")
    (folder / "failed").mkdir()
    (folder / "failed" / "failure.json").write_text('{"reason": "no memory"}')
    for name in ("packed.jsonl", "packed.jsonl.gz"):
        assert results.pack(folder, tmp_path / name) == 1 + 2 * 12 + 6 + 2 * 3 + 1
        with results.opened(tmp_path / name) as unpacked:
            found = {path.relative_to(unpacked): path.read_bytes() for path in unpacked.rglob("*") if path.is_file()}
            assert len(found) == results.pack(folder, tmp_path / name)
            assert found == {path: (folder / path).read_bytes() for path in found}
        assert not unpacked.exists()
    assert gzip.decompress((tmp_path / "packed.jsonl.gz").read_bytes()) == (tmp_path / "packed.jsonl").read_bytes()


def test_a_folder_inside_a_packed_file_is_named_like_one_on_the_disk(tmp_path):
    write(tmp_path / "both" / "first" / "a", result("A"))
    write(tmp_path / "both" / "second" / "b", result("B"))
    results.pack(tmp_path / "both", tmp_path / "both.jsonl")
    with results.opened(tmp_path / "both.jsonl" / "second") as folder:
        assert [r.checkpoint.name for r in results.read_folder(folder).results.values()] == ["B"]
    with (
        results.opened(tmp_path / "both.jsonl" / "third") as folder,
        pytest.raises(InputError, match="no results folder"),
    ):
        results.read_folder(folder)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "line 1 is not"),
        ("[]", "line 1 is not"),
        ('{"file": 3, "text": ""}', "line 1 is not"),
        ('{"file": "result.json", "text": 3}', "no file of a results folder"),
        ('{"file": "/tmp/result.json", "text": ""}', "no file of a results folder"),
        ('{"file": "a/../../result.json", "text": ""}', "no file of a results folder"),
        ('{"file": "a\\u0000/result.json", "text": ""}', "no file of a results folder"),
        ('{"file": "sitecustomize.py", "text": ""}', "no file of a results folder"),
        ('{"file": "a/result.json", "text": "\\ud800"}', "damaged or not a packed file"),
        ('{"file": "result.json", "text": ""}\n{"file": "result.json/result.json", "text": ""}', "damaged or not"),
        (b"\xff\xfe", "damaged or not a packed file"),
        (b"\x1f\x8b\x08 cut off", "damaged or not a packed file"),
        (gzip.compress(b'{"file": "result.json", "text": "' + b"x" * 3000, mtime=0), "unpacks to more than"),
    ],
)
def test_a_packed_file_of_a_stranger_writes_nothing_outside_and_is_named(tmp_path, monkeypatch, text, reason):
    monkeypatch.setattr(results, "UNPACKED", 2000)
    (tmp_path / "bad.jsonl").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileError, match=rf"bad\.jsonl.*{reason}"), results.opened(tmp_path / "bad.jsonl"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl"]


def test_the_results_behind_the_pages_are_read_as_when_they_were_written():
    found = {}
    for path in sorted((ROOT / "docs" / "results").glob("*.jsonl*")):
        with results.opened(path) as folder:
            collection = results.read_folder(folder)
            assert collection.skipped == []
            means = [r.metrics[r.protocol.headline] for r in collection.results.values()]
            found[path.name.partition(".")[0]] = (len(means), round(sum(means) / len(means), 4))
    assert found == {
        "cifar10-comparison": (132, 37.0765),
        "cifar10-masking": (126, 36.3952),
        "demo": (36, 9.3761),
        "example-report": (60, 32.2039),
        "positive-control": (50, 23.8599),
        "transfer-real-run": (30, 9.894),
    }


def test_the_masking_tables_analysis_prints_what_its_page_says(capsys, monkeypatch):
    page = (ROOT / "docs" / "masking-table.md").read_text()
    code, printed = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", page, re.DOTALL).groups()
    monkeypatch.chdir(ROOT)
    exec(code, {})
    assert capsys.readouterr().out == printed
