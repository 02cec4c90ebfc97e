"""The pages for users are carried out as they stand: on slim networks, a few iterations, and the embedded images."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from core import shapes
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
    "run_suite.py paper.yaml": "run_suite.py paper.yaml tiny=shapes",
    "tiny=shapes tiny=shapes": "tiny=shapes",
}


def page(name: str) -> str:
    text = (DOCS / name).read_text()
    for said, done in SHORT.items():
        text = text.replace(said, done)
    return text


def carry_out(name: str, folder: Path) -> list[str]:
    """Write the files that a page shows, execute its commands in order, and return what each printed."""
    text = page(name)
    for file, content in re.findall(r"```yaml\n# (\S+)\n(.*?)```", text, re.S):
        (folder / file).write_text(content)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    printed = []
    for command in "".join(re.findall(r"```bash\n(.*?)```", text, re.S)).splitlines():
        done = subprocess.run(
            command, shell=True, cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": path}
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    return printed


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Carry out docs/your-checkpoint.md in a folder with two slim checkpoints, a few embedded images, and a photo."""
    folder = tmp_path_factory.mktemp("paper")
    for seed, name in enumerate(("mine", "mscn")):
        make(folder / f"{name}.pth", {"name": "resnet", "depth": 18, "width": 16, "stem": "imagenet"}, seed)
    ensure(folder / "datasets", Plan(unlabelled=0, train=40, val=8))
    Image.fromarray(shapes.render(5, 0, 128).image).save(folder / "photo.jpg")
    (folder / "tools").symlink_to(ROOT / "tools")
    printed = carry_out("your-checkpoint.md", folder)
    assert "100" in printed[0]  # tensors
    assert "2 items, 0 done" in printed[2]
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
    again = names["masktransfer"].load_backbone("mine.pkl")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    with torch.no_grad():
        expected = backbone.backbone.stages((images - mean) / std)
        assert all(map(torch.equal, names["stages"], expected))
        assert all(map(torch.equal, names["stages"], again(images)))
    assert [stage.shape[1] for stage in expected] == [16, 32, 64, 128]
    assert names["result"] == results.read(Path("results/one/result.json"))
    assert [row.label for row in names["report"].rows] == ["Ours", "MoCo v2 + MSCN"]
    with pytest.raises(names["masktransfer"].InputError, match="did you mean 'detectron2'"):
        names["masktransfer"].convert("mine.pth", "x.pkl", target="detectron")


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
    started, reported = carry_out("your-cluster.md", paper)
    assert "2 items, 2 already done" in started
    assert "report.tex" in reported
