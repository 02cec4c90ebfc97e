"""Images inside uncompressed tar files, read in place: one index pass at the start, then one ``pread`` an image."""

import os
import tarfile
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor

from core.config import PluginSettings
from core.errors import InputError
from pretrain.data import SUFFIXES, Images, decode


class Member(NamedTuple):
    """Where one image lies."""

    shard: int
    offset: int
    size: int
    name: str


class TarShards(Images):
    """All images of the shards in the order they are stored; the folder an image stands in is its class."""

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
        self.members = [member for number in range(len(self.shards)) for member in self._index(number, config.under)]
        if not self.members:
            raise InputError(f"{config.root} holds no images below {config.under!r}; set data.root and data.under")
        groups = [member.name.rpartition("/")[0] for member in self.members]
        numbers = {group: number for number, group in enumerate(sorted(set(groups)))}
        self.labels = [numbers[group] for group in groups]
        self._open: dict[tuple[int, int], int] = {}

    def _index(self, number: int, under: str) -> list[Member]:
        try:
            with tarfile.open(self.shards[number], "r:") as shard:
                kept = [item for item in shard if _belongs(item.name, under)]
                if links := [item.name for item in kept if item.islnk() or item.issym()]:
                    raise InputError(
                        f"{self.shards[number]}: {links[0]} is a link; make the tar of files, with --dereference"
                    )
                return [Member(number, item.offset_data, item.size, item.name) for item in kept if item.isfile()]
        except tarfile.TarError as error:
            raise InputError(
                f"{self.shards[number]} is truncated or not an uncompressed tar ({error}); make it again, without compression"
            ) from error

    def __len__(self) -> int:
        return len(self.members)

    def image(self, index: int) -> Tensor:
        """Read and decode one member; every process opens each shard once."""
        shard, offset, size, name = self.members[index]
        key = (os.getpid(), shard)
        if key not in self._open:
            self._open[key] = os.open(self.shards[shard], os.O_RDONLY)
        return decode(os.pread(self._open[key], size, offset), f"{self.shards[shard]}:{name}")

    def label(self, index: int) -> int:
        """Return the number of the image's folder."""
        return self.labels[index]


def _belongs(name: str, under: str) -> bool:
    """Tell whether a member is an image below the folder ``under`` of the archive."""
    name, folder = name.removeprefix("./"), under.removeprefix("./").strip("/")
    inside = not folder or name.startswith(f"{folder}/")
    return inside and Path(name).suffix.lower() in SUFFIXES and not Path(name).name.startswith(".")
