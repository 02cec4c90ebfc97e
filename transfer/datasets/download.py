"""Fetch the archives a dataset is made of: resumed, checked, and with one message where there is no network.

Archives lie in ``ROOT/downloads``. One put there by hand is taken as well, so a machine without a network needs no other way.
"""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import ssl
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, NamedTuple
from urllib.parse import urlsplit

from core.errors import InputError
from core.meter import Meter

BLOCK = 2**20
TIMEOUT = 30.0  # seconds without a byte
PAUSES = (1.0, 4.0, 16.0)  # seconds before each new attempt that follows one without progress
ROOM = 2.2  # times the archives' bytes: themselves and what they unpack to


class Archive(NamedTuple):
    """A published file: its name, where it is (None: behind a login), its md5 and bytes as published (None: not known)."""

    name: str
    url: str | None
    md5: str | None = None
    size: int | None = None


class Interrupted(Exception):
    """The connection ended before the file did."""


NETWORK = (
    urllib.error.URLError,
    Interrupted,
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
    ssl.SSLError,
)


def obtain(archives: Sequence[Archive], folder: Path, login: str = "") -> list[Path]:
    """Return the paths of all archives in ``folder``, fetching those that are not there.

    ``login`` says how to get the ones without a URL. Raises InputError naming all files to put there, and for a wrong checksum.
    """
    missing = [archive for archive in archives if not (folder / archive.name).is_file()]
    if any(archive.url is None for archive in missing):
        names = ", ".join(archive.name for archive in missing)
        raise InputError(f"{login}; put {names} into {folder} and start the same command again")
    _require_room(folder, missing)
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
    """Compare a file with the published size and md5; one that differs is renamed to ``NAME.refused`` and InputError raised."""
    size = path.stat().st_size
    wrong = ""
    if archive.size is not None and size != archive.size:
        wrong = f"has {size} bytes, not {archive.size}"
    elif archive.md5 is not None and (found := _md5(path)) != archive.md5:
        wrong = f"has the md5 {found}, not {archive.md5}"
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
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 - the catalogue has http(s) alone
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
            while block := answer.read(BLOCK):
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
        return str(json.loads(path.read_text())["validator"])
    return ""


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)  # what the datasets' authors publish
    with open(path, "rb") as file, Meter(f"checking {path.name}", path.stat().st_size, of_bytes=True) as meter:
        while block := file.read(BLOCK):
            digest.update(block)
            meter.reach(file.tell())
    return digest.hexdigest()


def _require_room(folder: Path, archives: Sequence[Archive]) -> None:
    """Raise InputError before a download that the disk cannot hold."""
    needed = ROOM * sum(archive.size or 0 for archive in archives)
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise InputError(
            f"{folder} has {free / 2**30:.1f} GiB free, {needed / 2**30:.1f} are needed; free some or choose another folder"
        )


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
    try:
        with Meter(f"unpacking {archive.name}", archive.stat().st_size, of_bytes=True) as meter:
            members = _zip(archive, meter) if archive.suffix == ".zip" else _tar(archive, meter)
            for name, content in members:
                target = select(name.removeprefix("./"))
                if target is None:
                    continue
                path = folder / _inside(target, name, archive)
                path.parent.mkdir(parents=True, exist_ok=True)
                with content() as source, open(path, "wb") as file:
                    shutil.copyfileobj(source, file, 2**20)
                count += 1
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
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


def _tar(archive: Path, meter: Meter) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    from core.data._tar_index import members  # here: core.data imports torch, which the doctor must not wait for

    with open(archive, "rb") as raw, tarfile.open(fileobj=raw) as tar:
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


def _zip(archive: Path, meter: Meter) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    with zipfile.ZipFile(archive) as file:
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
