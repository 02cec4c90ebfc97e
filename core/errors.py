"""One way for every tool to end: bad input is one line and exit code 2, a fault of ours shows its traceback and exits with 1."""

import difflib
import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import NoReturn

MACHINE = {
    errno.ENOSPC: "free some space, then start the same command again",
    errno.EDQUOT: "free some of your quota, then start the same command again",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), then start the same command again",
    errno.EROFS: "choose a folder that can be written",
    errno.EIO: "check the disk, then start the same command again",
}


FEW = 12  # names that a message can hold


class InputError(ValueError):
    """Something the user wrote or passed is wrong; the message names it and the next step.

    ``code`` is the exit code: 2, or 1 where the machine lacks something and the same command goes on later.
    """

    code = 2


def nearest(name: str, known: Iterable[str], sort: str = "") -> str:
    """Say which of the known names a misspelt one may mean; name all where they are few, else how ``sort`` is listed."""
    there = sorted(known)
    if close := difflib.get_close_matches(name, there, n=3, cutoff=0.5):
        return f"did you mean {' or '.join(close)}?"
    if len(there) <= FEW or not sort:
        return f"there are: {', '.join(there)}"
    return f"`python tools/list.py {sort}` names what there is"


def cli(main: Callable[[], int | None]) -> NoReturn:
    """Run a tool's ``main`` and exit with its code.

    What the user can mend is one line and exit code 2, what the machine lacks (disk space) one line and 1; anything else is
    a fault of ours, which shows its traceback under one line that says so, and exits with 1.
    """
    logging.raiseExceptions = False  # a log that the disk has no room for is not worth a traceback a line
    if root := os.environ.get("DETECTRON2_DATASETS"):  # the configs put it before a path as it is
        os.environ["DETECTRON2_DATASETS"] = os.path.expanduser(root).rstrip("/") or "/"
    try:
        sys.exit(main() or 0)
    except (InputError, FileNotFoundError, PermissionError) as error:
        print(f"error: {_told(error)}", file=sys.stderr)
        sys.exit(getattr(error, "code", 2))
    except BrokenPipeError:  # the reader of our output is gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; start the same command again to go on", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINE:
            place = error.filename or "the file being written"
            print(f"error: {place}: {os.strerror(error.errno).lower()}; {MACHINE[error.errno]}", file=sys.stderr)
        else:
            print(
                "fault: this is a mistake of ours, not of your input; please report what stands below", file=sys.stderr
            )
            traceback.print_exc()
        sys.exit(1)


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror.lower()}; check the path, or choose another one"
    return str(error)
