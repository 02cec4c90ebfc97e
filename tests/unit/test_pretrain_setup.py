"""What a user can get wrong in a pre-training run is refused before anything is written."""

import io
import json
import shutil
import tarfile
import time

import pytest
import torch
import yaml
from PIL import Image
from running import small_run

from core import checkpoint, distributed
from core.backbones import build as build_backbone
from core.backbones.resnet import ResNet
from core.checkpoint import load, save
from core.config import load as load_config
from core.config import parse
from core.decoding import DamagedImage
from core.errors import InputError
from core.plugins import build
from core.run_folder import hold
from pretrain.config import PretrainSettings
from pretrain.loader import Pairs
from pretrain.methods.moco import Moco
from pretrain.setup import build_parts, choose_device, make_trainer
from pretrain.views import ViewSettings

CONFIG = small_run()


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


def pictures(folder, count=3, size=(20, 16)):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", size, (number * 40, 10, 200)).save(folder / f"{number}.jpg")
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.batch_size": 7}, "method.queue=32 is not a multiple of the 7 keys that enter it at a time"),
        (
            {"train.batch_size": 2, "method.split_bn": 2},
            "leave fewer than 2 to normalise together in method.split_bn=2 parts",
        ),
        ({"train.batch_size": 3, "method.queue": 33}, "the middle of 3 images would mix with itself"),
        ({"branches.filled.mask.cells": 5}, "a 5x5 grid cannot hide exactly 0.5 of its cells; take 0.48 or 0.52"),
        (
            {"branches.filled.mask.cells": 6},
            r"changed\.yaml: branches\.filled: a grid of 6 cells does not fit 32 px images",
        ),
        (
            {"branches.filled.mask.ratio": 1.0},
            r"1 problem.*\n  branches\.filled\.mask\.ratio: a share hidden lies.*got 1\.0",
        ),
        ({"train.batch_size": 1}, r"train\.batch_size: Input should be greater than or equal to 2"),
        ({"train.batch_size": 32}, "24 images are fewer than one batch of 32"),
        ({"method.split_bn": 3}, "8 images at a time cannot be cut evenly in method.split_bn=3 parts"),
        ({"plain_weight": 0, "branches": {}}, "plain_weight=0 and no branches leave nothing to learn"),
        ({"run": {"precision": "fp16", "device": "cpu"}}, "run.precision=fp16 needs a GPU"),
        ({"data": {"name": "imagefolder", "root": "nowhere"}}, "no folder nowhere; set data.root"),
        ({"branches.plain": {"name": "mscn", "cell": 8}}, "the name 'plain' is taken"),
        (
            {"branches.masked": {"name": "mscn", "cell": 12}},
            r"branches\.masked: a grid of 12 px cells does not fit 32 px images",
        ),
    ],
)
def test_a_setting_that_cannot_work_is_refused_with_the_next_step(tmp_path, changes, message):
    values = yaml.safe_load(CONFIG)
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = values
        for parent in parents:
            place = place[parent]
        place[last] = value
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=message):
        make_trainer(path, [f"run.folder={tmp_path / 'run'}"])
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_folder_holding_another_config_is_refused_unless_overwritten(config, tmp_path):
    folder = f"run.folder={tmp_path / 'run'}"
    make_trainer(config, [folder]).run()
    with pytest.raises(InputError, match=r"holds a run of other settings \(different: optimizer\.lr\)"):
        make_trainer(config, [folder, "optimizer.lr=0.02"])
    assert make_trainer(config, [folder, "optimizer.lr=0.02", "run.overwrite=true"]).step == 0


def test_checkpoints_whose_config_is_lost_are_not_started_over(config, tmp_path):
    folder = f"run.folder={tmp_path / 'run'}"
    make_trainer(config, [folder]).run()
    (tmp_path / "run" / "config.yaml").unlink()
    with pytest.raises(
        InputError, match=r"different: no config\.yaml tells them\); choose another run\.folder, or set"
    ):
        make_trainer(config, [folder])
    assert (tmp_path / "run" / "checkpoints" / "last.pth").exists()


def test_a_torn_checkpoint_names_the_newest_good_one_and_goes_on_from_it_when_asked(config, tmp_path):
    options = ["train.epochs=3", "train.keep_every=1"]
    make_trainer(config, [*options, f"run.folder={tmp_path / 'whole'}"]).run()
    make_trainer(config, [*options, f"run.folder={tmp_path / 'torn'}"]).run()
    files = tmp_path / "torn" / "checkpoints"
    for name in ("last.pth", "epoch_0003.pth"):
        whole = (files / name).read_bytes()
        (files / name).write_bytes(whole[: len(whole) // 2] + b"x" + whole[len(whole) // 2 + 1 :])
    with pytest.raises(InputError, match=r"last\.pth is damaged: .*newest good one, epoch_0002\.pth, remove last\.pth"):
        make_trainer(config, [*options, f"run.folder={tmp_path / 'torn'}"])
    (files / "last.pth").unlink()
    with pytest.raises(InputError, match=r"epoch_0003\.pth is damaged: .*, epoch_0002\.pth, remove epoch_0003\.pth"):
        make_trainer(config, [*options, f"run.folder={tmp_path / 'torn'}"])
    (files / "epoch_0003.pth").unlink()
    trainer = make_trainer(config, [*options, f"run.folder={tmp_path / 'torn'}"])
    assert trainer.step == 6
    trainer.run()
    one, other = load(tmp_path / "whole" / "checkpoints" / "last.pth"), load(files / "last.pth")
    assert all(torch.equal(value, other["method"][name]) for name, value in one["method"].items())


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Return the config of a run that has ended, its folder's option, and its last checkpoint."""
    home = tmp_path_factory.mktemp("ended")
    (home / "small.yaml").write_text(CONFIG)
    make_trainer(home / "small.yaml", [f"run.folder={home / 'run'}"]).run()
    return home / "small.yaml", f"run.folder={home / 'run'}", home / "run" / "checkpoints" / "last.pth"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("config", "train", "epochs"), 7, r"last\.pth is of a run of other settings \(different: train\.epochs\)"),
        (("config",), [1], "last.pth has 1 problem"),
        (("progress", "step"), "3", "no checkpoint of this run"),
        (("progress", "step"), 10**6, "does not fit this run"),
        (("progress", "form"), "ab", "no checkpoint of this run"),
        (("progress",), None, "no checkpoint of this run"),
        (("method",), {"a": 1}, "no checkpoint of this run"),
        (("optimizer",), {"state": 3}, "no checkpoint of this run"),
        (("optimizer", "state", 0, "momentum_buffer"), torch.zeros(3, 3), "does not fit this run"),
        (("rng",), [{"torch": "x"}], "no checkpoint of this run"),
    ],
)
def test_a_checkpoint_of_another_run_or_of_odd_content_is_refused(ended, tmp_path, place, value, message):
    config, folder, last = ended
    whole = shutil.copy(last, tmp_path / "whole.pth")
    state = inner = load(last)
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    save(last, state)
    try:
        with pytest.raises(InputError, match=message):
            make_trainer(config, [folder])
    finally:
        shutil.copy(whole, last)


def test_a_finished_run_started_again_stays_as_it_is(config, tmp_path):
    folder = f"run.folder={tmp_path / 'run'}"
    make_trainer(config, [folder]).run()
    before = (tmp_path / "run" / "summary.json").read_bytes()
    again = make_trainer(config, [folder])
    again.run()
    assert again.step == again.total == 3
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


def test_a_run_killed_between_its_last_checkpoint_and_its_summary_still_gets_one(config, tmp_path):
    folder, summary = f"run.folder={tmp_path / 'run'}", tmp_path / "run" / "summary.json"
    make_trainer(config, [folder]).run()
    before = json.loads(summary.read_text())
    summary.unlink()
    make_trainer(config, [folder]).run()
    after = json.loads(summary.read_text())
    assert after == before | {"seconds": None, "images_per_second": None}
    assert (after["status"], after["forwards_per_step"]) == ("finished", {"query": 2, "key": 1})


def test_a_loss_that_is_not_finite_stops_the_run_names_the_branch_and_keeps_the_last_good_checkpoint(config, tmp_path):
    trainer = make_trainer(config, [f"run.folder={tmp_path / 'run'}", "train.epochs=2"])
    step = trainer._step

    def poisoned(batch):
        if trainer.step == 4:
            with torch.no_grad():
                trainer.objective.method.query_encoder.projector[0].weight.fill_(float("nan"))
        return step(batch)

    trainer._step = poisoned
    with pytest.raises(InputError, match=r"loss/plain is not finite at step 5; the last good checkpoint is kept"):
        trainer.run()
    kept = load(tmp_path / "run" / "checkpoints" / "last.pth")
    assert kept["progress"]["step"] == 3
    assert torch.isfinite(kept["method"]["query_encoder.projector.0.weight"]).all()


def test_weights_that_are_not_finite_reach_no_checkpoint(config, tmp_path):
    trainer = make_trainer(config, [f"run.folder={tmp_path / 'run'}", "train.epochs=2"])
    step = trainer._step

    def poisoned(batch):
        outcome = step(batch)
        if trainer.step == 5:  # the last one: no loss will tell
            with torch.no_grad():
                trainer.objective.method.query_encoder.projector[0].weight[0, 0] = float("inf")
        return outcome

    trainer._step = poisoned
    with pytest.raises(InputError, match=r"projector\.0\.weight is not finite after step 6; the last good checkpoint"):
        trainer.run()
    assert load(tmp_path / "run" / "checkpoints" / "last.pth")["progress"]["step"] == 3
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_cards_generator_goes_on_where_a_checkpoint_left_it(config, tmp_path, monkeypatch):
    made, set_back, card = make_trainer(config, [f"run.folder={tmp_path / 'run'}"]), [], torch.device("cuda", 0)
    states = {"torch": torch.get_rng_state(), "cuda": torch.arange(16, dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states["cuda"] if device == card else None)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *given: set_back.append(given))
    made.device = card
    found = made._generators()
    assert all(torch.equal(found[name], state) for name, state in states.items())
    made.device, made._generators = torch.device("cpu"), lambda: found
    made.save()
    made.writer.join()
    again = make_trainer(config, [f"run.folder={tmp_path / 'run'}"])
    assert set_back == []  # what goes on without a card has no use for it
    again.device = card
    again.restore(tmp_path / "run/checkpoints/last.pth")
    ((state, device),) = set_back
    assert (state.tolist(), device) == (list(range(16)), card)


@pytest.mark.parametrize("there", [False, True])
def test_a_macs_gpu_is_a_device_that_is_refused_in_one_line_where_there_is_none(config, monkeypatch, there):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there)
    asked = parse(PretrainSettings, load_config(config, ["run.device=mps"]), config)
    if there:
        assert choose_device(asked) == torch.device("mps")
    else:
        with pytest.raises(
            InputError, match=r"^run\.device=mps, but this is no Mac .*; leave it out or set run\.device=cpu$"
        ):
            choose_device(asked)


def test_checkpoints_are_written_by_the_clock_too_and_going_on_from_one_changes_nothing(config, tmp_path, monkeypatch):
    whole = make_trainer(config, [f"run.folder={tmp_path / 'whole'}", "train.epochs=1"])
    whole.run()
    made = make_trainer(
        config, [f"run.folder={tmp_path / 'run'}", "train.epochs=1", "train.checkpoint_minutes=0.000001"]
    )
    written, step = [], made._step
    monkeypatch.setattr(
        checkpoint, "save", lambda path, state: written.append(state["progress"]["step"]) or save(path, state)
    )

    def failing(batch):
        if made.step == 2:
            made.writer.join()
            raise RuntimeError("killed")
        return step(batch)

    made._step = failing
    with pytest.raises(RuntimeError, match="killed"):
        made.run()
    assert written == [1, 2]
    rest = make_trainer(config, [f"run.folder={tmp_path / 'run'}", "train.epochs=1"])
    assert rest.step == 2
    rest.run()
    one, two = (load(tmp_path / folder / "checkpoints" / "last.pth")["method"] for folder in ("whole", "run"))
    assert [name for name, value in one.items() if not torch.equal(value, two[name])] == []


def test_a_checkpoint_holds_what_was_when_it_was_asked_for_and_a_failed_write_is_told(tmp_path, monkeypatch):
    writer, weights = checkpoint.Writer(), torch.zeros(1000)
    monkeypatch.setattr(checkpoint, "save", lambda path, state: time.sleep(0.2) or save(path, state))
    writer.write({tmp_path / "one.pth": {"weights": weights, "same": [weights], "step": 1}})
    weights += 1
    writer.join()
    found = torch.load(tmp_path / "one.pth", weights_only=True)
    assert (found["step"], found["weights"].sum(), found["same"][0].sum()) == (1, 0, 0)
    (tmp_path / "file").touch()
    writer.write({tmp_path / "file" / "two.pth": {"weights": weights}})
    with pytest.raises(InputError, match="cannot write"):
        writer.join()
    writer.join()  # said once


def test_a_folder_in_which_another_process_trains_is_refused(config, tmp_path, monkeypatch):
    monkeypatch.setattr("pretrain.setup.WORKERS_OUTLIVE", 0.1)
    other = hold(tmp_path / "run")
    with pytest.raises(InputError, match=r"run is in use by another process; wait for it, or choose another folder"):
        make_trainer(config, [f"run.folder={tmp_path / 'run'}"])
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".run.lock"]
    other.release()
    make_trainer(config, [f"run.folder={tmp_path / 'run'}"])


def test_a_run_goes_on_with_as_many_groups_of_batch_norm_as_before_or_not_at_all(config, tmp_path, monkeypatch):
    make_trainer(config, [f"run.folder={tmp_path / 'run'}", "train.epochs=1", "method.split_bn=4"]).run()
    again = [f"run.folder={tmp_path / 'run'}", "train.epochs=1", "method.split_bn=4"]
    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(distributed, "gather_objects", lambda value: [value] * 2)
    monkeypatch.setattr(distributed, "from_main", lambda make: make())
    trainer = make_trainer(config, again)
    assert trainer.objective.method.groups == 2  # on each of two
    path = tmp_path / "run" / "checkpoints" / "last.pth"
    save(path, load(path) | {"progress": load(path)["progress"] | {"groups": 8}})
    with pytest.raises(InputError, match=r"worked in 8 groups of the batch, here they would in 4; go on with as many"):
        make_trainer(config, again)


@pytest.mark.parametrize(
    ("total", "world", "share"), [(8, 1, 8), (8, 4, 2), (8, 8, 1), (1, 1, 1), (1, 3, 1), (8, 16, 0), (8, 3, 0)]
)
def test_the_groups_of_batch_norm_are_shared_by_any_number_of_processes_that_divides_them(
    monkeypatch, total, world, share
):
    monkeypatch.setattr(distributed, "world", lambda: world)
    settings = Moco.Config(split_bn=total, queue=16, dim=4)
    if not share:
        with pytest.raises(InputError, match=rf"split_bn={total} groups cannot be shared by {world} processes"):
            Moco(settings, build_backbone(ResNet.Config(depth=18, width=4)))
        return
    made = Moco(settings, build_backbone(ResNet.Config(depth=18, width=4)))
    assert made.groups == share
    assert ("warning" in made.note) == (total == world == 1)
    assert made.note.startswith(
        ("warning: method.split_bn=1 on one process", f"batch norm over {max(total, world)} groups")
    )


def test_processes_draw_apart_where_layers_draw(config, tmp_path, monkeypatch):
    drawn = []
    for rank in (0, 0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "is_main", lambda: True)
        make_trainer(config, [f"run.folder={tmp_path / 'run'}"])
        drawn.append(torch.rand(()).item())
    assert drawn[0] == drawn[1] != drawn[2]


def test_an_empty_image_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    settings = {"name": "imagefolder", "root": str(tmp_path / "empty")}
    with pytest.raises(InputError, match=r"empty holds no images \(\.bmp, \.jpeg, \.jpg"):
        build("core.data", parse_data(settings))


def parse_data(values):
    from core.plugins import find

    return parse(find("core.data", values["name"]).Config, values)


def test_images_nested_in_any_way_are_found_and_the_top_folder_is_the_class(tmp_path):
    for folder in ("b/deep/er", "a"):
        pictures(tmp_path / folder, 2)
    images = build("core.data", parse_data({"name": "imagefolder", "root": str(tmp_path)}))
    assert [images.label(i) for i in range(len(images))] == [0, 0, 1, 1]
    assert images.image(3).shape == (3, 16, 20)


@pytest.mark.parametrize("rule", ["skip", "refuse"])
def test_a_truncated_jpeg_is_named_and_skipped_or_refused_by_setting(tmp_path, rule):
    pictures(tmp_path, 3)
    whole = (tmp_path / "1.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(whole[: len(whole) // 2])
    images = build("core.data", parse_data({"name": "imagefolder", "root": str(tmp_path)}))
    pairs = Pairs(images, ViewSettings(size=8), seed=0, skip_damaged=rule == "skip")
    if rule == "refuse":
        with pytest.raises(DamagedImage, match=r"1\.jpg cannot be decoded .*data\.damaged=skip"):
            pairs[(0, 1)]
    else:
        crops, _, damaged = pairs[(0, 1)]
        assert damaged == [str(tmp_path / "1.jpg")]
        assert crops.shape == (2, 3, 8, 8)


def test_a_folder_of_nothing_but_damaged_images_is_refused(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"no image")
    images = build("core.data", parse_data({"name": "imagefolder", "root": str(tmp_path)}))
    with pytest.raises(DamagedImage, match=r"none of the 3 images can be decoded, the first is .*1\.jpg"):
        Pairs(images, ViewSettings(size=8), seed=0, skip_damaged=True)[(0, 1)]


def test_a_run_stops_when_more_images_are_damaged_than_its_setting_allows(tmp_path):
    pictures(tmp_path / "set", 16)
    for number in range(4):
        (tmp_path / "set" / f"{number}.jpg").write_bytes(b"no image")
    values = {
        "backbone": {"name": "resnet", "depth": 18, "width": 4}, "method": {"name": "moco", "queue": 16, "dim": 8},
        "data": {"name": "imagefolder", "root": str(tmp_path / "set")}, "views": {"size": 32},
        "train": {"epochs": 1, "batch_size": 8, "workers": 0}, "run": {"folder": str(tmp_path / "run")},
    }  # fmt: skip
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(
        InputError, match=r"[2-4] of 16 images are damaged so far, such as .*\d\.jpg; copy the set again"
    ):
        make_trainer(tmp_path / "x.yaml").run()
    trainer = make_trainer(tmp_path / "x.yaml", ["train.damaged_share=0.25"])
    trainer.run()
    assert (trainer.step, len(trainer.damaged)) == (2, 4)


def test_tar_shards_give_the_same_pixels_as_the_folder_they_were_made_from(tmp_path):
    folder = pictures(tmp_path / "set" / "class", 4)
    with tarfile.open(tmp_path / "set.tar", "w") as shard:
        shard.add(folder, "set/class")
    shards = build("core.data", parse_data({"name": "tar_shards", "root": str(tmp_path / "set.tar")}))
    files = build("core.data", parse_data({"name": "imagefolder", "root": str(tmp_path / "set")}))
    names = sorted(range(4), key=lambda i: shards.members[i].name)
    assert all(torch.equal(shards.image(names[i]), files.image(i)) for i in range(4))


def test_a_compressed_or_empty_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "z.tar", "w:gz") as shard:
        shard.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    with pytest.raises(InputError, match=r"z\.tar is truncated or not an uncompressed tar"):
        build("core.data", parse_data({"name": "tar_shards", "root": str(tmp_path / "z.tar")}))
    with tarfile.open(tmp_path / "e.tar", "w"):
        pass
    with pytest.raises(InputError, match="holds no images"):
        build("core.data", parse_data({"name": "tar_shards", "root": str(tmp_path / "e.tar")}))


def test_the_cost_of_a_step_is_counted_in_forwards(config, tmp_path):
    cases = {
        "mixmask": ([], {"query": 2, "key": 1}),
        "plain": (["branches=null"], {"query": 1, "key": 1}),
        "symmetric": (["method.symmetric=true"], {"query": 4, "key": 2}),
    }
    for name, (overrides, expected) in cases.items():
        values = load_config(config, [o for o in overrides if "null" not in o])
        if "branches=null" in overrides:
            values["branches"] = {}
        settings = parse(PretrainSettings, values)
        objective, _ = build_parts(settings)
        images = torch.randn(2, 8, 3, 32, 32)
        objective(images[0], images[1], 0)
        assert objective.forwards == expected, name


def test_mscn_alone_masks_both_views_and_makes_no_clean_key(config):
    values = load_config(config, ["plain_weight=0"])
    values["branches"] = {"masked": {"name": "mscn", "cell": 8}}
    objective, _ = build_parts(parse(PretrainSettings, values))
    scored = objective(*torch.randn(2, 8, 3, 32, 32), step=0)
    assert objective.forwards == {"query": 1, "key": 1}
    assert scored.parts["lam/masked"] == 1
    assert set(scored.parts) == {"loss/masked", "lam/masked"}
    assert len(scored.keys) == 1


def test_damaged_images_are_named_once_and_counted_in_the_summary(config, tmp_path, capsys):
    pictures(tmp_path / "set", 16, size=(40, 40))
    broken = tmp_path / "set" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    values = yaml.safe_load(CONFIG) | {"data": {"name": "imagefolder", "root": str(tmp_path / "set")}}
    config.write_text(yaml.safe_dump(values))
    make_trainer(config, [f"run.folder={tmp_path / 'run'}", "train.epochs=2"]).run()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["damaged_images"] == 1
    assert capsys.readouterr().err.count(f"skipping a damaged image: {broken}") == 1
