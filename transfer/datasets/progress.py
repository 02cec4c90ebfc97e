"""Show how far a loop is: a bar on a terminal, a plain line every few seconds in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as bar

PLAIN_EVERY = 5.0  # seconds between plain lines

T = TypeVar("T")


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Pass items through and show on stderr how many of ``total`` are done."""
    if sys.stderr.isatty():
        yield from bar(items, description=label, total=total, console=Console(stderr=True))
        return
    began = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - said >= PLAIN_EVERY:
            said = now
            left = (now - began) / done * (total - done)
            print(f"{label}: {done}/{total}  {left:.0f} s left", file=sys.stderr, flush=True)
        yield item
    if time.monotonic() - began >= 1:
        print(f"{label}: {total}/{total} in {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
