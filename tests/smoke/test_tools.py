"""Small tools, run as a user runs them."""

from pathlib import Path

from PIL import Image

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
