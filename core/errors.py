"""One way for every tool to end: bad input is one line on stderr and exit code 2."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn


class InputError(ValueError):
    """Something the user wrote or passed is wrong; the message names it and the next step."""


def cli(main: Callable[[], int | None]) -> NoReturn:
    """Run a tool's ``main`` and exit with its code; print what the user got wrong as one line and exit with 2."""
    try:
        sys.exit(main() or 0)
    except (ValueError, FileNotFoundError, PermissionError) as error:
        if not isinstance(error, InputError | OSError) and _is_ours(error):
            raise  # a ValueError from a library deep inside is our fault: show where it came from
        print(f"error: {_told(error)}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output is gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; start the same command again to go on", file=sys.stderr)
        sys.exit(130)


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror.lower()}; check the path, or choose another one"
    return str(error)


def _is_ours(error: BaseException) -> bool:
    """Tell whether the error was raised outside the project, that is in a library we called wrongly."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and "site-packages" in trace.tb_frame.f_code.co_filename
