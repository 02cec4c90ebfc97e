"""What departs from a published protocol is in the command, the hash, the title and the options; devices change none of these."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from core.errors import InputError
from transfer.benchmarks import Protocol
from transfer.convert import convert
from transfer.frameworks import Framework, Variation
from transfer.frameworks.detectron2 import Detectron2
from transfer.frameworks.mmseg import Mmseg
from transfer.suite import trial
from transfer.suite.trial import Departure, run_trial

EVERYTHING = Variation(devices=2, tiny="shapes", lr_factor=0.3, hold_out=0.1)
SAID = ["--tiny", "shapes", "--lr-factor", "0.3", "--hold-out", "0.1"]


def test_detectron2_gets_options_before_its_pairs_of_keys_and_values() -> None:
    command = ["python", "train_net.py", "--config-file", "a.yaml", "SEED", "1"]
    assert Detectron2().vary(command, Variation()) == command
    assert Detectron2().vary(command, EVERYTHING) == [
        *("python", "train_net.py", "--num-gpus", "2"), *SAID, "--config-file", "a.yaml", "SEED", "1"
    ]  # fmt: skip


def test_mmsegmentation_is_started_by_torchrun_on_several_devices() -> None:
    command = ["python", "train_seg.py", "a.py", "--cfg-options", "x=1"]
    assert Mmseg().vary(command, Variation()) == command
    assert Mmseg().vary(command, EVERYTHING) == [
        *("python", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train_seg.py"),
        *("--launcher", "pytorch"), *SAID, "a.py", "--cfg-options", "x=1"
    ]  # fmt: skip


class Pretend(Framework):
    """Writes a result at once; the score is best at a third of the rate."""

    target, suffix = "detectron2", ".pkl"
    SCRIPT = """
import json, pathlib, sys
folder, factor, held = pathlib.Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
(folder / "model_final.pth").write_bytes(b"large")
(folder / "last_checkpoint").write_text("model_final.pth")
score = 50 - 10 * abs(factor - 0.3)
recipe = {"effective": {"lr": 0.02 * factor}, "published": {"lr": 0.02}}
(folder / "evaluation.json").write_text(json.dumps({"metrics": {"bbox/AP": score, "held": float(held)}, "recipe": recipe}))
"""

    def command(
        self, protocol: Protocol, weights: Path, folder: Path, seed: int, options: Sequence[str] = ()
    ) -> list[str]:
        return [sys.executable, "-c", self.SCRIPT, str(folder)]

    def vary(self, command: list[str], variation: Variation) -> list[str]:
        return [*command, str(variation.lr_factor), str(variation.hold_out)]

    def bases(self, config: Path) -> list[Path]:
        return []


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    protocol, _ = trial.protocol_of("coco_c4")
    monkeypatch.setattr(trial, "protocol_of", lambda name: (protocol, Pretend()))
    proof = type("Proof", (), {"to_dict": lambda self: {}})()
    monkeypatch.setattr(convert, "convert", lambda _, output, **__: output.write_bytes(b"x") and proof)
    monkeypatch.setattr("transfer.convert.recipe.read", lambda path: None)
    file = tmp_path / "last.pth"
    file.write_bytes(b"weights")
    return file


def test_a_sweep_trains_each_rate_on_a_part_then_all_at_the_best_and_reports_every_one(
    checkpoint: Path, tmp_path: Path
) -> None:
    plain = run_trial(checkpoint, "coco_c4", 0, tmp_path / "plain")
    swept = run_trial(checkpoint, "coco_c4", 0, tmp_path / "swept", departure=Departure(lr_sweep=(0.1, 0.3, 1.0)))
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
    real = run_trial(checkpoint, "coco_c4", 0, tmp_path / "real")
    tiny = run_trial(checkpoint, "coco_c4", 0, tmp_path / "tiny", departure=Departure(tiny="shapes"))
    other = run_trial(checkpoint, "coco_c4", 0, tmp_path / "other", departure=Departure(tiny="elsewhere"))
    assert (tiny.protocol.title, tiny.protocol.train, tiny.protocol.test) == ("COCO C4 1x (tiny)", "shapes", "shapes")
    assert tiny.protocol.options == ("--tiny=shapes",)
    assert len({real.protocol.hash, tiny.protocol.hash, other.protocol.hash}) == 3
    assert (real.protocol.title, real.protocol.options) == ("COCO C4 1x", ())


def test_more_devices_are_the_same_protocol_but_not_the_same_run(checkpoint: Path, tmp_path: Path) -> None:
    one = run_trial(checkpoint, "coco_c4", 0, tmp_path / "one")
    eight = run_trial(checkpoint, "coco_c4", 0, tmp_path / "eight", departure=Departure(devices=8))
    assert one.protocol == eight.protocol
    with pytest.raises(InputError, match="holds a trial of another number of devices"):
        run_trial(checkpoint, "coco_c4", 0, tmp_path / "one", departure=Departure(devices=8))
    (tmp_path / "one" / "trial.json").write_text(
        json.dumps(
            {k: v for k, v in json.loads((tmp_path / "one" / "trial.json").read_text()).items() if "dev" not in k}
        )
    )
    assert run_trial(checkpoint, "coco_c4", 0, tmp_path / "one") == one  # folders of older versions go on


def test_a_framework_that_knows_no_departure_refuses_it_before_anything_is_written(tmp_path: Path) -> None:
    class Plain(Framework):
        target, suffix = "none", ".pth"

        def command(self, *_: object, **__: object) -> list[str]:
            return ["python", "tool"]

        def bases(self, config: Path) -> list[Path]:
            return []

    assert Plain().vary(["python"], Variation()) == ["python"]
    for departure in (Departure(devices=2), Departure(tiny="shapes"), Departure(lr_sweep=(1.0, 2.0))):
        with pytest.raises(InputError, match="Plain has no --num-gpus, --tiny and --lr-sweep"):
            trial._check_able(Plain(), departure)
