"""The monitor: its numbers, its alarms, online kNN, and that watching changes nothing."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import InputError
from core.journal import read
from pretrain.monitor import (
    Alarms,
    MonitorSettings,
    OnlineKnn,
    centred,
    effective_rank,
    embedding_std,
    retrieval,
    watch,
)
from pretrain.setup import make_trainer
from pretrain.views import ViewSettings

CONFIG = """
backbone: {name: resnet, depth: 18, width: 4}
data: {name: shapes, count: 24, size: 32}
views: {size: 16}
method: {name: moco, queue: 32, dim: 8}
train: {epochs: 2, batch_size: 8, workers: 0, log_every: 1}
optimizer: {lr: 0.01}
"""


def rows(count, dim, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_embedding_std_is_one_for_spread_vectors_and_zero_for_a_single_one():
    assert embedding_std(rows(4000, 16)) == pytest.approx(1, abs=0.02)
    assert embedding_std(rows(1, 16).expand(50, 16)) == pytest.approx(0, abs=1e-6)
    few = rows(3, 2).numpy()
    unit = np.stack([row / math.sqrt(sum(v * v for v in row)) for row in few])
    by_hand = sum(math.sqrt(sum((v - column.mean()) ** 2 for v in column) / 3) for column in unit.T) / 2 * math.sqrt(2)
    assert embedding_std(torch.tensor(few)) == pytest.approx(by_hand, rel=1e-5)


def test_effective_rank_counts_directions():
    basis = torch.linalg.qr(rows(16, 16)).Q
    assert effective_rank(basis[:5].repeat(4, 1)) == pytest.approx(5, rel=1e-4)
    assert effective_rank(rows(1, 16) * torch.linspace(0.5, 2, 10)[:, None]) == pytest.approx(1, rel=1e-3)
    skewed = torch.cat([basis[:1].repeat(9, 1), basis[1:2]])  # singular values 3 and 1
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(skewed) == pytest.approx(math.exp(entropy), rel=1e-4)


def test_retrieval_is_the_share_of_queries_that_find_their_own_key():
    keys = torch.eye(4)
    queries = keys[[0, 1, 3, 2]]
    assert retrieval(queries, keys) == 0.5
    assert watch(torch.cat([queries, keys]), [keys, keys])["retrieval"] == 0.75
    assert "retrieval" not in watch(rows(3, 8), [keys])


def test_an_alarm_needs_ten_logged_steps_after_the_grace_and_comes_once():
    alarms = Alarms(MonitorSettings(grace=0.1), steps=300, chances=64)
    said = {}
    for step in range(1, 61):
        line = {"step": step, "embedding_std": 0.01, "effective_rank": 9.0, "retrieval": 1 / 64, "loss": 0.1}
        if new := alarms.see(line):
            said[step] = new
    assert list(said) == [40]  # 10% of 300 is 30, then ten lines
    assert [text.split(" ")[0] for text in said[40]] == ["embedding_std", "retrieval"]
    assert "embedding_std fell to 0.01, below 0.1, at step 40: all images get nearly the same vector" in said[40][0]
    assert "among the 64 of the batch (chance is 0.016)" in said[40][1]
    assert alarms.warnings == said[40]


def test_one_bad_batch_raises_no_alarm():
    alarms = Alarms(MonitorSettings(grace=0), steps=100, chances=64)
    for step in range(1, 100):
        alarms.see(
            {"step": step, "embedding_std": 0.0 if step % 10 == 0 else 0.9, "retrieval": 0.0 if step % 5 == 0 else 0.3}
        )
    assert alarms.warnings == []


def test_the_central_square_is_cut_and_resized():
    image = torch.arange(4 * 8, dtype=torch.uint8).view(1, 4, 8).expand(3, 4, 8)
    assert torch.equal(centred(image, 4), image[:, :, 2:6])
    assert centred(image, 2).shape == (3, 2, 2)


@pytest.fixture
def labelled(tmp_path):
    """Two classes that differ in colour, 6 images each to learn from and 4 to test, and overrides that name them."""
    for split, count in (("train", 6), ("test", 4)):
        for number in range(count):
            for name, colour in (("red", (200, number, 10)), ("blue", (number, 20, 220))):
                folder = tmp_path / split / name
                folder.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (20, 16), colour).save(folder / f"{number}.png")
    (tmp_path / "small.yaml").write_text(CONFIG)
    sources = [f"monitor.{split}={{name: imagefolder, root: {tmp_path / split}}}" for split in ("train", "test")]
    return ["monitor.every=1", "monitor.k=3", *sources]


def test_knn_finds_classes_that_differ_in_colour_and_lands_in_journal_and_summary(tmp_path, labelled):
    make_trainer(tmp_path / "small.yaml", [f"run.folder={tmp_path / 'run'}", *labelled]).run()
    found = {line["step"]: line["knn_top1"] for line in read(tmp_path / "run" / "journal.jsonl") if "knn_top1" in line}
    assert found == {3: 100.0, 6: 100.0}
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["knn_top1"] == 100.0


def test_knn_is_exact_in_a_run_that_computes_in_bf16(tmp_path, labelled):
    make_trainer(
        tmp_path / "small.yaml", [f"run.folder={tmp_path / 'run'}", "run.precision=bf16", "views.size=32", *labelled]
    ).run()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["knn_top1"] == 100.0


def test_a_short_run_raises_no_alarm_and_a_hopeless_one_says_so_in_the_summary(tmp_path, capsys):
    (tmp_path / "small.yaml").write_text(CONFIG)
    summary = tmp_path / "run" / "summary.json"
    for epochs, count in ((2, 0), (5, 1)):
        limits = [
            "monitor.retrieval=0", "monitor.effective_rank=0", "monitor.embedding_std=9", f"train.epochs={epochs}",
        ]  # fmt: skip
        folder = [f"run.folder={tmp_path / 'run'}", "run.overwrite=true"]
        make_trainer(tmp_path / "small.yaml", [*folder, *limits]).run()
        warnings = json.loads(summary.read_text())["warnings"]
        assert len(warnings) == count
        assert capsys.readouterr().err.count("warning: embedding_std fell to") == count
    assert "below 9, at step 13: all images get nearly the same vector" in warnings[0]
    summary.unlink()  # as after a kill: the journal tells it again
    make_trainer(tmp_path / "small.yaml", [f"run.folder={tmp_path / 'run'}", *limits]).run()
    assert json.loads(summary.read_text())["warnings"] == warnings


def test_watching_changes_no_bit_of_what_is_learned(tmp_path, labelled):
    states, journals = [], []
    for name, overrides in (("watched", labelled), ("alone", [])):
        (tmp_path / "small.yaml").write_text(CONFIG)
        trainer = make_trainer(tmp_path / "small.yaml", [f"run.folder={tmp_path / name}", *overrides])
        trainer.run()
        states.append(trainer.objective.method.state_dict() | {"rng": torch.get_rng_state()})
        lines = read(tmp_path / name / "journal.jsonl")
        journals.append(
            [{k: v for k, v in line.items() if k not in ("knn_top1", "images_per_second")} for line in lines]
        )
    assert [name for name, value in states[0].items() if not torch.equal(value, states[1][name])] == []
    assert journals[0] == journals[1]


def test_a_run_may_go_on_with_another_monitor(tmp_path, labelled):
    folder = f"run.folder={tmp_path / 'run'}"
    first = make_trainer(tmp_path / "small.yaml", [folder])
    first.asked_by = 15
    first.run()
    rest = make_trainer(tmp_path / "small.yaml", [folder, *labelled])
    assert rest.step == 1
    rest.run()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["knn_top1"] == 100.0


def test_the_features_are_those_of_the_running_statistics(tmp_path, labelled):
    trainer = make_trainer(tmp_path / "small.yaml", [f"run.folder={tmp_path / 'run'}", *labelled])
    seen = []
    trainer.knn.top1 = lambda backbone, *rest: seen.append(backbone) or 12.5
    trainer.run()
    backbone = trainer.objective.method.query_encoder.backbone
    assert backbone.training
    assert not seen[-1].training
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(seen[-1](images), backbone.eval()(images))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["monitor.train.root={root}/train/red"], "monitor.train knows no labels"),
        (["monitor.k=13"], r"monitor\.k=13 is more than the 12 training images"),
        (["monitor.test=null"], "monitor.every needs monitor.train and monitor.test"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(tmp_path, labelled, overrides, message):
    overrides = [text.replace("{root}", str(tmp_path)) for text in overrides]
    with pytest.raises(InputError, match=message):
        make_trainer(tmp_path / "small.yaml", [f"run.folder={tmp_path / 'run'}", *labelled, *overrides])
    assert not (tmp_path / "run").exists()


def test_classes_must_be_the_same_number(tmp_path, labelled):
    folder = tmp_path / "test" / "green"
    folder.mkdir()
    Image.new("RGB", (20, 16), (0, 250, 0)).save(folder / "0.png")
    parts = {split: {"name": "imagefolder", "root": tmp_path / split} for split in ("train", "test")}
    settings = MonitorSettings(every=1, k=3, **parts)
    with pytest.raises(InputError, match=r"monitor\.train has 2 classes and monitor\.test 3"):
        OnlineKnn(settings, ViewSettings(size=8), 0)


def test_images_are_picked_evenly_over_all_classes(tmp_path, labelled):
    parts = {split: {"name": "imagefolder", "root": tmp_path / split} for split in ("train", "test")}
    knn = OnlineKnn(MonitorSettings(every=1, k=3, limit=4, **parts), ViewSettings(size=8), 0)
    assert knn.train.picked == [0, 3, 6, 9]
    assert knn.test.picked == [0, 2, 4, 6]
