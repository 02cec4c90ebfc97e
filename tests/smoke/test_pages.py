"""Pages of the documentation are executed; small tools run."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from running import completed

import masktransfer
from core import shapes
from core.weights_file import read_weights_file
from transfer import results
from transfer.convert.random_init import make
from transfer.datasets.shapes import Plan, ensure

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SHORT = {  # what a page says -> what is done here
    "benchmarks: [coco_fpn, voc12_segmentation]": "benchmarks: [shapes_segmentation]",
    "coco_fpn": "shapes_detection",
    "trials: 5": "trials: 1",
    "results/try": "results/paper",
    "run.folder=runs/striped": "run.folder=runs/striped train.epochs=1 train.workers=0 data.count=128",
    "run_suite.py paper.yaml": "run_suite.py paper.yaml tiny=shapes",
    "tiny=shapes tiny=shapes": "tiny=shapes",
    "--data parts --out": "--data parts --tiny --out",
}


def page(name: str) -> str:
    text = (DOCS / name).read_text()
    for said, done in SHORT.items():
        text = text.replace(said, done)
    return text


def carry_out(name: str, folder: Path, place: dict[str, str]) -> list[str]:
    """Write the files that a page shows, execute its commands in order as forks of a warm process, return what each printed."""
    text = page(name)
    for file, content in re.findall(r"```yaml\n# (\S+)\n(.*?)```", text, re.S):
        (folder / file).write_text(content)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    printed = []
    for command in "".join(re.findall(r"```bash\n(.*?)```", text, re.S)).splitlines():
        words = shlex.split(command, comments=True)
        plain = [sys.executable, *words[1:]] if words[0] == "python" else ["bash", "-c", command]
        done = completed(plain, folder, {"PATH": path, **place})
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    return printed


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory, warm_place: dict[str, str]) -> Path:
    """Carry out docs/your-checkpoint.md in a folder with two slim checkpoints, a few embedded images, and a photo."""
    folder = tmp_path_factory.mktemp("paper")
    for seed, name in enumerate(("mine", "mscn")):
        make(folder / f"{name}.pth", {"name": "resnet", "depth": 18, "width": 16, "stem": "imagenet"}, seed)
    ensure(folder / "datasets", Plan(unlabelled=0, train=40, val=8))
    Image.fromarray(shapes.render(5, 0, 128).image).save(folder / "photo.jpg")
    for part in ("tools", "pretrain", "configs"):
        (folder / part).symlink_to(ROOT / part)
    printed = carry_out("your-checkpoint.md", folder, warm_place)
    assert "100" in printed[0]  # tensors
    assert printed[2].split() == ["drawn/photo.png"]
    assert "2 items, 0 done" in printed[3]
    return folder


def test_the_checkpoint_page_ends_with_the_table_of_its_suite(paper: Path) -> None:
    table = (paper / "report" / "report.tex").read_text()
    assert "Ours" in table
    assert "MoCo v2 + MSCN" in table
    found = [results.read(file) for file in sorted((paper / "results" / "paper").rglob("result.json"))]
    assert [result.checkpoint.name for result in found] == ["Ours", "MoCo v2 + MSCN"]
    assert all(result.protocol.options == ("--tiny=shapes",) for result in found)
    assert all(result.tensors_checked == 100 for result in found)


def test_the_blocks_of_the_python_page_run_in_order(paper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(paper)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page("python.md"), re.S):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["proof"].tensors_mapped == 100
    backbone, images = names["backbone"], names["images"]
    again = masktransfer.load_backbone("mine.pkl")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    with torch.no_grad():
        expected = backbone.backbone.stages((images - mean) / std)
        assert all(map(torch.equal, names["stages"], expected))
        assert all(map(torch.equal, names["stages"], again(images)))
    assert [stage.shape[1] for stage in expected] == [16, 32, 64, 128]
    assert names["result"] == results.read(Path("results/one/result.json"))
    with Image.open(*names["drawn"]) as drawn:
        assert drawn.size == (256, 256)  # small images are drawn in twice their size
    assert [row.label for row in names["report"].rows] == ["Ours", "MoCo v2 + MSCN"]
    with pytest.raises(masktransfer.InputError, match="did you mean 'detectron2'"):
        masktransfer.convert("mine.pth", "x.pkl", target="detectron")


def test_the_mask_page_previews_trains_and_plans_with_a_mask_from_outside(paper: Path) -> None:
    (paper / "my_lab").mkdir()
    mask = re.search(r"```python\n# my_lab/masks.py\n(.*?)```", page("plugins.md"), re.S)
    (paper / "my_lab" / "masks.py").write_text(mask[1])
    _, _, planned = carry_out("your-mask.md", paper, {})
    with Image.open(paper / "striped.png") as preview:
        assert preview.width > 5 * 96
    assert json.loads((paper / "runs" / "striped" / "summary.json").read_text())["status"] == "finished"
    assert "lam/striped" in (paper / "runs" / "striped" / "journal.jsonl").read_text()
    assert "18 items, 0 done" in planned  # 2 × 3 pre-trainings, and 2 benchmarks of each


def test_a_backbone_takes_rgb_images_whatever_its_checkpoint_was_trained_on(paper: Path) -> None:
    backbone = masktransfer.load_backbone(paper / "mine.pth").backbone
    mean, std = (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)  # Caffe's, of the channels B, G and R
    recipe = {"depth": 18, "width": 16, "channel_order": "BGR", "mean": mean, "std": std}
    torch.save({"state_dict": backbone.state_dict(), "meta": {}, "recipe": recipe}, paper / "bgr.pth")
    loaded, images = masktransfer.load_backbone(paper / "bgr.pth"), 255 * torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = backbone.stages(images.flip(1) - torch.tensor(mean).view(3, 1, 1))
        found = loaded(images)
    assert (loaded.recipe.channel_order, loaded.recipe.mean) == ("RGB", mean[::-1])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_every_cell_of_the_notebook_runs(capsys: pytest.CaptureFixture) -> None:
    names: dict = {}
    for cell in json.loads((DOCS / "python.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec(compile("".join(cell["source"]), "docs/python.ipynb", "exec"), names)
    assert "100 of 100 tensors; equal features: [True, True, True, True]" in capsys.readouterr().out


def test_the_cluster_page_starts_its_suite_under_slurm(paper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (paper / "bin").mkdir()
    for program in ("sbatch", "squeue"):
        (paper / "bin" / program).write_text("#!/bin/sh\nexit 0\n")
        (paper / "bin" / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{paper / 'bin'}:{os.environ['PATH']}")
    started, reported = carry_out("your-cluster.md", paper, {})
    assert "2 items, 2 already done" in started
    assert "report.tex" in reported


def test_the_data_page_goes_from_an_export_to_a_report_of_two_backbones(
    paper: Path, warm_place: dict[str, str]
) -> None:
    source, export = paper / "datasets" / "shapes" / "coco", paper / "parts"
    content = json.loads((source / "annotations" / "instances_train.json").read_text())
    kept = {image["id"]: image for image in content["images"][:6]}
    content |= {
        "images": list(kept.values()),
        "annotations": [a for a in content["annotations"] if a["image_id"] in kept],
    }
    (export / "data").mkdir(parents=True)  # FiftyOne's layout
    (export / "labels.json").write_text(json.dumps(content))
    for image in kept.values():
        shutil.copy(source / "train" / image["file_name"], export / "data")
    for name, file in (("ours", "mine"), ("theirs", "mscn")):
        (paper / f"{name}.pth").symlink_to(paper / f"{file}.pth")
    *_, reported, checked, with_masks, skipped = carry_out("your-data.md", paper, warm_place)
    assert "report.html" in reported
    assert "not among the results" not in (paper / "results" / "parts" / "report" / "report.md").read_text()
    assert "note: no validation split: 1 of 6 images" in checked
    assert checked == with_masks == skipped
    found = [results.read(paper / "results" / "parts" / name / "result.json") for name in ("ours", "theirs")]
    assert [result.checkpoint.name for result in found] == ["ours", "theirs"]
    assert [result.protocol.train for result in found] == ["parts/train"] * 2
    assert found[0].protocol.options[0].startswith("--data=parts@")
    assert [result.tensors_checked for result in found] == [100, 100]


def trial(paper: Path) -> Path:
    """Return the folder of the page's segmentation trial."""
    return next((paper / "results" / "paper").glob("mine--*"))


def test_detections_on_an_image_are_those_that_the_trials_own_evaluation_found(
    paper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transfer.frameworks.detectron2 import trainer

    seen: list = []
    drawn = trainer.picture
    monkeypatch.setattr(trainer, "picture", lambda *given: seen.append(given) or drawn(*given))
    evaluated = json.loads(
        (paper / "results" / "one" / "run" / "inference" / "coco_instances_results.json").read_text()
    )
    number = evaluated[0]["image_id"]
    wanted = [found for found in evaluated if found["image_id"] == number]
    image = paper / "datasets" / "shapes" / "coco" / "val" / f"{number:06d}.jpg"
    (written,) = masktransfer.predict(paper / "results" / "one", [image], paper / "detected", score=0.0)
    ((_, found, classes),) = seen
    assert classes == list(shapes.CLASSES)
    assert found.scores.tolist() == pytest.approx([one["score"] for one in wanted], abs=1e-5)
    assert [index + 1 for index in found.pred_classes.tolist()] == [one["category_id"] for one in wanted]
    boxes = [(x, y, x + width, y + height) for x, y, width, height in (one["bbox"] for one in wanted)]
    assert found.pred_boxes.tensor.flatten().tolist() == pytest.approx([v for box in boxes for v in box], abs=1e-2)
    with Image.open(written) as picture, Image.open(image) as original:
        assert picture.convert("RGB").tobytes() != original.convert("RGB").resize(picture.size).tobytes()


def test_a_segmentation_of_an_image_is_the_one_that_the_trials_own_evaluation_drew(paper: Path) -> None:
    evaluated = next((trial(paper) / "run" / "predictions").glob("*.png"))
    image = paper / "datasets" / "shapes" / "VOC" / "JPEGImages" / f"{evaluated.stem}.jpg"
    (drawn,) = masktransfer.predict(trial(paper), [image], paper / "segmented")
    with Image.open(evaluated) as panels, Image.open(drawn) as picture, Image.open(image) as photo:
        colours = panels.crop((2 * 132, 0, 2 * 132 + 128, 128))
        expected = Image.blend(photo.convert("RGB"), colours, 0.6)
        assert picture.crop((132, 0, 260, 128)).tobytes() == expected.tobytes()
        assert picture.height > 128  # the legend


def altered(paper: Path, change: Callable[[dict], None]) -> Path:
    """Write the segmentation trial's checkpoint with something changed, and return the file."""
    content = read_weights_file(next((trial(paper) / "run").glob("iter_*.pth")))
    kept = {"meta": {key: content["meta"][key] for key in ("cfg", "dataset_meta")}, "state_dict": content["state_dict"]}
    change(kept)
    torch.save(kept, paper / "altered.pth")
    return paper / "altered.pth"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["meta"].update(cfg="import os"), "holds more than plain values"),
        (lambda c: c["meta"].update(cfg="model = __import__('os').getcwd()"), "holds more than plain values"),
        (lambda c: c["meta"].update(cfg="model = dict(type='os.mkdir', path='x')"), "holds more than plain values"),
        (lambda c: c["meta"].update(cfg="model = dict(type='EncoderDecoder')"), "does not fit the config in it"),
        (lambda c: c["meta"].update(dataset_meta=None), "does not fit the config in it"),
        (lambda c: c["state_dict"].popitem(), "does not fit the config in it"),
        (lambda c: c.pop("meta"), "holds no detector and no segmentation network"),
    ],
)
def test_a_checkpoint_with_code_or_without_its_network_draws_nothing(
    paper: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict], None], message: str
) -> None:
    monkeypatch.chdir(paper)
    with pytest.raises(masktransfer.InputError, match=message):
        masktransfer.predict(altered(paper, change), ["photo.jpg"], "nothing")
    assert not Path("nothing").exists()
    assert not Path("x").exists()


def test_what_cannot_be_drawn_is_said_before_anything_is(paper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(paper)
    model = Path("alone/model_final.pth")
    Path("alone").mkdir()
    Path("unfinished/run").mkdir(parents=True)
    model.write_bytes(Path("results/one/run/model_final.pth").read_bytes())
    Path("cut.jpg").write_bytes(Path("photo.jpg").read_bytes()[:500])
    Path("alone/photo.png").write_bytes(Path("photo.jpg").read_bytes())
    for run, images, message in (
        ("nowhere", ["photo.jpg"], "nothing at nowhere"),
        ("unfinished", ["photo.jpg"], "no finished trial .* start its command again"),
        (model, ["photo.jpg"], "no alone/config.yaml, the config that"),
        ("mine.pth", ["photo.jpg"], "holds no detector and no segmentation network"),
        ("results/one", ["photo.jpg", "gone.jpg"], "no image at gone.jpg"),
        ("results/one", ["alone"], r"alone is a folder; give its images, as in alone/\*.jpg"),
        ("results/one", ["photo.jpg", "alone/photo.png"], "would both be drawn as nothing/photo.png"),
        ("results/one", ["cut.jpg"], "cut.jpg cannot be decoded"),
    ):
        with pytest.raises(masktransfer.InputError, match=message):
            masktransfer.predict(run, images, "nothing")
        assert not Path("nothing").exists()
    with pytest.raises(masktransfer.InputError, match="is one of the images; choose another --out"):
        masktransfer.predict("results/one", ["alone/photo.png"], "alone")
    for text in ("_BASE_: x.yaml\n", "!!python/object/apply:os.mkdir [x]\n", "MODEL: [\n"):
        Path("alone/config.yaml").write_text(text)
        with pytest.raises(masktransfer.InputError, match=r"alone/config.yaml is not .*; give the run folder"):
            masktransfer.predict(model, ["photo.jpg"], "nothing")
    assert not Path("x").exists()


ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/pretrain/shapes/mocov2-mixmask_r18w16_1xb64-12ep_shapes.yaml"


def test_the_doctor_finds_everything_and_names_what_is_absent(tmp_path, run_tool):
    done = run_tool("tools/doctor.py", DETECTRON2_DATASETS=str(tmp_path / "none"), COLUMNS="200")
    lines = [line for line in done.stdout.splitlines() if " │ " in line]
    rows = {line.split("│")[2].strip(): line.split("│")[1].strip() for line in lines}
    assert rows["torch"] == rows["detectron2"] == rows["onedl-mmsegmentation"] == "ok"
    assert rows["dataset coco"] == "absent"


def test_a_preview_shows_every_view_of_every_branch(tmp_path, run_tool):
    branches = ["branches.masked.name=mscn", "branches.masked.cell=16"]
    run_tool("tools/preview_views.py", CONFIG, *branches, "--out", "sheet.png", "--images", 3, "--side", 50)
    with Image.open(tmp_path / "sheet.png") as sheet:
        # 3 images, each with view, mask, partner, mixture and key; lines: clean views, MixMask, MSCN
        assert sheet.size == (84 + 3 * (5 * (50 + 4) + 12), 18 + 3 * (50 + 4) + 4)
        assert len(sheet.getcolors(10**6)) > 500
