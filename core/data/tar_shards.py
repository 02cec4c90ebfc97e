"""Images inside uncompressed local tar files, read in place: one index pass at the start, then one ``pread`` an image.

The label of an image is what its ``.cls`` neighbour says (``0001.jpg``, ``0001.cls``: the form webdataset writes), or else the
folder it stands in.
"""

import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from torch import Tensor

from core.config import PluginSettings
from core.data import Images
from core.decoding import SUFFIXES, Encoded, decode
from core.errors import InputError

LONGEST_CLASS = 1000  # bytes of a .cls member


class Member(NamedTuple):
    """Where one image lies, and its class: the text of its ``.cls`` file, or None where there is none."""

    shard: int
    offset: int
    size: int
    name: str
    written_class: str | None = None


def find(file: BinaryIO, source: str, number: int, under: str = "") -> list[Member]:
    """List the images of an open tar in the order they are stored; ``under`` keeps those below one folder.

    Raises InputError for a truncated or compressed tar (naming ``source``) and for links.
    """
    images: list[tarfile.TarInfo] = []
    classes: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for item in members(tar):
                if _belongs(item.name, under):
                    images.append(item)
                elif item.name.endswith(".cls") and item.isreg() and item.size <= LONGEST_CLASS:
                    content = tar.extractfile(item)
                    assert content is not None
                    classes[_key(item.name)] = content.read().decode(errors="replace").strip()
            end = tar.offset  # of the first zero block, where a whole archive ends
        if links := [item.name for item in images if item.islnk() or item.issym()]:
            raise InputError(f"{source}: {links[0]} is a link; make the tar of files, with --dereference")
        file.seek(end)
        if not file.read(tarfile.BLOCKSIZE):
            raise InputError(f"{source} is truncated (it ends without the mark of the end); copy or make it again")
    except (tarfile.TarError, ValueError, OverflowError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{source} is truncated or not an uncompressed tar ({error}); make it again, without compression"
        ) from error
    kept = [item for item in images if item.isfile()]
    return [Member(number, item.offset_data, item.size, item.name, classes.get(_key(item.name))) for item in kept]


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield what a tar holds; raise TarError for a size below zero, after which tarfile would read the same place for ever."""
    for member in tar:
        if member.size < 0:
            raise tarfile.ReadError(f"{member.name} has a size below zero")
        yield member


def labels(members: Sequence[Member]) -> list[int]:
    """Number the classes of all members: written numbers as they are, written names and folders in sorted order."""
    written = {member.written_class for member in members} - {None}
    if written and all(str(name).isdecimal() for name in written):
        return [-1 if member.written_class is None else int(member.written_class) for member in members]
    if written:
        numbers = {name: number for number, name in enumerate(sorted(map(str, written)))}
        return [-1 if member.written_class is None else numbers[member.written_class] for member in members]
    groups = [member.name.rpartition("/")[0] for member in members]
    numbers = {group: number for number, group in enumerate(sorted(set(groups)))}
    return [numbers[group] for group in groups]


def _key(name: str) -> str:
    """Return a name without what follows the first dot of its file name, as webdataset groups files."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _belongs(name: str, under: str) -> bool:
    """Tell whether a member is an image below the folder ``under`` of the archive."""
    name, folder = name.removeprefix("./"), under.removeprefix("./").strip("/")
    inside = not folder or name.startswith(f"{folder}/")
    return inside and Path(name).suffix.lower() in SUFFIXES and not Path(name).name.startswith(".")


class TarShards(Images):
    """All images of the shards in the order they are stored; labels are ``.cls`` members, or else the folders."""

    class Config(PluginSettings):
        """``root`` is one ``.tar`` or a folder of them; ``under`` keeps the members below one folder of the archive."""

        name: Literal["tar_shards"] = "tar_shards"
        root: Path
        under: str = ""
        damaged: Literal["skip", "refuse"] = "skip"

    def __init__(self, config: "TarShards.Config") -> None:
        self.shards = sorted(config.root.glob("*.tar")) if config.root.is_dir() else [config.root]
        if not self.shards or not self.shards[0].is_file():
            raise InputError(f"no tar shard at {config.root}; set data.root to a .tar file or a folder of them")
        self.members: list[Member] = []
        for number, shard in enumerate(self.shards):
            with open(shard, "rb") as file:
                self.members += find(file, str(shard), number, config.under)
        if not self.members:
            raise InputError(f"{config.root} holds no images below {config.under!r}; set data.root and data.under")
        self.labels = labels(self.members)
        self._open: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.members)

    def image(self, index: int) -> Tensor:
        """Read and decode one member."""
        return decode(*self.encoded(index))

    def encoded(self, index: int) -> Encoded:
        """Read one member; every process opens each shard once."""
        member = self.members[index]
        key = (os.getpid(), member.shard)
        if key not in self._open:
            self._open[key] = os.open(self.shards[member.shard], os.O_RDONLY)
        data = os.pread(self._open[key], member.size, member.offset)
        return Encoded(data, f"{self.shards[member.shard]}:{member.name}")

    def label(self, index: int) -> int:
        """Return the number of the image's class."""
        return self.labels[index]
