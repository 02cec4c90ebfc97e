"""A work folder goes on with its own command and refuses another one before anything is overwritten."""

import json

import pytest

from core import run_folder as work_folder
from core.errors import InputError
from core.run_folder import open_folder

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
