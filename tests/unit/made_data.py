"""Small images, archives and sources for the tests of data."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from core.config import parse
from core.plugins import build, find
from transfer.datasets import published
from transfer.datasets.download import Archive


def make(**values: object):
    """Build a data source as a config does."""
    return build("core.data", parse(find("core.data", str(values["name"])).Config, values))


def picture(seed: int, side: int = 6) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def pixels(data: bytes) -> torch.Tensor:
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def encode(values: np.ndarray, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, form)
    return file.getvalue()


PHOTO = encode(np.zeros((6, 8, 3)), "JPEG")


def pack(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name, data in members.items():
                file.writestr(name, data)
        return path
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def by_hand(monkeypatch, one: published.Published, **changes: object) -> None:
    """Let the archives be any, as they are put into ROOT/downloads by hand, and publish fewer images."""
    archives = [Archive(archive.name, None) for archive in one.archives]
    small = one._replace(archives=archives, **changes)
    for name, sets in published.SETS.items():
        if one in sets:
            monkeypatch.setitem(published.SETS, name, tuple(small if other is one else other for other in sets))


def below(prefix: str, members: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{prefix}{name}": data for name, data in members.items()}
