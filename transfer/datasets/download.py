"""Fetch the archives a dataset is made of: resumed, checked, and with one message where there is no network.

Archives lie in ``ROOT/downloads``. One put there by hand is taken as well, so a machine without a network needs no other way.
"""

import bz2
import contextlib
import fcntl
import gzip
import hashlib
import http.client
import io
import json
import lzma
import os
import shutil
import ssl
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit

from core.errors import InputError
from core.files import require_room
from core.meter import Meter

BLOCK = 2**20
TIMEOUT = 30.0  # seconds without a byte
PAUSES = (1.0, 4.0, 16.0)  # seconds before each new attempt that follows one without progress
RATIO, SMALL, MEMBERS = 20, 2**24, 5_000_000  # of an archive: bytes unpacked to bytes, and what any may have; files
ROOM = 2.2  # times the archives' bytes: themselves and what they unpack to


class Archive(NamedTuple):
    """A published file: its name, where it is (None: behind a login), its bytes, and its sha256 or, where none is known, its md5.

    A file behind a login has none of these.
    """

    name: str
    url: str | None
    size: int | None = None
    sha256: str = ""
    md5: str = ""


class Interrupted(Exception):
    """The connection ended before the file did."""


NETWORK = (urllib.error.URLError, Interrupted, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError)


def obtain(archives: Sequence[Archive], folder: Path, login: str = "") -> list[Path]:
    """Return the paths of all archives in ``folder``, fetching those that are not there.

    ``login`` says how to get the ones without a URL. Raises InputError naming all files to put there, and for a wrong checksum.
    """
    missing = [archive for archive in archives if not (folder / archive.name).is_file()]
    if any(archive.url is None for archive in missing):
        names = ", ".join(archive.name for archive in missing)
        raise InputError(f"{login}; put {names} into {folder} and start the same command again")
    require_room(folder, ROOM * sum(archive.size or 0 for archive in missing), "archives and what they hold")
    for number, archive in enumerate(missing):
        try:
            fetch(archive, folder / archive.name)
        except Unreachable as error:
            left = ", ".join(f"{other.name} ({other.url})" for other in missing[number:])
            raise InputError(
                f"{error}; download on another machine: {left}; put into {folder} and start the same command again"
            ) from error
    for archive in archives:
        if archive not in missing:
            verify(archive, folder / archive.name)
    return [folder / archive.name for archive in archives]


def verify(archive: Archive, path: Path) -> None:
    """Compare a file with the published size and checksum; one that differs is set aside, with an InputError."""
    size = path.stat().st_size
    wrong = ""
    if archive.size is not None and size != archive.size:
        wrong = f"has {size} bytes, not {archive.size}"
    else:
        kind, wanted = ("sha256", archive.sha256) if archive.sha256 else ("md5", archive.md5)
        if wanted and (found := _digest(path, kind)) != wanted:
            wrong = f"has the {kind} {found}, not {wanted}"
        elif archive.md5 and not archive.sha256:
            print(f"{archive.name}: only its MD5 is published, which tells damage and no forger", file=sys.stderr)
    if wrong:
        aside = path.with_name(f"{archive.name}.refused")
        path.replace(aside)
        raise InputError(
            f"{path.with_name(archive.name)} {wrong}; it was set aside as {aside.name}, "
            "start the same command again to fetch it anew"
        )


class Unreachable(InputError):
    """The server cannot be reached, or does not have the file."""


def fetch(archive: Archive, path: Path) -> None:
    """Download to ``path``, going on with a part that an earlier run left, and verify it before it gets its name.

    Raises Unreachable when the server cannot be reached, InputError for a wrong checksum or a folder that cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"another process is downloading {part}; wait for it, or end it") from error
            try:
                _attempts(archive, file)
            except Unreachable:
                if not file.tell():
                    part.unlink()
                raise
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"cannot write {part} ({error.strerror}); free some space or choose another folder") from error
    try:
        verify(archive, part)
    finally:
        _stamp(part).unlink(missing_ok=True)
    os.replace(part, path)


def _attempts(archive: Archive, file: BinaryIO) -> None:
    """Go on until the whole file is there; give up after a few attempts in a row that brought nothing."""
    failures = 0
    while True:
        before = file.tell()
        try:
            _request(archive, file)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416 and _ends_at(error, file.tell()):
                return  # the part was whole already
            if error.code == 416:
                file.truncate(0)
                continue
            if error.code < 500:
                raise Unreachable(f"{archive.url} answers {error.code} {error.reason}") from error
            reason: object = f"{error.code} {error.reason}"
        except NETWORK as error:
            reason = getattr(error, "reason", error)
        failures = 0 if file.tell() > before else failures + 1
        if failures > len(PAUSES):
            host = urlsplit(archive.url or "").netloc
            kept = f", {file.tell()} bytes of {archive.name} are kept" if file.tell() else ""
            raise Unreachable(f"cannot reach {host} ({reason}){kept}")
        time.sleep(PAUSES[failures - 1] if failures else 0)


def _request(archive: Archive, file: BinaryIO) -> None:
    """Ask for what is missing; begin anew when the server's file is another one than that of the part."""
    assert archive.url is not None
    have, stamp = file.seek(0, os.SEEK_END), _stamp(Path(file.name))
    request = urllib.request.Request(archive.url, headers={"User-Agent": "masktransfer"})  # noqa: S310 - the same
    if have and (validator := _read_stamp(stamp)):
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 - the catalogue has https alone
        if archive.url.startswith("https:") and not answer.url.startswith("https:"):
            raise InputError(f"{archive.url} sends on to {answer.url}, which is not encrypted; fetch the file by hand")
        going_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if not going_on:
            if answer.status != 200:
                raise Interrupted(f"the server answers {answer.status} to a request for the rest")
            have = 0
            file.truncate(0)
            file.seek(0)
        validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        if validator.startswith("W/"):
            validator = ""  # weak: says nothing about bytes
        stamp.write_text(json.dumps({"validator": validator}))
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and length.isdecimal() else 0
        with Meter(f"downloading {archive.name}", total, of_bytes=True, first=have) as meter:
            while block := answer.read(BLOCK if archive.size is None else min(BLOCK, archive.size + 1 - file.tell())):
                if archive.size is not None and file.tell() + len(block) > archive.size:
                    file.truncate(0)
                    raise InputError(
                        f"{archive.url} sends more than the {archive.size:,} bytes that were published; it is another file"
                    )
                file.write(block)
                meter.reach(file.tell())
            file.flush()
            if total and file.tell() < total:
                raise Interrupted(f"the connection ended after {file.tell()} of {total} bytes")


def _ends_at(error: urllib.error.HTTPError, have: int) -> bool:
    """Tell whether a refused range says that the file has ``have`` bytes."""
    return (error.headers.get("Content-Range") or "").endswith(f"*/{have}")


def _stamp(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_stamp(path: Path) -> str:
    """Return what tells the server's file from a newer one; nothing where the server gave nothing, so it begins anew."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(path.read_bytes()[:BLOCK])["validator"])
    return ""


def _digest(path: Path, kind: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=kind != "md5")
    with open(path, "rb") as file, Meter(f"checking {path.name}", path.stat().st_size, of_bytes=True) as meter:
        while block := file.read(BLOCK):
            digest.update(block)
            meter.reach(file.tell())
    return digest.hexdigest()


DAMAGE: tuple[type[Exception], ...] = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
)
DAMAGE += (EOFError, RuntimeError, NotImplementedError, OverflowError, ValueError)

# --- unpacking: nothing leaves the folder; links and devices, which tarfile's own filter would let through, are refused

Select = Callable[[str], str | None]  # a member's name -> its path below the folder, or None to leave it out


def everything(name: str) -> str:
    """Select every member under its own name."""
    return name


def below(prefix: str, into: str = "") -> Select:
    """Select the members below a folder of the archive, and put them below ``into``."""

    def select(name: str) -> str | None:
        return f"{into}{name.removeprefix(prefix)}" if name.startswith(prefix) else None

    return select


def unpack(archive: Path, folder: Path, select: Select = everything) -> int:
    """Unpack the selected files of a tar (also compressed) or zip into ``folder``; return how many.

    Raises InputError naming the archive, and the member where one is a link, a device or would leave the folder.
    """
    count = 0
    most = RATIO * archive.stat().st_size + SMALL
    try:
        with Meter(f"unpacking {archive.name}", archive.stat().st_size, of_bytes=True) as meter:
            members = _zip(archive, most, meter) if archive.suffix == ".zip" else tar_members(archive, most, meter)
            for number, (name, content) in enumerate(members):
                if number >= MEMBERS:
                    raise InputError(f"{archive} holds more than {MEMBERS:,} files; use the published archive")
                target = select(name.removeprefix("./"))
                if target is None:
                    continue
                path = folder / _inside(target, name, archive)
                path.parent.mkdir(parents=True, exist_ok=True)
                with content() as source, open(path, "wb") as file:
                    shutil.copyfileobj(source, file, 2**20)
                count += 1
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{archive} is truncated or damaged ({error}); copy or download it again") from error
    if not count:
        raise InputError(f"{archive} holds none of the files expected in it; use the published archive of that name")
    return count


def _inside(target: str, name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(target)
    if path.is_absolute() or ".." in path.parts or "\\" in target or not path.parts:
        raise InputError(
            f"{archive} holds '{name}', which would leave the folder; nothing was unpacked, use another archive"
        )
    return path


class _Limited(io.RawIOBase):
    """The bytes of an archive, unpacked, up to a limit: a few bytes can stand for any number."""

    def __init__(self, file: IO[bytes], most: int, archive: Path) -> None:
        self.file, self.left, self.archive = file, most, archive

    def read(self, size: int = -1) -> bytes:
        """Read on; raise InputError beyond the limit."""
        block = self.file.read(min(size, BLOCK) if size >= 0 else BLOCK)
        self.left -= len(block)
        if self.left < 0:
            raise InputError(f"{self.archive} unpacks to more than {RATIO} times its size; use the published archive")
        return block


def _unpacked(raw: BinaryIO) -> Any:
    """Return what a file holds that is compressed by gzip, bzip2 or xz, or not at all."""
    head = raw.read(6)
    raw.seek(0)
    kinds: tuple[tuple[bytes, Callable[[BinaryIO], Any]], ...]
    kinds = (
        (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
        (b"BZh", bz2.BZ2File),
        (b"\xfd7zXZ", lzma.LZMAFile),
    )
    return next((opened(raw) for start, opened in kinds if head.startswith(start)), raw)


def tar_members(archive: Path, most: int, meter: Meter) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    """Yield each file's name in a tar, and what opens it before the next is asked for; ``most`` bytes are unpacked."""
    from core.data.tar_shards import members  # here: core.data imports torch, which the doctor must not wait for

    with open(archive, "rb") as raw, tarfile.open(fileobj=_Limited(_unpacked(raw), most, archive), mode="r|") as tar:
        for member in members(tar):
            meter.reach(min(raw.tell(), meter.total))
            if member.isdir():
                continue
            if not member.isreg():
                kind = "a link" if member.issym() or member.islnk() else "a device"
                raise InputError(f"{archive} holds '{member.name}', {kind}; nothing was unpacked, use another archive")

            def content(member: tarfile.TarInfo = member) -> IO[bytes]:
                file = tar.extractfile(member)
                assert file is not None
                return file

            yield member.name, content


def _zip(archive: Path, most: int, meter: Meter) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    with zipfile.ZipFile(archive) as file:
        if sum(member.file_size for member in file.infolist()) > most:
            raise InputError(f"{archive} unpacks to more than {RATIO} times its size; use the published archive")
        done = 0
        for member in file.infolist():
            done += member.compress_size
            meter.reach(done)
            if member.is_dir():
                continue
            if member.external_attr >> 28 == 0xA:  # the type bits of a Unix mode: a symbolic link
                raise InputError(
                    f"{archive} holds '{member.filename}', a link; nothing was unpacked, use another archive"
                )

            def content(member: zipfile.ZipInfo = member) -> IO[bytes]:
                return file.open(member)

            yield member.filename, content
