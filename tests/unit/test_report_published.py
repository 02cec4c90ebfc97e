"""Published numbers stand beside the same protocol only, with their source, and are complete."""

import csv

import pytest
from made_results import result, write

from transfer import benchmarks
from transfer import report as reports
from transfer.report import assembly, published


def _texts(folder):
    reports.write(assembly.build(folder), folder / "report")
    return {path.suffix[1:]: path.read_text() for path in (folder / "report").iterdir()}


def _voc(tmp_path, **changes):
    values = result("ours", "voc0712_detection", metrics={"bbox/AP": 57.5, "bbox/AP50": 82.0})
    values["protocol"]["headline"] = "bbox/AP"
    write(tmp_path / "a", values | changes)
    return _texts(tmp_path)


def test_published_numbers_stand_in_their_own_column_with_their_source(tmp_path):
    texts = _voc(tmp_path)
    assert "| published |" in texts["md"]
    assert (
        "57 (ImageNet-1K, 200 epochs, MoCo repository); 57.4 (ImageNet-1K, 800 epochs, MoCo repository)" in texts["md"]
    )
    rows = [row for row in csv.DictReader(texts["csv"].splitlines()) if row["metric"] == "bbox/AP"]
    assert [row["value"] for row in rows if row["kind"] == "measured"] == ["57.5"]
    assert any(row["kind"] == "published, other protocol" for row in rows)
    assert "not comparable" in texts["html"]


@pytest.mark.parametrize(
    ("recipe", "shown"),
    [
        ({"effective": {"batch": 4, "lr": 0.005}, "published": {"batch": 16, "lr": 0.02}}, False),
        ({"effective": {"devices": 1, "norm": "BN"}, "published": {"devices": 8, "norm": "SyncBN"}}, True),
    ],
)
def test_published_numbers_disappear_when_the_protocol_was_changed(tmp_path, recipe, shown):
    assert ("| published |" in _voc(tmp_path, recipe=recipe)["md"]) is shown


def test_every_published_row_belongs_to_a_benchmark_and_cites_a_source():
    known = set(benchmarks.shipped())
    assert {name for group in published.groups() for name in (group.benchmark, *group.elsewhere)} <= known
    assert sum(len(group.rows) for group in published.groups()) == 116
    assert published.matching("voc0712_detection", "moco", ("mscn",), "bbox/AP") == []  # its protocol was not stated
    assert published.matching("voc12_segmentation", "moco", (), "seg/mIoU")[0][0] == 67.5


@pytest.mark.parametrize(
    ("benchmark", "name", "metric", "value", "comparable"),
    [
        ("imagenet_linear", "MixMask", "linear/top1", 69.2, False),
        ("imagenet_linear", "MoCo v2", "linear/top1", 67.5, True),
        ("imagenet_linear_lars", "BYOL", "linear/top1", 70.6, True),
        ("imagenet100_linear", "MoCo v2 + saliency, blur", "linear/top1", 72.5, False),
        ("imagenet100_linear", "mean fill, query masked", "linear/top1", 58.34, False),
        ("coco_c4_2x", "Un-Mix", "bbox/AP75", 44.7, True),
        ("coco_fpn_4conv1fc", "PixPro", "segm/AP", 37.4, True),
        ("voc12_fcn16s", "BYOL", "seg/mIoU", 76.3, True),
        ("cifar10_knn", "Un-Mix symmetric", "knn/top1", 92.25, False),
        ("cifar100_linear", "SimSiam", "linear/top1", 66.04, False),
    ],
)
def test_published_numbers_are_those_of_the_table_and_say_whether_they_compare(
    benchmark, name, metric, value, comparable
):
    found = [
        (group.comparable, group.value(row, metric))
        for group in published.of(benchmark)
        for row in group.rows
        if row.name == name
    ]
    assert (comparable, value) in found


def test_numbers_of_other_rules_on_the_same_data_are_shown_there_as_not_comparable():
    for benchmark in ("coco_c4", "coco_fpn", "voc12_segmentation_40k", "voc12_segmentation"):
        assert any(not group.comparable for group in published.of(benchmark))
    assert published.matching("coco_fpn", "moco", (), "bbox/AP") == []
    assert [value for value, _ in published.matching("coco_fpn_4conv1fc", "moco", (), "bbox/AP")] == [40.4]
