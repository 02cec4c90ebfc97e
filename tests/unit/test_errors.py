"""What a tool says in the end: one line, with the file and the next step."""

import errno
import os

import pytest

from core.errors import InputError, cli


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("set data.root"), "error: set data.root\n"),
        (
            PermissionError(13, "Permission denied", "runs/ro"),
            "error: runs/ro: permission denied; check the path, or choose another one\n",
        ),
        (FileNotFoundError("no checkpoint at x.pth"), "error: no checkpoint at x.pth\n"),
    ],
)
def test_what_the_user_got_wrong_is_one_line_and_exit_code_two(error, said, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        cli(main)
    assert (ended.value.code, capsys.readouterr().err) == (2, said)


def ended(error, capsys):
    """Return the exit code of a tool that raises ``error``, and the lines that it prints."""

    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        cli(main)
    return caught.value.code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    "error", [ValueError("not enough values to unpack"), KeyError("x"), AssertionError(), OSError("odd")]
)
def test_a_fault_of_ours_is_said_to_be_one_and_shows_its_traceback(error, capsys):
    code, lines = ended(error, capsys)
    assert code == 1
    assert lines[0].startswith("fault: this is a mistake of ours, not of your input; please report what stands below")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1].startswith(type(error).__name__)


def test_a_full_disk_is_one_line_and_exit_code_one(capsys):
    error = OSError(errno.ENOSPC, "No space left on device", "runs/a.pth")
    line = "error: runs/a.pth: no space left on device; free some space, then start the same command again"
    assert ended(error, capsys) == (1, [line])


@pytest.mark.parametrize(("given", "seen"), [("~/sets/", "/home/me/sets"), ("/data", "/data"), ("/", "/"), ("", "")])
def test_the_root_of_the_data_sets_may_begin_at_home_and_end_with_a_slash(monkeypatch, given, seen):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DETECTRON2_DATASETS", given)
    with pytest.raises(SystemExit):
        cli(lambda: None)
    assert os.environ["DETECTRON2_DATASETS"] == seen
