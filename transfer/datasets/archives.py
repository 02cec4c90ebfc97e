"""Unpack tar and zip files so that nothing leaves the folder: no links, no devices, no ``..``."""

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from core.errors import InputError
from core.meter import Meter

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
    with open(archive, "rb") as raw, tarfile.open(fileobj=raw) as tar:
        for member in tar:
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
