"""A trial: its folder, what departs from a published protocol, and the choice of a learning rate."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from core import run_folder as work_folder
from core.errors import InputError
from core.run_folder import open_folder
from transfer import benchmarks, frameworks
from transfer.convert import convert
from transfer.frameworks import PUBLISHED, Departure, Framework
from transfer.frameworks.detectron2 import Detectron2
from transfer.frameworks.mmseg import Mmseg
from transfer.report import assembly
from transfer.results import Result
from transfer.suite import lr_sweep
from transfer.suite.trial import Job, TrialError, named, run_trial

FIT = {"images_per_device": 4, "scaling": "linear"}
EVERYTHING = Departure(devices=2, tiny="shapes", lr_factor=0.3, hold_out=0.1, **FIT)
SAID = [
    *("--tiny", "shapes", "--lr-factor", "0.3", "--hold-out", "0.1"),
    *("--images-per-device", "4", "--scaling", "linear"),
]
PLACES = (Path("w"), Path("run"), 7)


def test_detectron2_gets_options_before_its_pairs_of_keys_and_values() -> None:
    coco = benchmarks.find("coco_c4")
    _, tool, *plain = Detectron2().command(coco, *PLACES, ["SOLVER.MAX_ITER", "9"])
    assert plain == [
        *("--config-file", str(coco.config_file), "MODEL.WEIGHTS", "w", "OUTPUT_DIR", "run", "SEED", "7"),
        *("SOLVER.MAX_ITER", "9"),
    ]
    assert Path(tool).name == "train_net.py"
    assert Detectron2().command(coco, *PLACES, departure=EVERYTHING)[2:8] == ["--num-gpus", "2", *SAID[:4]]


@pytest.mark.parametrize("torn", ["trial.json", "proof.json", "run/evaluation.json", "result.json"])
def test_a_torn_file_of_a_trial_is_named_kept_aside_and_made_again(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], torn: str
) -> None:
    out = tmp_path / "out"
    whole = run(checkpoint, out)
    (out / torn).write_text((out / torn).read_text()[:-9])
    if torn != "result.json":
        (out / "result.json").unlink()
    capsys.readouterr()
    again = run(checkpoint, out)
    told = capsys.readouterr().err
    assert f"{out / torn} is damaged: it is made again, and kept as {Path(torn).name}.damaged" in told
    assert (again.metrics, again.seed) == (whole.metrics, whole.seed)
    assert json.loads((out / torn).read_text())
    assert run(checkpoint, out) == again
    (out / "trial.json").write_text("{")
    checkpoint.write_bytes(b"other weights")
    with pytest.raises(InputError, match="different: checkpoint or protocol of its result"):
        run(checkpoint, out)


@pytest.mark.parametrize(
    ("file", "pretrain", "name"),
    [
        (
            "runs/a/last.pth",
            {"method": "moco", "branches": ["mixmask", "unmix"], "epochs": 200},
            "moco + mixmask + unmix, 200 ep",
        ),
        ("runs/a/last.pth", {"method": "simsiam"}, "simsiam"),
        ("runs/a/last.pth", {}, "a/last"),
        ("runs/a/mine.pth", {}, "mine"),
    ],
)
def test_a_checkpoint_without_a_name_is_named_by_how_it_was_made(file, pretrain, name) -> None:
    assert named(Path(file), pretrain) == name


def test_mmsegmentation_is_started_by_torchrun_on_several_devices() -> None:
    voc = benchmarks.find("voc12_segmentation")
    _, tool, *plain = Mmseg().command(voc, *PLACES, ["x=1"])
    assert plain == [
        *(str(voc.config_file), "--weights", "w", "--work-dir", "run", "--seed", "7", "--cfg-options", "x=1")
    ]
    assert Mmseg().command(voc, *PLACES, ["x=1"], EVERYTHING)[1:] == [
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", tool, "--launcher", "pytorch"),
        *SAID, *plain
    ]  # fmt: skip


class Pretend(Framework):
    """Writes a result at once; the score is best at a third of the rate."""

    target, suffix, varies = "detectron2", ".pkl", ("devices", "scaling", "images_per_device", "tiny", "lr_sweep")
    SCRIPT = """
import json, pathlib, sys
folder, factor, held = pathlib.Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
(folder / "model_final.pth").write_bytes(b"large")
(folder / "last_checkpoint").write_text("model_final.pth")
score = 50 - 10 * abs(factor - 0.3)
recipe = {"effective": {"lr": 0.02 * factor}, "published": {"lr": 0.02}}
(folder / "evaluation.json").write_text(json.dumps({"metrics": {"bbox/AP": score, "held": float(held)}, "recipe": recipe}))
"""

    def command(self, benchmark, weights, folder, seed, options=(), departure=PUBLISHED):
        return [sys.executable, "-c", self.SCRIPT, str(folder), str(departure.lr_factor), str(departure.hold_out)]

    def bases(self, config: Path) -> list[Path]:
        return []


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(frameworks, "of", lambda benchmark: Pretend())
    proof = type(
        "Proof", (), {"to_dict": lambda self: {"recipe": {"pretrain": {}}, "notes": ["the teacher is taken"]}}
    )()
    monkeypatch.setattr(convert, "convert", lambda _, output, **__: output.write_bytes(b"x") and proof)
    file = tmp_path / "last.pth"
    file.write_bytes(b"weights")
    return file


def run(checkpoint: Path, out: Path, **changes: object) -> Result:
    """Run a trial of COCO C4."""
    return run_trial(Job(checkpoint=checkpoint, benchmark="coco_c4", out=out, **changes))


def test_what_a_conversion_notes_is_on_the_screen_in_the_result_and_in_the_report(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(checkpoint, tmp_path / "one").checkpoint.conversion == ("the teacher is taken",)
    assert "note: the teacher is taken\n" in capsys.readouterr().err
    report = assembly.build(tmp_path)
    assert any(notice.endswith(": the teacher is taken.") for notice in report.notices)


def test_a_failed_evaluation_loses_no_training_and_the_same_command_ends_it(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, evaluate = (
        Pretend.SCRIPT.partition("score =")[0],
        Pretend.SCRIPT.replace(".write_bytes", ".read_bytes() == "),
    )
    monkeypatch.setattr(Pretend, "SCRIPT", f"{train}\nsys.exit('error: 3.png cannot be used')")
    kept = "the log is .*log.txt; the same command goes on from what is trained"
    with pytest.raises(TrialError, match=f"^detectron2 failed with exit code 1: 3.png cannot be used; {kept}$"):
        run(checkpoint, tmp_path / "trial")
    monkeypatch.setattr(Pretend, "SCRIPT", evaluate)
    assert run(checkpoint, tmp_path / "trial").metrics["bbox/AP"] == pytest.approx(43)


def test_a_sweep_trains_each_rate_on_a_part_then_all_at_the_best_and_reports_every_one(
    checkpoint: Path, tmp_path: Path
) -> None:
    plain = run(checkpoint, tmp_path / "plain")
    swept = run(checkpoint, tmp_path / "swept", lr_sweep=(0.1, 0.3, 1.0))
    assert (plain.metrics["bbox/AP"], swept.metrics["bbox/AP"]) == (pytest.approx(43.0), pytest.approx(50.0))
    assert swept.metrics["held"] == 0  # the final run trains on everything and is tested on the test set
    sweep = swept.recipe["lr_sweep"]
    assert (sweep["chosen"], sweep["hold_out"]) == (0.3, 0.1)
    assert [(run["factor"], run["metrics"]["held"]) for run in sweep["runs"]] == [(0.1, 0.1), (0.3, 0.1), (1.0, 0.1)]
    assert swept.recipe["effective"]["lr"] == pytest.approx(0.006)
    assert (swept.protocol.title, swept.protocol.options) == ("COCO C4 1x (lr sweep)", ("--lr-sweep=0.1,0.3,1",))
    assert swept.protocol.hash != plain.protocol.hash
    assert not list((tmp_path / "swept" / "sweep").rglob("*.pth"))  # three detectors nobody needs
    assert json.loads((tmp_path / "swept" / "result.json").read_text())["recipe"]["lr_sweep"] == sweep


def test_a_tiny_result_says_so_and_has_another_hash_so_that_no_report_mixes_it_with_a_real_one(
    checkpoint: Path, tmp_path: Path
) -> None:
    real = run(checkpoint, tmp_path / "real")
    tiny = run(checkpoint, tmp_path / "tiny", tiny="shapes")
    other = run(checkpoint, tmp_path / "other", tiny="elsewhere")
    assert (tiny.protocol.title, tiny.protocol.train, tiny.protocol.test) == ("COCO C4 1x (tiny)", "shapes", "shapes")
    assert tiny.protocol.options == ("--tiny=shapes",)
    assert len({real.protocol.hash, tiny.protocol.hash, other.protocol.hash}) == 3
    assert (real.protocol.title, real.protocol.options) == ("COCO C4 1x", ())


def test_a_trial_goes_on_with_another_number_of_devices_but_not_with_another_scaling(
    checkpoint: Path, tmp_path: Path
) -> None:
    one = run(checkpoint, tmp_path / "one")
    assert run(checkpoint, tmp_path / "one", devices=8) == one
    assert run(checkpoint, tmp_path / "eight", devices=8).protocol == one.protocol
    with pytest.raises(
        InputError, match=r"holds a run of other settings \(different: scaling\); choose another folder$"
    ):
        run(checkpoint, tmp_path / "one", scaling="linear")
    claim = tmp_path / "one" / "trial.json"
    kept = {
        key: value for key, value in json.loads(claim.read_text()).items() if key in ("checkpoint", "protocol", "trial")
    }
    claim.write_text(json.dumps(kept))
    assert run(checkpoint, tmp_path / "one") == one  # folders of older versions go on


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"devices": 2}, "--num-gpus"),
        ({"images_per_device": 2}, "--images-per-device"),
        ({"lr_sweep": (1.0, 2.0)}, "--lr-sweep"),
    ],
)
def test_what_a_framework_cannot_vary_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict, flag: str
) -> None:
    (tmp_path / "last.pth").write_bytes(b"weights")
    job = Job(checkpoint=tmp_path / "last.pth", benchmark="cifar10_knn", out=tmp_path / "out", **changes)
    with pytest.raises(InputError, match=f"Classification has no {flag}; leave it out"):
        run_trial(job)
    assert not (tmp_path / "out").exists()


def test_the_command_in_a_result_makes_the_same_trial_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    import run_benchmark

    whole = Job(
        checkpoint="last.pth", benchmark="mine.yaml:a b", trial=2, out="o", label="l", name="MoCo v2, 8 ep", method="moco",
        branches=("mscn", "unmix"), notes="n o", source="plain:x", options=("a=1", "x"), devices=2, tiny="shapes",
        lr_sweep=(0.3, 1.0),
    )  # fmt: skip
    for job in (whole, Job(checkpoint="last.pth", benchmark="coco_c4", out="o")):
        again = run_benchmark.job(run_benchmark.parser().parse_args(job.command()[2:]))
        assert again == job


SETTINGS = {"lr": 0.1, "steps": (3, 4), "norm": "BN", "--weights": "abc"}


@pytest.fixture
def folder(tmp_path):
    """Return a folder that a run of SETTINGS has left with a checkpoint."""
    path = tmp_path / "run"
    assert open_folder(path, SETTINGS, False, "--work-dir") == (False, [])
    (path / "last_checkpoint").write_text("iter_2.pth")
    return path


def test_the_same_command_goes_on_without_being_told_to(folder):
    resume, said = open_folder(folder, dict(SETTINGS), False, "--work-dir")
    assert resume
    assert said == [f"going on from the last checkpoint in {folder}"]


def test_another_command_is_refused_and_the_difference_named(folder):
    before = (folder / "settings.json").read_bytes()
    changed = SETTINGS | {"lr": 0.2, "extra": 1}
    with pytest.raises(InputError, match=r"different: extra, lr\); choose another --work-dir, or .* --resume"):
        open_folder(folder, changed, False, "--work-dir")
    assert (folder / "settings.json").read_bytes() == before


def test_asked_to_resume_it_goes_on_under_other_settings_and_says_which(folder):
    resume, (said,) = open_folder(folder, SETTINGS | {"steps": (5,)}, True, "OUTPUT_DIR")
    assert resume
    assert said.endswith("different from before: steps")


def test_a_run_that_left_no_checkpoint_is_begun_again_under_the_new_settings(tmp_path):
    open_folder(tmp_path, SETTINGS, False, "--work-dir")
    assert open_folder(tmp_path, SETTINGS | {"lr": 9}, True, "--work-dir") == (False, [])
    assert json.loads((tmp_path / "settings.json").read_text())["lr"] == "9"


@pytest.mark.parametrize("kept", [None, "", "[1]", "{"])
def test_checkpoints_of_unknown_settings_are_not_overwritten(tmp_path, kept):
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    if kept is not None:
        (tmp_path / "settings.json").write_text(kept)
    with pytest.raises(InputError, match=r"different: no settings\.json tells them"):
        open_folder(tmp_path, SETTINGS, False, "OUTPUT_DIR")


def test_many_differences_are_counted_and_weights_are_told_apart_by_content(tmp_path):
    assert work_folder.differences({}, dict.fromkeys("abcde", "1")) == "a, b, c and 2 more"
    for name, text in (("one", "x"), ("two", "x"), ("three", "y")):
        (tmp_path / name).write_text(text)
    one, two, three = (work_folder.content(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two != three
    assert (work_folder.content(None), work_folder.content(tmp_path / "none")) == ("", str(tmp_path / "none"))


def evaluation(score: float | None, factor: float) -> dict[str, Any]:
    effective = {"effective": {"lr": 0.02 * factor}}
    return {"metrics": {"bbox/AP": score, "bbox/AP-cat": 1.0}, "recipe": effective, "seconds": 5.0}


def test_the_best_rate_is_chosen_and_all_are_reported() -> None:
    scores = {0.3: 10.0, 1.0: 12.0, 3.0: 11.0}
    found = lr_sweep.sweep(tuple(scores), lambda f: evaluation(scores[f], f), "bbox/AP", 0.1)
    assert (found["chosen"], found["metric"], found["hold_out"]) == (1.0, "bbox/AP", 0.1)
    assert [(run["factor"], run["score"], run["seconds"]) for run in found["runs"]] == [
        (0.3, 10.0, 5.0),
        (1.0, 12.0, 5.0),
        (3.0, 11.0, 5.0),
    ]
    assert found["runs"][2]["lr"] == pytest.approx(0.06)
    assert found["runs"][0]["metrics"] == {"bbox/AP": 10.0}


def test_of_equal_scores_the_rate_nearest_the_published_one_is_chosen() -> None:
    assert lr_sweep.sweep((0.1, 2.0, 3.0), lambda f: evaluation(7.0, f), "bbox/AP", 0.1)["chosen"] == 2.0
    assert lr_sweep.sweep((10.0, 0.5), lambda f: evaluation(None, f), "bbox/AP", 0.1)["chosen"] == 0.5


def test_a_rate_that_diverged_is_reported_and_never_chosen() -> None:
    def measure(factor: float) -> dict[str, Any]:
        if factor > 1:
            raise InputError("the loss is nan at step 7")
        return evaluation(None, factor)

    found = lr_sweep.sweep((3.0, 1.0), measure, "bbox/AP", 0.1)
    assert found["chosen"] == 1.0
    assert found["runs"][0] == {"factor": 3.0, "score": None, "error": "the loss is nan at step 7"}
    with pytest.raises(InputError, match="every learning rate of the sweep failed; at the first: the loss is nan"):
        lr_sweep.sweep((3.0, 9.0), measure, "bbox/AP", 0.1)


def test_several_held_out_sets_count_alike() -> None:
    metrics = {"a+held0.1/bbox/AP": 10.0, "b+held0.1/bbox/AP": 30.0, "a+held0.1/bbox/AP50": 90.0}
    assert lr_sweep.mean_of(metrics, "bbox/AP") == 20.0
    assert lr_sweep.mean_of({"a/bbox/AP": None, "b/bbox/AP": 4.0}, "bbox/AP") == 4.0
    assert lr_sweep.mean_of({}, "bbox/AP") is None


@pytest.mark.parametrize("text", ["", "1", "1,1", "0,1", "-1,1", "a,b", "nan,1", "inf,1"])
def test_what_is_no_list_of_factors_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="give two or more different factors"):
        lr_sweep.parse(text)
    assert lr_sweep.parse("0.3,1,3") == (0.3, 1.0, 3.0)
