"""What all layouts need: folders made whole or not at all, image files and label maps checked, faulty records counted."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from core import bounds
from core.errors import InputError
from core.files import FileError, sha256, temporary_folder, write_json
from core.meter import track

MANIFEST = "manifest.json"


def make_once(folder: Path, made_from: dict[str, Any], make: Callable[[Path], None]) -> bool:
    """Run ``make`` on a temporary folder and rename it to ``folder``, unless one made from the same is there.

    Processes that ask at the same time wait for the first. A folder made from something else is replaced; one that this
    function did not make is refused. Returns whether it was made now.
    """
    if _is_current(folder, made_from):
        return False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.parent / f".{folder.name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the system when the process ends, however it ends
            if _is_current(folder, made_from):
                return False
            _make(folder, made_from, make)
    except OSError as error:
        if error.errno is None:
            raise
        what = f"cannot write {folder} ({error.strerror}: {error.filename})"
        raise InputError(f"{what}; free some space or choose another folder") from error
    return True


def _make(folder: Path, made_from: dict[str, Any], make: Callable[[Path], None]) -> None:
    with temporary_folder(folder.parent, folder.name) as place:
        made = place / "made"
        made.mkdir()
        make(made)
        names = sorted(
            path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file() and not path.is_symlink()
        )
        files = {name: sha256(made / name) for name in names}
        write_json(made / MANIFEST, {"made_from": made_from, "sha256": digest(files), "files": files})
        os.chmod(made, 0o755)  # noqa: S103 - data sets are shared by a group
        os.sync()  # one for all files, before the name says that they are whole
        if folder.exists():
            os.rename(folder, place / "before")
        os.rename(made, folder)


def digest(files: dict[str, str]) -> str:
    """Return one sha256 for a set of files, given as relative name -> sha256."""
    return hashlib.sha256("".join(f"{value}  {name}\n" for name, value in sorted(files.items())).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what a made folder was made from (``made_from``), its ``files`` and their common ``sha256``."""
    try:
        manifest = bounds.loads(bounds.regular(folder / MANIFEST, bounds.JSON_TEXT, "a manifest"))
        if not isinstance(manifest["files"], dict) or not isinstance(manifest["made_from"], dict):
            raise TypeError
    except FileError as error:
        raise InputError(f"no {folder / MANIFEST}; make the folder with tools/prepare_data.py") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / MANIFEST} is damaged; remove the folder {folder} and make it again") from error
    return manifest


def verify(folder: Path) -> None:
    """Compare every file of a made folder with its sha256; raise InputError naming the first that differs."""
    for name, expected in read_manifest(folder)["files"].items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path} is missing; remove the folder {folder} and make it again")
        if sha256(path) != expected:
            raise InputError(f"{path} was changed or is damaged; remove the folder {folder} and make it again")


def _is_current(folder: Path, made_from: dict[str, Any]) -> bool:
    """Tell whether the folder was made from the same and still has all its files."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder} exists and was not made by this tool; move it away or choose another folder")
    manifest = read_manifest(folder)
    same = bool(manifest["made_from"] == json.loads(json.dumps(made_from)))
    return same and all((folder / name).is_file() for name in manifest["files"])


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
    with bounds.image(path) as image:
        image.load()


def size(path: Path) -> tuple[int, int]:
    """Return (width, height) in pixels from an image's header."""
    with bounds.image(path) as image:
        return image.size


# --- a user's folder

DESCRIBED = frozenset({".json", ".xml", ".txt", ".csv"})  # files whose text says what the images show


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder; hidden ones are left out."""
    for here, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in names if not name.startswith("."))


def fingerprint(folder: Path, *, content: bool) -> str:
    """Hash a folder: what its annotations say and the names and sizes of its images; or all files' sizes and times of change."""
    lines = []
    for path in walk(folder):
        name, status = path.relative_to(folder).as_posix(), path.stat()
        if content and path.suffix.lower() in DESCRIBED:
            lines.append(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}")
        else:
            lines.append(f"{name} {status.st_size}" if content else f"{name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def kept_fingerprint(folder: Path) -> str:
    """Return the fingerprint of a folder's content; it is kept until a folder or an annotation file in it changes."""
    state = hashlib.sha256()
    for here, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        state.update(f"{here} {os.stat(here).st_mtime_ns}\n".encode())
        for name in sorted(name for name in names if Path(name).suffix.lower() in DESCRIBED):
            found = os.stat(os.path.join(here, name))
            state.update(f"{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "masktransfer" / "fingerprints.json"
    kept = bounds.mapping(cache) or {}
    key = str(folder.resolve())
    if isinstance(known := kept.get(key), list) and known[:1] == [state.hexdigest()]:
        return str(known[1])
    content = fingerprint(folder, content=True)
    with contextlib.suppress(FileError):  # it is a convenience
        write_json(cache, {**kept, key: [state.hexdigest(), content]})
    return content


# --- image files and their label maps

LabelOf = Callable[[Path], Path]  # image file -> its label file, both below their folders


def listed(images: Path, labels: Path, label_of: LabelOf, suffix: str, next_step: str) -> list[tuple[Path, Path]]:
    """Return all pairs of image and label files; raise InputError naming a missing folder or file."""
    for folder in (images, labels):
        if not folder.is_dir():
            raise InputError(f"no folder {folder}; {next_step}")
    found = [(path, labels / label_of(path.relative_to(images))) for path in sorted(images.rglob(f"*{suffix}"))]
    if not found:
        raise InputError(f"{images} holds no {suffix} images; {next_step}")
    if alone := [label for _, label in found if not label.is_file() or not label.stat().st_size]:
        raise InputError(f"{alone[0]} is missing or empty ({len(alone)} of {len(found)} label maps are); {next_step}")
    return found


def check_pairs(found: list[tuple[Path, Path]], allowed: set[int], label: str) -> None:
    """Check that images are whole, and that label maps are 8-bit, of the image's size, and hold ``allowed`` values only."""
    for image, labels in track(found, f"checking {label}", len(found)):
        require_image(image, label)
        values, sides = read_labels(labels)
        if sides != size(image):
            raise InputError(f"{labels} is {sides}, its image {size(image)} pixels (width, height); make it again")
        if bad := sorted({int(value) for value in np.unique(values)} - allowed):
            raise InputError(f"{labels} holds the value {bad[0]}, which is no class of {label}; copy it again")


def read_labels(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """Read an 8-bit label map; return it [height, width] and (width, height)."""
    with bounds.image(path, ("PNG",)) as image:
        if image.mode not in ("L", "P"):
            raise InputError(
                f"{path} is a PNG of mode {image.mode}, not of 8-bit labels (L); use the published label maps"
            )
        return np.asarray(image), image.size


def rewrite(sources: list[Path], target_of: Callable[[Path], Path], table: np.ndarray, label: str) -> None:
    """Write each label map's values through ``table`` [256] to the file that ``target_of`` names."""
    every: Iterator[Path] = track(sources, f"writing {label}", len(sources))
    for source in every:
        values, _ = read_labels(source)
        target = target_of(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(table[values].astype(np.uint8)).save(target)


ONE_IN = 1000  # COCO 2017 itself has some boxes without area among 860,001; both frameworks drop them


class Faults:
    """Faults of the records of one file or list, by kind."""

    def __init__(self, source: Path, *kinds: str) -> None:
        self.source = source
        self.first: dict[str, str] = {}
        self.counts = dict.fromkeys(kinds, 0)

    def add(self, kind: str, where: str) -> None:
        """Note one faulty record."""
        self.counts[kind] += 1
        self.first.setdefault(kind, where)

    def settled(self, *totals: int) -> dict[str, int]:
        """Return the counts; raise InputError where one is more than one in ``ONE_IN`` of its kind's total."""
        for (kind, count), total in zip(self.counts.items(), totals, strict=True):
            if count * ONE_IN > total:
                raise InputError(
                    f"{self.source} has {count} {kind} among {total}, first {self.first[kind]}; remove or repair them"
                )
        return dict(self.counts)
