"""Suite files are checked all at once, and become items that are keyed by what goes into them."""

import hashlib
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import fake_suite
import pytest
import torch
import yaml
from rich.console import Console
from running import small_run

import masktransfer
from core import weights_file
from core.errors import InputError
from core.provenance import ROOT
from transfer import results
from transfer.convert import random_init
from transfer.suite import items
from transfer.suite import run as runner
from transfer.suite import settings as suite
from transfer.suite.trial import run_trial


@pytest.fixture
def home(tmp_path, monkeypatch):
    fake_suite.install(tmp_path, monkeypatch)
    yield tmp_path
    fake_suite.forget()


def _suite(home, **changes):
    values = {
        "name": "test",
        "checkpoints": {"a": {"path": "good.pth", "name": "Method A"}, "b": {"path": "other.pth"}},
        "benchmarks": fake_suite.TASK,
    } | changes
    (home / "suite.yaml").write_text(json.dumps(values))
    return suite.read(home / "suite.yaml")


def _run(settings, folder=Path("out")):
    return runner.run(settings, folder, Console(file=io.StringIO(), force_terminal=False))


def _calls(home):
    return len((home / "calls.txt").read_text().splitlines())


def test_a_checkpoint_replaced_under_the_same_path_is_a_new_item(home):
    assert _run(_suite(home, trials=1)) == 0
    (home / "good.pth").write_text("better")
    assert _run(_suite(home, trials=1)) == 0
    assert sorted(p.name.split("--")[0] for p in Path("out").glob("*--*")) == ["a", "a", "b"]


def test_a_data_set_edited_after_a_trial_is_measured_anew_and_a_restored_one_is_not(home, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    rows = (home / "rows.yaml").read_text().replace("trials: 2", "trials: 1, sets: [faces]")
    (home / "rows.yaml").write_text(rows)
    (home / "faces").mkdir()
    (home / "faces" / "1.jpg").write_bytes(b"image")
    labels = home / "faces" / "labels.json"
    labels.write_text("[1]")
    settings = _suite(home, checkpoints={"a": {"path": "good.pth"}}, trials=1)
    assert (_run(settings), _calls(home)) == (0, 1)
    (first,) = items.plan(settings, Path("out"))
    assert items.finished(first)
    assert results.read(first.folder / "result.json").data.keys() == {"faces"}
    labels.write_text("[2]")
    (edited,) = items.plan(settings, Path("out"))
    assert edited.folder.name.startswith(f"{first.folder.name}--")
    with pytest.raises(InputError, match=r"different: data"):  # the old number is not returned for the new data
        run_trial(first.job)
    assert (_run(settings), _calls(home)) == (0, 2)
    labels.write_text("[1]")
    assert items.plan(settings, Path("out"))[0].folder == first.folder
    assert (_run(settings), _calls(home)) == (0, 2)


def test_a_changed_protocol_config_is_a_new_item_and_an_unchanged_one_is_not(home):
    names = [item.folder.name for item in items.plan(_suite(home))]
    assert [item.folder.name for item in items.plan(_suite(home))] == names
    (home / "protocol.yaml").write_text("steps: 2\n")
    assert not set(names) & {item.folder.name for item in items.plan(_suite(home))}


def test_all_problems_of_a_suite_are_named_at_once(home):
    with pytest.raises(InputError) as caught:
        _suite(
            home,
            baseline="nobody",
            seeds=[4, 4],
            launcher={"name": "slurm", "minuts": 3},
            retries=-1,
            checkpoints={
                "a": {"path": "missing.pth"},
                "b": {"path": "good.pth", "random": {"backbone": {"name": "vgg"}}},
                "c/d": {"path": "good.pth"},
                "e": {"pretrain": {"config": "none.yaml"}},
                "f": {"path": "good.pth", "name": "b"},
                "g": {"pretrain": {"config": str(ROOT / "configs/suites/demo.yaml"), "overrides": ["run.folder=x"]}},
            },
            benchmarks=["fake_task", "coco_c5", "fake_task"],
            trials=0,
            extra=1,
        )
    message = str(caught.value)
    for problem in (
        *("missing.pth", "vgg", "'c/d'", "none.yaml", "coco_c5", "did you mean coco_c4", "trials", "extra"),
        "baseline: 'nobody' is none of the checkpoints a, b, c/d, e, f, g",
        "checkpoints: two checkpoints are named 'b'",
        "checkpoints.g.pretrain: the suite sets run.folder",
        "benchmarks: 'fake_task' twice",
        "seeds: 4 twice",
        "launcher.minuts: no such setting",
        "retries: Input should be greater than or equal to 0",
    ):
        assert problem in message
    assert message.startswith(f"{home / 'suite.yaml'} has {len(message.splitlines()) - 1} problem(s):")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"baseline": "mscn"}, "baseline: 'mscn' is none of the checkpoints a, b"),
        (
            {"checkpoints": {"a": {"path": "good.pth"}, "b": {"path": "bad.pth", "name": "a"}}},
            "two checkpoints are named",
        ),
        ({"benchmarks": ["fake_task", "fake_task"]}, "benchmarks: 'fake_task' twice"),
        ({"trials": 3, "seeds": [0, 1]}, "trials: 3, but seeds names 2; give one of the two"),
        (
            {"seeds": [7], "benchmarks": {"fake_task": {"file": "rows.yaml", "trials": 2}}},
            r"benchmarks.fake_task.trials: 2, but seeds names only 1",
        ),
        ({"threads": 4, "launcher": {"name": "slurm", "cpus": 2}}, "threads: 4, but launcher.cpus gives a job only 2"),
        ({"launcher": {"name": "slrum"}}, "no 'slrum' in transfer.suite.launchers; did you mean slurm"),
        ({"benchmarks": {"fake_task": 3}}, "benchmarks.fake_task: Input should be a valid dictionary"),
        ({"checkpoints": {"a": {"name": "nothing"}}}, "exactly one of path, pretrain and random"),
    ],
)
def test_a_contradiction_in_a_suite_is_refused(home, changes, problem):
    with pytest.raises(InputError, match=problem):
        _suite(home, **changes)


def test_pre_training_comes_first_and_its_command_and_folder_follow_from_its_config(home):
    (home / "pretrain.yaml").write_text("train: {epochs: 3}\n")
    entry = {"pretrain": {"config": "pretrain.yaml", "overrides": ["train.epochs=1"]}}
    settings = _suite(home, checkpoints={"p": entry, "a": {"path": "good.pth"}}, trials=1)
    first, *rest = items.plan(settings, Path("out"))
    assert first.kind == "pretrain"
    assert first.command[-2:] == ("train.epochs=1", f"run.folder={first.folder}")
    assert [item.after for item in rest] == [first.name, ""]
    assert rest[0].job.checkpoint == first.folder / "checkpoints" / "last.pth"


def test_a_repeated_pre_training_makes_one_run_a_trial_with_its_own_seed_and_folder(home):
    (home / "pretrain.yaml").write_text("train: {epochs: 3}\n")
    entry = {"pretrain": {"config": "pretrain.yaml", "repeat": True}}
    wanted = items.plan(_suite(home, checkpoints={"ours": entry}, trials=2))
    runs = [item for item in wanted if item.kind == "pretrain"]
    assert [run.name for run in runs] == ["ours (pre-training 0)", "ours (pre-training 1)"]
    assert [run.command[-2] for run in runs] == ["run.seed=0", "run.seed=1"]
    assert len({run.folder for run in runs}) == 2
    measured = {
        (item.after, item.checkpoint_file.parents[1], item.trial) for item in wanted if item.kind == "benchmark"
    }
    assert measured == {(run.name, run.folder, trial) for trial, run in enumerate(runs)}


def test_a_repeated_random_backbone_draws_one_a_trial_and_seeds_name_the_trials(home):
    backbone = {"name": "resnet", "depth": 18, "width": 4, "stem": "imagenet"}
    entry = {"random": {"backbone": backbone, "seed": 10, "repeat": True}}
    wanted = items.plan(_suite(home, checkpoints={"r": entry}, seeds=[0, 3]))
    made = [item for item in wanted if item.kind == "random"]
    assert [item.name for item in made] == ["r (random 0)", "r (random 3)"]
    assert [item.command[item.command.index("--seed") + 1] for item in made] == ["10", "13"]
    assert len({item.checkpoint_file for item in made}) == 2
    measured = [item for item in wanted if item.kind == "benchmark"]
    assert [(item.trial, item.after) for item in measured] == [(0, "r (random 0)"), (3, "r (random 3)")]
    assert [item.checkpoint_file for item in measured] == [item.checkpoint_file for item in made]


def test_a_benchmark_with_fewer_trials_takes_the_first_of_the_seeds(home):
    measures = {**fake_suite.TASK, "short": {"name": "fake_task", "file": "rows.yaml", "options": ["x"], "trials": 1}}
    wanted = items.plan(_suite(home, checkpoints={"a": {"path": "good.pth"}}, benchmarks=measures, seeds=[5, 2]))
    assert [(item.benchmark, item.trial) for item in wanted] == [("fake_task", 5), ("short", 5), ("fake_task", 2)]


def test_folders_of_items_stay_what_they_were_so_that_old_results_are_found(home, monkeypatch):
    monkeypatch.setattr(items, "protocol_hash", lambda *parts: "rules")
    backbone = {"name": "resnet", "depth": 18}
    entries = {"a": {"path": "good.pth"}, "r": {"random": {"backbone": backbone, "seed": 3}}}
    wanted = items.plan(_suite(home, checkpoints=entries, trials=1), Path("out"))
    content = hashlib.sha256(b"good").hexdigest()
    random = hashlib.sha256(json.dumps({"backbone": backbone, "seed": 3}, sort_keys=True).encode()).hexdigest()
    keys = [hashlib.sha256(json.dumps([key, "rules", 0]).encode()).hexdigest()[:8] for key in (content, random)]
    assert [str(item.folder) for item in wanted] == [
        f"out/checkpoints/r--{random[:8]}",
        f"out/a--fake_task--trial0--{keys[0]}",
        f"out/r--fake_task--trial0--{keys[1]}",
    ]


def test_a_random_backbone_is_the_same_file_for_the_same_seed(home, monkeypatch):
    entry = {"random": {"backbone": {"name": "resnet", "depth": 18, "width": 4, "stem": "imagenet"}, "seed": 3}}
    (item, *_) = items.plan(_suite(home, checkpoints={"r": entry}, trials=1), Path("out"))
    monkeypatch.setattr(sys, "argv", list(item.command[3:]))
    random_init.main()
    assert items.finished(item)
    weights = weights_file.read_weights_file(item.checkpoint_file)
    assert weights["config"]["seed"] == 3
    assert weights["backbone"]["conv1.weight"].shape == (4, 3, 7, 7)
    random_init.make(Path("again.pth"), entry["random"]["backbone"], 3)
    again = weights_file.read_weights_file(Path("again.pth"))["backbone"]
    assert all((again[name] == tensor).all() for name, tensor in weights["backbone"].items())


@pytest.mark.parametrize(
    ("asked", "available", "found"),
    [
        ("auto", 8, (8, 4, 1, 8)),
        ("auto", 3, (3, 3, 1, 3)),
        ("auto", 0, (1, 1, 1, 1)),
        (2, 8, (2, 2, 1, 2)),
        (2, 0, (2, 2, 1, 2)),
    ],
)
def test_an_item_gets_as_many_devices_as_published_or_as_there_are_or_as_asked(home, asked, available, found):
    names = ["voc0712_detection", "voc12_segmentation", "cifar10_knn"]
    config = str(ROOT / "configs/pretrain/imagenet/mocov2_r50_8xb32-200ep_imagenet.yaml")
    settings = _suite(
        home, benchmarks=names, devices=asked, trials=1, checkpoints={"p": {"pretrain": {"config": config}}}
    )
    pretrain, *wanted = items.plan(settings, Path("out"), available)
    assert (*(item.devices for item in wanted), pretrain.devices) == found
    assert all(item.job.devices == item.devices for item in wanted)
    assert ("torch.distributed.run" in pretrain.command) == (pretrain.devices > 1)


@pytest.mark.parametrize("available", [8, 4, 1])
def test_the_plans_recipes_are_the_originals_on_any_number_of_devices(home, available):
    originals = yaml.safe_load((Path(__file__).parent / "originals.yaml").read_text())
    names = ["voc0712_detection", "coco_fpn", "voc12_segmentation"]
    settings = _suite(home, benchmarks=names, trials=1)
    printed = runner._recipes(settings, items.plan(settings, Path("out"), available), available)
    cells = zip(*(column.cells for column in printed.columns), strict=True)
    for name, (label, devices, images, iterations, lr, norm) in zip(names, cells, strict=True):
        original = originals[name]
        assert (label, devices.split()[0]) == (name, str(min(available, 4 if "segmentation" in name else 8)))
        assert images.split()[0] == str(original["batch"])
        assert (iterations, float(lr)) == (f"{original['iterations']:,}", original["lr"])
        assert norm == ("BN" if available == 1 else original["norm"])


def test_a_suite_says_how_many_images_a_device_takes_and_whether_the_schedule_scales(home):
    fit = {"scaling": "linear", "images_per_device": 1}
    settings = _suite(home, benchmarks={"voc0712_detection": fit, "plain": {"name": "voc0712_detection"}}, trials=1)
    wanted = items.plan(settings, Path("out"), 2)
    scaled, plain = wanted[0], wanted[-1]
    assert (scaled.job.scaling, scaled.job.images_per_device) == ("linear", 1)
    assert (plain.job.scaling, plain.job.images_per_device) == ("batch", 0)
    assert scaled.folder.name.split("--")[3] != plain.folder.name.split("--")[3]
    printed = runner._recipes(settings, wanted, 2)
    assert [next(iter(column.cells)) for column in printed.columns[1:5]] == ["2 of 8", "2 (2 × 1)", "192,000", "0.0025"]
    with pytest.raises(InputError, match="Classification has no --images-per-device and --scaling; leave it out"):
        items.plan(_suite(home, benchmarks={"cifar10_knn": fit}), Path("out"), 2)


def test_more_devices_than_an_item_can_have_are_refused(home):
    with pytest.raises(InputError, match=r"benchmarks\.fake_task\.devices: 4, but the launcher has 2 .* or say auto"):
        items.plan(_suite(home, benchmarks={"fake_task": {"file": "rows.yaml", "devices": 4}}), Path("out"), 2)


MAKES = "python tools/prepare_data.py --help says what makes it"


def test_the_plan_names_all_that_would_stop_it_and_running_refuses_it_before_anything_is_done(home, monkeypatch):
    two = dict.fromkeys(("online.layer1.0.conv1.weight", "target.layer1.0.conv1.weight"), torch.zeros(1, 1, 3, 3))
    torch.save(two, home / "two.pth")
    (home / "lfs.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    entries = {
        "small": {"random": {"backbone": {"name": "resnet", "depth": 18, "stem": "cifar"}}},
        "two": {"path": "two.pth"},
        "lfs": {"path": "lfs.pth"},
    }
    settings = _suite(home, checkpoints=entries, benchmarks=["shapes_detection", "cifar10_knn"], trials=1)
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=2**28))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(home / "none"))
    for start in (runner.run, runner.print_plan):
        with pytest.raises(InputError) as caught:
            start(settings, Path("out"), Console(file=io.StringIO()))
        small, ambiguous, pointer, data, disk = str(caught.value).splitlines()[-5:]
        assert small.startswith("checkpoints.small: its backbone has the 3x3 CIFAR stem, detectron2 has a 7x7 one")
        assert ambiguous.startswith("checkpoints.two: two.pth holds 2 backbones; choose with --source")
        assert pointer.startswith("checkpoints.lfs: lfs.pth is a Git LFS pointer")
        assert data == f"benchmarks.cifar10_knn: no data set {home / 'none' / 'cifar10'}; {MAKES}"
        assert disk == f"{home} has 0.2 GiB free, and an item may write 1 GiB; free some, or choose another --out"
        assert not Path("out").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "method.split_bn=8",
            r"fewer than 2 to normalise together in method\.split_bn=8 parts; raise train\.batch_size",
        ),
        ("method.queue=30", r"method\.queue=30 is not a multiple of the 8 keys that enter it at a time"),
        ("train.batch_size=32", "24 images are fewer than one batch of 32; lower train.batch_size"),
    ],
)
def test_the_plan_names_what_a_pretraining_would_refuse(home, override, message):
    (home / "pre.yaml").write_text(small_run())
    made = {"made": {"pretrain": {"config": "pre.yaml", "overrides": [override]}}}
    with pytest.raises(InputError, match=rf"stop it:\nmade \(pre-training\): .*pre\.yaml: .*{message}"):
        runner.print_plan(
            _suite(home, checkpoints=made), Path("out"), Console(file=io.StringIO()), masktransfer.refused
        )
    assert not Path("out").exists()
