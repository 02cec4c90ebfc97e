"""Images inside uncompressed tar files anywhere fsspec reads: ``https://``, ``s3://``, ``gs://``, ``file://``, ``memory://`` ...

An index of each shard is made once, by reading the shard from end to end, and kept on disk. From then on an image is one
request for its bytes; so any order of reading costs the same, and an image stays a function of its number.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, cast

import fsspec
from pydantic import Field
from torch import Tensor

from core.config import PluginSettings
from core.data import Images, tar_shards
from core.data.tar_shards import Member
from core.decoding import Encoded, decode
from core.errors import InputError
from core.files import replacing, write_json

VERSION = 1  # of the kept index; raise it when what is indexed changes
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
# What tells a changed shard, as the file systems name it
STAMPS = ("ETag", "etag", "LastModified", "updated", "mtime", "created")
BLOCK = 4 * 2**20  # bytes read at once while indexing or copying
PAUSES = (1.0, 4.0, 16.0)  # seconds before each new attempt

T = TypeVar("T")


class TarUrls(Images):
    """All images of the shards in the order they are stored; labels are ``.cls`` members, or else the folders."""

    class Config(PluginSettings):
        """``urls`` may hold number ranges, as in ``s3://set/train-{000..146}.tar``; ``under`` keeps one folder's members.

        ``index`` is the folder of the indexes. With ``keep``, whole shards are copied to that folder while they are indexed,
        and images are read there.
        """

        name: Literal["tar_urls"] = "tar_urls"
        urls: str | tuple[str, ...] = Field(min_length=1)
        under: str = ""
        index: Path = Path("datasets/tar_index")
        keep: Path | None = None
        damaged: Literal["skip", "refuse"] = "skip"

    def __init__(self, config: "TarUrls.Config") -> None:
        given = (config.urls,) if isinstance(config.urls, str) else config.urls
        self.config, self.urls = config, [url for text in given for url in expand(text)]
        self._systems: dict[tuple[int, int], tuple[Any, str]] = {}
        self.members = [member for number in range(len(self.urls)) for member in self._indexed(number)]
        if not self.members:
            raise InputError(f"{', '.join(given)} hold no images below {config.under!r}; set data.urls and data.under")
        self.labels = tar_shards.labels(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def image(self, index: int) -> Tensor:
        """Fetch and decode one member."""
        return decode(*self.encoded(index))

    def encoded(self, index: int) -> Encoded:
        """Fetch one member; raise InputError when the shard cannot be reached, as no other image could be either."""
        member = self.members[index]
        url, stop = self.urls[member.shard], member.offset + member.size
        data = _retry(url, lambda: self._fetch(member.shard, member.offset, stop))
        if len(data) != member.size:
            raise InputError(f"{url} is shorter than its index says; remove the folder {self.config.index}")
        return Encoded(data, f"{url}:{member.name}")

    def label(self, index: int) -> int:
        """Return the number of the image's class."""
        return self.labels[index]

    def _fetch(self, shard: int, start: int, stop: int) -> bytes:
        system, path = self._system(shard)
        return cast(bytes, system.cat_file(path, start=start, end=stop))

    def _system(self, shard: int) -> tuple[Any, str]:
        """Return the file system and path of a shard; each process makes its own, as connections do not survive a fork."""
        key = (os.getpid(), shard)
        if key not in self._systems:
            try:
                self._systems[key] = fsspec.core.url_to_fs(self.urls[shard])
            except (ImportError, ValueError) as error:
                raise InputError(f"data.urls: {self.urls[shard]} cannot be read ({error})") from error
        return self._systems[key]

    def _indexed(self, number: int) -> list[Member]:
        """Read a shard's index from disk, or make it; where shards are kept, the copy takes the place of the URL."""
        url = self.urls[number]
        system, path = self._system(number)
        facts = _retry(url, lambda: system.info(path))
        stamp = [VERSION, url, facts["size"], *(str(facts.get(key)) for key in STAMPS)]
        digest = hashlib.sha256(json.dumps(stamp).encode()).hexdigest()[:32]
        if self.config.keep is not None:
            copy = self.config.keep / f"{digest[:8]}-{Path(path).name}"
            if not copy.is_file():
                _retry(url, lambda: _copy(system, path, copy, facts["size"]))
            self.urls[number] = str(copy.resolve())
            self._systems.clear()
            system, path = self._system(number)
        under = hashlib.sha256(self.config.under.encode()).hexdigest()[:8]
        kept = self.config.index / f"{digest}-{under}.json"
        try:
            return [Member(number, *row) for row in json.loads(kept.read_text())["members"]]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not made yet, or damaged: it is made again
        members = _retry(url, lambda: self._index(system, path, number))
        write_json(kept, {"url": url, "members": [member[1:] for member in members]})
        return members

    def _index(self, system: Any, path: str, number: int) -> list[Member]:
        with system.open(path, "rb", block_size=BLOCK) as file:
            return tar_shards.find(cast(BinaryIO, file), self.urls[number], number, self.config.under)


def expand(url: str) -> list[str]:
    """Write out the ranges of a URL: ``a-{08..10}.tar`` is a-08.tar, a-09.tar, a-10.tar."""
    found = RANGE.search(url)
    if found is None:
        return [url]
    first, last = found.groups()
    if int(last) < int(first):
        raise InputError(f"data.urls: the range {found[0]} of {url} is empty; write the smaller number first")
    texts = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return [whole for text in texts for whole in expand(url[: found.start()] + text + url[found.end() :])]


def _copy(system: Any, path: str, target: Path, size: int) -> None:
    with system.open(path, "rb", block_size=BLOCK) as source, replacing(target) as file:
        while block := source.read(BLOCK):
            file.write(block)
        if file.tell() != size:
            raise ConnectionError(f"{file.tell()} of {size} bytes came")


def _retry(url: str, act: Callable[[], T]) -> T:
    """Run ``act``, again after a pause when the connection fails; a missing shard is an error at once."""
    for pause in (*PAUSES, None):
        try:
            return act()
        except InputError:
            raise
        except FileNotFoundError as error:
            raise InputError(f"no tar shard at {url}; set data.urls") from error
        except Exception as error:  # each file system has its own kinds
            if pause is None:
                reason = str(error) or type(error).__name__
                raise InputError(f"cannot read {url} ({reason}); check the network and the URL, then go on") from error
        time.sleep(pause)
    raise AssertionError
