"""Images inside uncompressed local tar files, read in place: one index pass at the start, then one ``pread`` an image."""

import os
from pathlib import Path
from typing import Literal

from torch import Tensor

from core.config import PluginSettings
from core.data import Images, _tar_index
from core.decoding import Encoded, decode
from core.errors import InputError


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
        self.members: list[_tar_index.Member] = []
        for number, shard in enumerate(self.shards):
            with open(shard, "rb") as file:
                self.members += _tar_index.find(file, str(shard), number, config.under)
        if not self.members:
            raise InputError(f"{config.root} holds no images below {config.under!r}; set data.root and data.under")
        self.labels = _tar_index.labels(self.members)
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
