"""Find missing and damaged image files quickly."""

import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from core.errors import InputError

TAIL = 64  # bytes; some writers pad a JPEG behind its end mark


def require_files(folder: Path, names: Iterable[str], belongs_to: str) -> None:
    """Raise InputError when files named by ``belongs_to`` are missing or empty in ``folder``; reads no file."""
    names = list(names)
    whole = {entry.name for entry in os.scandir(folder) if entry.is_file() and entry.stat().st_size}
    absent = [name for name in names if name not in whole and not _has_bytes(folder / name)]
    if absent:
        found = f"{folder / absent[0]} is {'empty' if (folder / absent[0]).is_file() else 'missing'}"
        raise InputError(
            f"{found} but {belongs_to} lists it ({len(absent)} of {len(names)} are not there); copy them or remove the records"
        )


def _has_bytes(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def require_image(path: Path, belongs_to: str) -> None:
    """Raise InputError when ``path`` is missing, empty or damaged; ``belongs_to`` says who asks for it.

    A JPEG that begins and ends as one is taken as whole; anything else is decoded.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing but {belongs_to} lists it; copy the image there or remove its records")
    with open(path, "rb") as file:
        head = file.read(3)
        file.seek(-min(TAIL, os.path.getsize(path)), os.SEEK_END)
        if head == b"\xff\xd8\xff" and b"\xff\xd9" in file.read():
            return
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} is truncated or not an image ({error}); copy or download it again") from error


def size(path: Path) -> tuple[int, int]:
    """Return (width, height) in pixels from an image's header."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} is truncated or not an image ({error}); copy or download it again") from error
