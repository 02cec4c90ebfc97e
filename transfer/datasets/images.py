"""Find damaged image files quickly."""

import os
from pathlib import Path

from PIL import Image

from core.errors import InputError

TAIL = 64  # bytes; some writers pad a JPEG behind its end mark


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
