"""What a tool says in the end: one line, with the file and the next step."""

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
